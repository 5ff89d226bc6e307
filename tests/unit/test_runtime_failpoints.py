"""When failpoints fire, and that there are none where nobody asked for them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from libs.failpoints.grammar import Action, Effect, GrammarError
from libs.runtime import failpoint_calls, failpoints
from libs.runtime.config import ConfigError, Env
from libs.runtime.failpoints import Trial

AFTER_COMMIT = "history.commit.after"


@pytest.fixture(autouse=True)
def no_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test asks for ends with it."""
    monkeypatch.setattr(failpoints, "_points", None)


def fired(action: Action, draws: list[float]) -> list[bool]:
    trial = Trial(action)
    return [trial.reach(draw) is not None for draw in draws]


def configured(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What a history process that is given these says is wrong with them."""
    env = Env(variables)
    failpoints.configure("history", env)
    try:
        env.check()
    except ConfigError as error:
        return error.problems
    return ()


async def work() -> None:
    pass


def asked_for() -> bool:
    """Whether anything of failpoints is in what a process makes of its calls, its statements and its metrics port."""
    wrapped = failpoints.between(work, lambda: "history_commit", lambda _: RuntimeError()) is not work
    assert wrapped == bool(failpoints.routes()) == bool(failpoint_calls.interceptors())
    return wrapped


def test_a_percentage_is_drawn_each_time() -> None:
    assert fired(Action(Effect.ERROR, percent=10), [0.0, 0.099, 0.1, 0.5, 0.05]) == [True, True, False, False, True]


def test_it_fires_as_often_as_it_may_and_no_more() -> None:
    assert fired(Action(Effect.ERROR, times=2), [0.9] * 4) == [True, True, False, False]


def test_times_counts_what_fired_and_not_what_was_reached() -> None:
    assert fired(Action(Effect.ERROR, percent=50, times=2), [0.9, 0.1, 0.9, 0.1, 0.1]) == [False, True] * 2 + [False]


def test_what_is_reached_is_counted_where_nothing_is_armed() -> None:
    trial = Trial(None)

    assert [trial.reach(0.0), trial.reach(0.0)] == [None, None]
    assert (trial.reached, trial.fired) == (2, 0)


def test_a_process_that_is_not_asked_for_failpoints_has_none() -> None:
    assert configured({}) == ()
    assert not asked_for()


@pytest.mark.parametrize("text", ["", f"{AFTER_COMMIT}=exit"])
def test_a_process_has_failpoints_where_the_variable_is_set_also_to_nothing(text: str) -> None:
    assert configured({"COLLOQUY_FAILPOINTS": text}) == ()
    assert asked_for()


def test_the_variable_may_be_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "failpoints"
    file.write_text("history.commit.often=exit\n")

    assert len(configured({"COLLOQUY_FAILPOINTS_FILE": str(file)})) == 1


def test_production_refuses_failpoints() -> None:
    problems = configured({"COLLOQUY_ENV": "production", "COLLOQUY_FAILPOINTS": f"{AFTER_COMMIT}=exit"})

    assert problems == ("COLLOQUY_FAILPOINTS must not be set in production",)
    assert not asked_for()


def test_in_production_an_empty_variable_asks_for_nothing() -> None:
    assert configured({"COLLOQUY_ENV": "production", "COLLOQUY_FAILPOINTS": ""}) == ()
    assert not asked_for()


def test_an_environment_that_there_is_not_is_not_taken_for_development() -> None:
    problems = configured({"COLLOQUY_ENV": "prod", "COLLOQUY_FAILPOINTS": ""})

    assert problems == ("COLLOQUY_ENV must be one of development, production, not 'prod'",)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("history.comit.after", "did you mean history.commit.after?"),
        ("elsewhere", "`colloquy failpoints` lists them"),
    ],
)
def test_a_point_that_there_is_not_is_refused(name: str, hint: str) -> None:
    problems = configured({"COLLOQUY_FAILPOINTS": f"{AFTER_COMMIT}=error;{name}=exit"})

    assert problems == (f"COLLOQUY_FAILPOINTS cannot be used: there is no failpoint {name}; {hint}",)
    assert not asked_for()


def test_the_same_text_is_for_all_processes_of_a_stack() -> None:
    assert configured({"COLLOQUY_FAILPOINTS": "bff.gateway.submit_turn.before=exit"}) == ()

    points = failpoints.asked_for()
    assert points is not None
    assert "bff.gateway.submit_turn.before" not in str(points.state())


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(GrammarError, match="must be"):
        failpoints.parse(f"{AFTER_COMMIT}=explode")
