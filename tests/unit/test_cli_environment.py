"""What a stack on this machine runs with, and what the other commands read of it."""

from pathlib import Path

import pytest

from libs.identity.keys import generate_keypair
from libs.runtime.config import ConfigError, Env
from services.cli import environment


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_a_stack_runs_with_is_read_again_and_only_its_owner_may(tmp_path: Path) -> None:
    settled = environment.with_defaults({"OPENAI_API_KEY": "sk=1", "PATH": "/bin"}, tmp_path)

    environment.write(settled, tmp_path)

    assert environment.read({"HOME": "/home/ada"}, tmp_path) == {
        **{name: value for name, value in settled.items() if name != "PATH"},
        "HOME": "/home/ada",
    }
    assert mode(tmp_path / "run.env") == 0o600


def test_a_value_of_several_lines_gets_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    pem = generate_keypair().public_pem

    environment.write({"COLLOQUY_JWT_PUBLIC_KEY": pem, "COLLOQUY_MAX_TURNS": "7"}, tmp_path)

    known = environment.read({}, tmp_path)
    assert known.keys() == {"COLLOQUY_JWT_PUBLIC_KEY_FILE", "COLLOQUY_MAX_TURNS"}
    assert Env(known).text("COLLOQUY_JWT_PUBLIC_KEY") == pem.strip()
    assert mode(Path(known["COLLOQUY_JWT_PUBLIC_KEY_FILE"])) == 0o600


@pytest.mark.parametrize("given", [{"COLLOQUY_MAX_TURNS": "7"}, {"COLLOQUY_DATABASE_URL": "postgresql://elsewhere"}])
def test_an_environment_that_names_something_is_never_mixed_with_the_last_run(
    given: dict[str, str], tmp_path: Path
) -> None:
    environment.write({"COLLOQUY_HISTORY_DATABASE_URL": "postgresql://here"}, tmp_path)

    assert environment.read(given, tmp_path) == given


@pytest.mark.parametrize("given", [{"COLLOQUY_TEST_DATABASE_URL": "postgresql://tests"}, {"COLLOQUY_MAX_TURNS": ""}])
def test_a_variable_of_the_tests_and_an_empty_one_name_nothing(given: dict[str, str], tmp_path: Path) -> None:
    environment.write({"COLLOQUY_MAX_TURNS": "8"}, tmp_path)

    assert environment.read(given, tmp_path)["COLLOQUY_MAX_TURNS"] == "8"


def test_an_address_that_is_empty_has_its_default_and_one_in_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "listen"
    file.write_text("127.0.0.1:6000\n")

    settled = environment.with_defaults({"COLLOQUY_BFF_LISTEN": "", "COLLOQUY_LLM_LISTEN_FILE": str(file)}, tmp_path)

    assert settled["COLLOQUY_BFF_LISTEN"] == "127.0.0.1:8080"
    assert settled["COLLOQUY_LLM_LISTEN"] == settled["COLLOQUY_LLM_TARGET"] == "127.0.0.1:6000"
    assert "COLLOQUY_LLM_LISTEN_FILE" not in settled


def test_an_address_in_a_file_that_is_not_there_is_a_clear_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COLLOQUY_LLM_LISTEN_FILE cannot be read"):
        environment.with_defaults({"COLLOQUY_LLM_LISTEN_FILE": str(tmp_path / "none")}, tmp_path)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL", "OPENAI_BASE_URL_FILE"])
def test_a_configured_provider_needs_no_simulator(name: str) -> None:
    assert not environment.uses_simulator({name: "x"})
    assert environment.uses_simulator({name: ""})


def test_keys_are_made_once_and_only_where_none_is_configured(tmp_path: Path) -> None:
    first = environment.with_defaults({}, tmp_path)
    key = Path(first[environment.PRIVATE_KEY_FILE]).read_text()

    again = environment.with_defaults({}, tmp_path)
    configured = environment.with_defaults({"COLLOQUY_JWKS_URL": "https://issuer.example/keys"}, tmp_path)

    assert Path(again[environment.PRIVATE_KEY_FILE]).read_text() == key
    assert environment.PRIVATE_KEY_FILE not in configured
    assert mode(Path(first[environment.PRIVATE_KEY_FILE])) == 0o600
