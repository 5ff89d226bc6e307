"""What shall happen at which failpoint, as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.failpoints import catalogue, grammar
from libs.failpoints.grammar import Action, Effect, GrammarError

TIMES = st.none() | st.integers(1, 999_999_999)
PERCENT = st.integers(1, 100)
ACTIONS = st.one_of(
    st.builds(Action, st.sampled_from([Effect.EXIT, Effect.ERROR]), percent=PERCENT, times=TIMES),
    st.builds(Action, st.just(Effect.SLEEP), st.integers(0, 999_999_999), PERCENT, TIMES),
)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("exit", Action(Effect.EXIT)),
        ("error", Action(Effect.ERROR)),
        ("sleep=500", Action(Effect.SLEEP, 500)),
        ("10%error", Action(Effect.ERROR, percent=10)),
        ("3*exit", Action(Effect.EXIT, times=3)),
        ("10%3*sleep=500", Action(Effect.SLEEP, 500, percent=10, times=3)),
    ],
)
def test_an_action_says_what_happens_how_often_and_how_many_times(text: str, action: Action) -> None:
    assert grammar.read(f"history.commit.after={text}") == {"history.commit.after": action}


def test_several_points_are_separated_and_space_between_them_means_nothing() -> None:
    actions = grammar.read("\n history.begin.before = exit ;; llm.provider.after=error;\n")

    assert actions == {"history.begin.before": Action(Effect.EXIT), "llm.provider.after": Action(Effect.ERROR)}


@pytest.mark.parametrize("text", ["", " ", ";", "\n"])
def test_nothing_is_armed_by_nothing(text: str) -> None:
    assert grammar.read(text) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("history.commit.after", "'history.commit.after' must be NAME=ACTION"),
        ("=exit", "'=exit' must be NAME=ACTION"),
        ("a.b=", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not ''"),
        ("a.b=panic", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not 'panic'"),
        ("a.b=sleep", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not 'sleep'"),
        ("a.b=sleep=1.5", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not 'sleep=1.5'"),
        ("a.b=exit=1", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not 'exit=1'"),
        ("a.b=3*10%exit", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not '3*10%exit'"),
        ("a.b=٣*exit", "a.b must be [P%][N*] and one of exit, error and sleep=MS, not '٣*exit'"),
        ("a.b=0%exit", "a.b must have a percentage from 1 to 100, not 0"),
        ("a.b=101%exit", "a.b must have a percentage from 1 to 100, not 101"),
        ("a.b=0*exit", "a.b must fire at least once"),
        ("a.b=exit;a.b=error", "a.b is named twice"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(GrammarError) as raised:
        grammar.read(text)

    assert str(raised.value) == said


@given(st.dictionaries(st.sampled_from(sorted(catalogue.POINTS)), ACTIONS))
def test_what_is_written_is_read_as_what_it_was(actions: dict[str, Action]) -> None:
    assert grammar.read(grammar.write(actions)) == actions


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        actions = grammar.read(text)
    except GrammarError:
        return
    assert grammar.read(grammar.write(actions)) == actions
