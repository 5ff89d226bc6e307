"""Reading the environment: all problems at once, and secrets from files."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from libs.runtime.config import DATABASE_URL_FORM, ConfigError, Env


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
    env = Env({"COUNT": "many", "LOW": "1", "HIGH": "3000000000", "KIND": "c", "ON": "maybe", "AT": "nowhere"})

    env.text("NAME")
    env.integer("COUNT", 1)
    env.integer("LOW", 5, minimum=2)
    env.integer("HIGH", 5)
    env.choice("KIND", ["a", "b"], "a")
    env.flag("ON")
    env.listen("AT", "127.0.0.1:0")

    names = [problem.split()[0] for problem in problems_of(env)]
    assert names == ["NAME", "COUNT", "LOW", "HIGH", "KIND", "ON", "AT"]


def test_a_problem_is_reported_once_however_often_the_variable_is_read() -> None:
    env = Env({"KIND": "c"})

    env.choice("KIND", ["a", "b"], "a")
    env.choice("KIND", ["a", "b"], "a")

    assert problems_of(env) == ("KIND must be one of a, b, not 'c'",)


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "https://", "http://host:port", "http://[::1"])
def test_what_is_no_web_address_is_refused_and_not_shown(url: str) -> None:
    env = Env({"AT": url})

    env.url("AT", "https://api.example/v1")

    assert problems_of(env) == ("AT must be an http or https URL",)


def test_a_web_address_is_read() -> None:
    env = Env({"AT": "http://user:pw@[::1]:8090/v1"})

    assert env.url("AT") == "http://user:pw@[::1]:8090/v1"
    assert env.url("ABSENT", "") == ""
    env.check()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3%2Fcret%40@db.example:5432/colloquy?sslmode=require",
        "postgres://ada@[::1]/colloquy",
        "postgresql://localhost",
        "postgresql:///colloquy?host=/run/postgresql",
    ],
)
def test_a_database_url_is_what_sqlalchemy_and_libpq_read_alike(url: str) -> None:
    env = Env({"DATABASE_URL": url})

    assert env.database_url("HISTORY_DATABASE_URL", otherwise="DATABASE_URL") == url
    env.check()
    theirs, libpqs = make_url(url.replace("postgres://", "postgresql://")), conninfo_to_dict(url)
    assert (theirs.username, theirs.password) == (libpqs.get("user"), libpqs.get("password"))
    assert (theirs.host or theirs.query.get("host")) == libpqs["host"]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:s3cret@host/db",
        "postgresql+psycopg://ada:s3cret@host/db",
        "postgresql://ada:s3cret@host:port/db",
        "postgresql://ada:p@s3cret@host/db",
        "postgresql://ada:pa/s3cret@host/db",
        "s3cret",
    ],
)
@pytest.mark.parametrize("name", ["HISTORY_DATABASE_URL", "DATABASE_URL"])
def test_what_is_no_database_url_is_refused_by_the_name_it_was_given_and_not_shown(name: str, url: str) -> None:
    env = Env({name: url})

    env.database_url("HISTORY_DATABASE_URL", otherwise="DATABASE_URL")

    assert problems_of(env) == (f"{name} {DATABASE_URL_FORM}",)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:50051", "[::1]:50051", "history:50051", "dns:///history:50051", "ipv4:10.0.0.1:1,10.0.0.2:1"]
)
def test_a_target_is_an_address_or_has_a_scheme_that_grpc_knows(target: str) -> None:
    env = Env({"TO": target})

    assert env.target("TO", "127.0.0.1:1") == target
    env.check()


@pytest.mark.parametrize("target", ["history", "http://history:50051", "10.0.0.1:1,10.0.0.2:1", "::1:50051"])
def test_a_target_that_grpc_would_look_up_for_ever_is_refused(target: str) -> None:
    env = Env({"TO": target})

    env.target("TO", "127.0.0.1:1")

    assert problems_of(env) == (f"TO must be host:port or another gRPC target, not {target!r}",)


def test_a_port_that_others_are_told_is_not_any_free_one() -> None:
    env = Env({"AT": "127.0.0.1:0"})

    env.listen("AT", "127.0.0.1:1", told=True)

    assert problems_of(env) == ("AT must name a port that the others can be told",)


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
