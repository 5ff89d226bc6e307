"""What a stack on this machine runs with, and what the other commands read of it."""

from pathlib import Path

import pytest

from libs.identity.keys import generate_keypair
from libs.runtime.config import ConfigError, Env
from services.cli import environment, stack


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


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"COLLOQUY_DATABASE_URL": "postgresql://ada@127.0.0.1/x", "COLLOQUY_JWKS_URL": "https://issuer.example/keys"},
        {"OPENAI_API_KEY": "sk-test", "COLLOQUY_FAILPOINTS": "history.commit.after=exit"},
        {"COLLOQUY_CORS_ORIGINS": "*, https://app.example, http://localhost:3000, http://[::1]:3000"},
    ],
    ids=["nothing", "a database and keys", "a provider", "origins"],
)
def test_a_stack_that_can_be_started_is_not_objected_to(given: dict[str, str]) -> None:
    stack.check(given)


def test_all_that_the_processes_of_a_stack_would_refuse_is_said_together() -> None:
    wrong = {
        "COLLOQUY_BFF_LISTEN": "nonsense",
        "COLLOQUY_SIMULATOR_LISTEN": "127.0.0.1:0",
        "COLLOQUY_HISTORY_DATABASE_URL": "mysql://ada:secret@127.0.0.1/x",
        "COLLOQUY_LOG_LEVEL": "loud",
        "COLLOQUY_LLM_TARGET": "http://127.0.0.1:50054",
        "OPENAI_BASE_URL": "nonsense",
        "COLLOQUY_TURN_BUDGET_MS": "x",
        "COLLOQUY_JWT_PUBLIC_KEY": "secret",
        "COLLOQUY_ENV": "test",
        "COLLOQUY_FAILPOINTS": "bad",
    }

    with pytest.raises(ConfigError) as raised:
        stack.check(wrong)

    missing = {f"COLLOQUY_{context}_DATABASE_URL" for context in ("SESSION", "ASSESSMENT", "LLM")}
    assert {problem.split()[0] for problem in raised.value.problems} == wrong.keys() | missing
    assert len(raised.value.problems) == len(wrong) + len(missing)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "origin", ["junk", "https://app.example/", "https://App.example", "https://*.example", "app.example:3000", "null"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="COLLOQUY_CORS_ORIGINS must be"):
        stack.check({"COLLOQUY_CORS_ORIGINS": f"https://fine.example,{origin}"})
