"""What a run is said to have shown."""

from collections import Counter

import orjson

from tests.chaos import report
from tests.chaos.faults import Fault, Kind
from tests.chaos.figures import Figure
from tests.chaos.injection import Struck
from tests.chaos.journal import Entry, What
from tests.chaos.judgement import Finding
from tests.chaos.ledger import Ledger, Stream, Turn
from tests.chaos.load import Flight
from tests.chaos.plan import Planned
from tests.chaos.repeats import Repeats
from tests.chaos.suite import Outcome

HEADER = report.Header("faults", 1, 10, "abc")
KILL = Planned(1, 3, Fault(Kind.KILL, "history"), 0.0, 0, 0.5, "kill history")
FLIGHTS = (Flight("r1", "s1", "chat", "ada"), Flight("r2", "s1", "chat", "ada"), Flight("r3", "", "chat", "ada"))
LOST = Finding("no acknowledgement is lost", "s1", "r1", "gone")


def _outcome(*findings: Finding, fired: int = 1, quiet_seconds: float | None = 1.0) -> Outcome:
    turns = {
        "r1": Turn("s1", "r1", "t1", "COMMITTED", "", 1, "hello", "hello", b""),
        "r2": Turn("s1", "r2", "t2", "ABANDONED", "UNAVAILABLE", 0, "hello", "", b""),
    }
    ledger = Ledger(turns, {"s1": Stream("s1", "chat", "ada", 1, sealed=False, erased=False)}, ())
    entries = [Entry(What.SEND, "ada", "r1", "s1", "chat", "hello", body="{}")]
    repeats = Repeats(1, 2, 2, Counter({"released 500": 1}), ())
    return Outcome([Struck(KILL, fired, FLIGHTS)] * 2, entries, ledger, repeats, findings, 10.0, quiet_seconds)


def test_a_row_counts_what_was_under_way_and_how_it_ended() -> None:
    [row] = report.rows(_outcome(LOST))

    assert (row.fault, row.planned, row.fired, row.in_flight, row.violations) == ("kill history", 2, 2, 6, 2)
    assert row.recovered == {"owner": 2, "abandoned": 2, "not begun": 2}


def test_the_short_table_has_a_line_for_each_kind_of_fault() -> None:
    [row] = report.rows(_outcome(), report.by_kind)

    assert (row.fault, row.planned) == ("kill", 2)


def test_a_run_without_a_finding_has_no_problem() -> None:
    assert report.problems(_outcome()) == []


def test_findings_unfired_faults_unrest_and_broken_promises_are_problems() -> None:
    assert len(report.problems(_outcome(LOST))) == 1
    assert len(report.problems(_outcome(fired=0))) == 1
    assert len(report.problems(_outcome(quiet_seconds=None))) == 1
    assert len(report.problems(_outcome(), [Figure("answered", 6.0, 5.0, "s")])) == 1


def test_both_forms_of_the_report_say_whether_it_failed() -> None:
    assert report.text(_outcome(), HEADER).endswith("passed: nothing was lost, nothing happened twice")
    assert report.text(_outcome(LOST), HEADER).endswith("failed")
    assert orjson.loads(report.document(_outcome(), HEADER))["problems"] == []


def test_the_document_explains_repeated_model_calls() -> None:
    document = orjson.loads(report.document(_outcome(), HEADER))

    assert document["model_calls"] == {
        "calls": 1,
        "attempts": 2,
        "requests": 2,
        "repeated_after": {"released 500": 1},
    }
    assert document["table"][0]["recovered"] == {"owner": 2, "abandoned": 2, "not begun": 2}
