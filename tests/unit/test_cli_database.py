"""Which database the commands use; that `colloquy run` brings its own is shown end to end."""

from pathlib import Path

import pytest

from libs.runtime.config import ConfigError
from services.cli import database, stack

URL = "postgresql://colloquy:secret@127.0.0.1:5432/colloquy"
NAMES = [
    "COLLOQUY_DATABASE_URL",
    *(f"COLLOQUY_{context}_DATABASE_URL" for context in ("SESSION", "HISTORY", "ASSESSMENT", "LLM")),
]


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}_FILE" for name in NAMES)])
def test_each_of_the_five_variables_configures_a_database(name: str) -> None:
    assert database.is_configured({name: URL})
    assert not database.is_configured({name: ""})


@pytest.mark.parametrize("name", ["DATABASE_URL", "COLLOQUY_TEST_DATABASE_URL", "COLLOQUY_TEST_DATABASE_URL_FILE"])
def test_the_variables_of_others_configure_none(name: str) -> None:
    assert not database.is_configured({name: URL})


def test_everything_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        database.database_urls({"COLLOQUY_LLM_DATABASE_URL": URL})

    assert [problem.split()[0] for problem in refused.value.problems] == NAMES[1:4]


@pytest.mark.parametrize("url", ["postgres:/colloquy:secret@host", "mysql://colloquy:secret@host/x", f"{URL}?nope=1"])
def test_a_wrong_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^COLLOQUY_DATABASE_URL must be postgresql://[^;]*$") as refused:
        database.database_urls({"COLLOQUY_DATABASE_URL": url})

    assert "secret" not in str(refused.value)


def test_a_url_of_ones_own_comes_before_the_common_one(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{URL}_history\n")

    urls = stack.database_urls({"COLLOQUY_DATABASE_URL": URL, "COLLOQUY_HISTORY_DATABASE_URL_FILE": str(file)})

    assert urls == {"session": URL, "history": f"{URL}_history", "assessment": URL, "llm": URL}
