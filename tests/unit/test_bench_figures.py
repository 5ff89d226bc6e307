"""The benchmark's statistics say what they claim to."""

import pytest

from tests.bench.figures import (
    ModelCall,
    Spread,
    Tally,
    Turn,
    Work,
    in_yardsticks,
    overhead,
    per_turn,
    percentile,
    work,
)


def turn(turn_id: str, turn_ms: float, *, degraded: tuple[str, ...] = ()) -> Turn:
    """A turn of session `s` that began at second 100."""
    return Turn("s", turn_id, turn_ms, 100 + turn_ms / 1000, degraded, {})


def call(name: str, duration_ms: float, *, after_ms: float = 5, outcome: str = "answered") -> ModelCall:
    """A call that began so long after second 100."""
    return ModelCall(name, outcome, 100 + after_ms / 1000, duration_ms)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.95, 95), (0.951, 96), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_a_spread_of_one_value_is_that_value_and_of_none_is_none() -> None:
    assert Spread.of([7.0]) == Spread(1, 7.0, 7.0, 7.0, 7.0)
    assert Spread.of([]) is None


def test_a_spread_does_not_need_its_values_in_order() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(3, 2.0, 3.0, 3.0, 3.0)


def test_overhead_is_the_turn_less_the_slower_of_its_two_model_calls() -> None:
    turns = [turn("a", 340), turn("b", 260)]
    calls = [
        call("s/a/question", 300),
        call("s/a/judge", 200),
        call("s/b/question", 100),
        call("s/b/judge", 250),
    ]

    seen = overhead(turns, calls)

    assert (seen.values_ms, seen.model_ms) == ([40, 10], [300, 250])
    assert (seen.degraded, seen.late, seen.unjoined) == (0, 0, 0)


def test_a_turn_with_one_model_call_is_compared_with_that_one() -> None:
    assert overhead([turn("a", 340)], [call("s/a/judge", 300)]).values_ms == [40]


def test_calls_that_no_turn_waits_for_are_left_out() -> None:
    calls = [call("s/a/judge", 100), call("s/a/prepared/item-1", 330), call("other/a/judge", 330), call("", 330)]

    assert overhead([turn("a", 340)], calls).values_ms == [240]


def test_a_repeated_call_counts_from_its_first_start_to_its_last_end() -> None:
    calls = [call("s/a/judge", 20, after_ms=10, outcome="refused"), call("s/a/judge", 100, after_ms=60)]

    (overhead_ms,) = overhead([turn("a", 340)], calls).values_ms
    assert overhead_ms == pytest.approx(340 - 150, abs=0.001)


def test_a_turn_that_did_not_wait_for_its_model_has_no_overhead() -> None:
    turns = [turn("a", 2000, degraded=("bank",)), turn("b", 300), turn("c", 300), turn("d", 300)]
    calls = [
        call("s/a/question", 1600),
        call("s/b/judge", 2000),
        call("s/c/judge", 200, outcome="abandoned"),
    ]

    seen = overhead(turns, calls)

    assert seen.values_ms == []
    assert (seen.degraded, seen.late, seen.unjoined) == (1, 2, 1)


def test_what_grew_is_divided_by_the_turns() -> None:
    before = {"history": 100.0, "idle": 5.0}
    after = {"history": 300.0, "idle": 5.0, "new": 50.0}

    assert per_turn(before, after, 100) == {"history": 2.0, "new": 0.5}


def test_work_is_told_per_turn_with_its_mean_time() -> None:
    before = {"BeginTurn": Tally(10, 1.0), "idle": Tally(3, 0.5)}
    after = {"BeginTurn": Tally(30, 2.0), "idle": Tally(3, 0.5), "CommitTurn": Tally(5, 0.01)}

    assert work(before, after, 10) == {"BeginTurn": Work(2.0, 50.0), "CommitTurn": Work(0.5, 2.0)}


def test_cpu_is_compared_with_the_mean_of_the_two_yardsticks() -> None:
    assert in_yardsticks(20.0, before_ms=0.3, after_ms=0.5) == pytest.approx(50)
