"""The call being served: ids, deadline and log fields."""

import asyncio
import re

import pytest

from libs.runtime import context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_outside_a_call_there_is_nothing() -> None:
    assert context.correlation_id() == context.traceparent() == context.authorization() == ""
    assert context.remaining_ms() is None
    context.bind(session_id="ignored")


def test_the_callers_ids_are_taken() -> None:
    headers = {"x-correlation-id": "abc-1", "traceparent": TRACE, "authorization": "Bearer t"}

    with context.serving(headers):
        assert context.correlation_id() == "abc-1"
        assert context.authorization() == "Bearer t"
        assert context.traceparent().startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


def test_each_hop_has_one_span_of_its_own() -> None:
    with context.serving({"traceparent": TRACE}):
        handed_on = context.traceparent()

        assert handed_on == context.traceparent()
        assert handed_on.split("-")[2] != TRACE.split("-")[2]
        assert handed_on.endswith("-01")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        TRACE.upper(),
        "ff" + TRACE[2:],
        TRACE[:-1],
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(traceparent: str) -> None:
    with context.serving({"traceparent": traceparent}):
        made = context.traceparent()

    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", made)
    assert "4bf92f3577b34da6a3ce929d0e0e4736" not in made


def test_a_later_version_of_traceparent_is_read_as_this_one() -> None:
    with context.serving({"traceparent": "01" + TRACE[2:] + "-what-comes"}):
        assert context.traceparent().startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


@pytest.mark.parametrize("given", ["", "x" * 129, "two\nlines", "smörgås", "tab\there"])
def test_a_correlation_id_that_metadata_cannot_carry_is_replaced(given: str) -> None:
    with context.serving({"x-correlation-id": given}):
        assert re.fullmatch("[0-9a-f]{32}", context.correlation_id())


def test_a_token_that_metadata_cannot_carry_is_dropped() -> None:
    with context.serving({"authorization": "Bearer \u00e9"}):
        assert context.authorization() == ""


def test_a_deadline_narrows_and_never_widens() -> None:
    with context.serving(budget_ms=10_000):
        with context.deadline(500):
            assert 0 < (context.remaining_ms() or 0) <= 500
            with context.deadline(60_000):
                assert 0 < (context.remaining_ms() or 0) <= 500
        assert 500 < (context.remaining_ms() or 0) <= 10_000


def test_a_passed_deadline_leaves_nothing() -> None:
    with context.serving(budget_ms=-5):
        assert context.remaining_ms() == 0


async def test_detached_work_keeps_the_ids_and_loses_the_deadline() -> None:
    async def work() -> tuple[str, int | None]:
        return context.correlation_id(), context.remaining_ms()

    with context.serving({"x-correlation-id": "abc"}, budget_ms=100):
        with context.detach():
            free = asyncio.create_task(work())
        with context.detach(budget_ms=5000):
            longer = asyncio.create_task(work())
        assert (context.remaining_ms() or 0) <= 100

    assert await free == ("abc", None)
    correlation_id, left_ms = await longer
    assert correlation_id == "abc"
    assert 100 < (left_ms or 0) <= 5000


def test_a_call_within_a_call_does_not_leak_out() -> None:
    with context.serving({"x-correlation-id": "outer"}, budget_ms=1000):
        with context.serving({"x-correlation-id": "inner"}):
            assert context.correlation_id() == "inner"
            assert context.remaining_ms() is None
        assert context.correlation_id() == "outer"
        assert context.remaining_ms() is not None
