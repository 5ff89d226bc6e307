"""Reading the environment: all problems at once, and secrets from files."""

from pathlib import Path

import pytest

from libs.runtime.config import ConfigError, Env


def problems_of(env: Env) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        env.check()
    return raised.value.problems


def test_values_and_defaults_are_read() -> None:
    env = Env({"NAME": "x", "COUNT": "7", "ON": "yes", "KIND": "b", "AT": "127.0.0.1:50051"})

    assert env.text("NAME") == "x"
    assert env.text("ABSENT", "fallback") == "fallback"
    assert env.integer("COUNT") == 7
    assert env.integer("ABSENT", 3) == 3
    assert env.flag("ON") is True
    assert env.flag("ABSENT") is False
    assert env.choice("KIND", ["a", "b"]) == "b"
    assert env.listen("AT", "127.0.0.1:1") == ("127.0.0.1", 50051)
    assert env.listen("ABSENT", "[::1]:0") == ("::1", 0)
    env.check()


def test_everything_missing_or_wrong_is_reported_at_once() -> None:
    env = Env({"COUNT": "many", "LOW": "1", "KIND": "c", "ON": "maybe", "AT": "nowhere"})

    env.text("NAME")
    env.integer("COUNT", 1)
    env.integer("LOW", 5, minimum=2)
    env.choice("KIND", ["a", "b"], "a")
    env.flag("ON")
    env.listen("AT", "127.0.0.1:0")

    names = [problem.split()[0] for problem in problems_of(env)]
    assert names == ["NAME", "COUNT", "LOW", "KIND", "ON", "AT"]


def test_a_general_variable_stands_in_for_a_particular_one() -> None:
    env = Env({"DATABASE_URL": "general"})

    assert env.secret("HISTORY_DATABASE_URL", otherwise="DATABASE_URL") == "general"
    assert Env({}).secret("HISTORY_DATABASE_URL", "", otherwise="DATABASE_URL") == ""
    env.check()


def test_a_missing_variable_is_reported_with_the_general_one() -> None:
    env = Env({})

    env.secret("HISTORY_DATABASE_URL", otherwise="DATABASE_URL")

    assert problems_of(env) == ("HISTORY_DATABASE_URL is not set (nor DATABASE_URL)",)


def test_an_empty_value_counts_as_unset() -> None:
    assert Env({"NAME": ""}).text("NAME", "fallback") == "fallback"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    env = Env({"KEY_FILE": str(tmp_path / "key")})

    assert env.secret("KEY") == "s3cret"
    env.check()


def test_an_unreadable_file_and_a_value_beside_a_file_are_problems(tmp_path: Path) -> None:
    env = Env({"KEY_FILE": str(tmp_path / "absent"), "NAME": "x", "NAME_FILE": str(tmp_path / "absent")})

    env.secret("KEY", "")
    env.text("NAME", "")

    assert problems_of(env) == (
        f"KEY_FILE cannot be read: {tmp_path / 'absent'}: FileNotFoundError",
        "NAME and NAME_FILE are both set",
    )


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:50051", "example.org:50051"])
def test_only_loopback_is_listened_on_without_tls(address: str) -> None:
    env = Env({"AT": address})

    env.listen("AT", "127.0.0.1:0")

    assert "COLLOQUY_INSECURE_LISTEN=1" in problems_of(env)[0]


def test_a_proxy_that_has_the_tls_is_vouched_for() -> None:
    env = Env({"AT": "0.0.0.0:50051", "COLLOQUY_INSECURE_LISTEN": "1"})

    assert env.listen("AT", "127.0.0.1:0") == ("0.0.0.0", 50051)
    env.check()
