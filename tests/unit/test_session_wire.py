"""What the session service accepts on the wire, and what it makes of it."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colloquy.session.v1 import session_pb2
from libs.folding.runs import first_digest
from libs.runtime.errors import InvalidField, Malformed
from services.session import wire
from services.session.domain import Kind, SessionId
from services.session.listing import NEWEST, Cursor

ID = "c1f0a7be-5d0e-4b7c-9a53-1f6f3f0a2e6d"
_MOMENTS = st.datetimes(timezones=st.just(UTC))


def _listing(page_token: str = "", page_size: int = 0) -> session_pb2.ListSessionsRequest:
    return session_pb2.ListSessionsRequest(page_token=page_token, page_size=page_size)


@given(_MOMENTS, st.uuids())
def test_a_page_token_leads_back_to_its_place(moment: datetime, session_id: UUID) -> None:
    cursor = Cursor(moment, SessionId(session_id))

    assert wire.page_request(_listing(wire.page_token(cursor))).after == cursor


@given(st.text(max_size=40))
def test_what_is_no_page_token_is_refused_by_name(token: str) -> None:
    if token:
        with pytest.raises(InvalidField) as refused:
            wire.page_request(_listing(token))

        assert [violation.field for violation in refused.value.violations] == ["page_token"]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token: token + "=",
        lambda token: token[:-4],
        lambda token: token + "AAAA",
        lambda token: "\n" + token,
        lambda token: "f" * len(token),  # a moment past the year 9999
    ],
)
def test_a_spoilt_page_token_is_refused(spoilt: Callable[[str], str]) -> None:
    token = wire.page_token(Cursor(datetime(2026, 1, 2, tzinfo=UTC), SessionId(uuid4())))

    with pytest.raises(InvalidField):
        wire.page_request(_listing(spoilt(token)))


def test_a_list_without_a_token_starts_at_the_newest_with_the_default_size() -> None:
    page = wire.page_request(_listing())

    assert page.after == NEWEST
    assert page.size == wire.DEFAULT_PAGE_SIZE


def test_a_bad_size_and_a_bad_token_are_named_together() -> None:
    with pytest.raises(InvalidField) as refused:
        wire.page_request(_listing("?", 201))

    assert [violation.field for violation in refused.value.violations] == ["page_token", "page_size"]


@pytest.mark.parametrize("text", ["", "x", ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f" {ID}"])
def test_a_session_id_has_one_form(text: str) -> None:
    with pytest.raises(Malformed):
        wire.session_id(text)


def test_a_digest_has_32_bytes() -> None:
    turn = session_pb2.AppliedTurn(seq=1, previous_digest=b"short", digest=bytes(32))
    run = session_pb2.SessionTurns(session_id=str(uuid4()), turns=[turn], last_seq=1)

    with pytest.raises(Malformed):
        wire.readings(session_pb2.ApplyTurnsRequest(sessions=[run]))


def test_a_kind_of_a_newer_contract_does_not_mean_every_kind() -> None:
    viewer = session_pb2.Viewer(owner_id="alice")
    viewer.MergeFromString(b"\x18\x63")  # kind 99

    with pytest.raises(InvalidField):
        wire.viewer(viewer)


def test_a_viewer_of_any_owner_needs_no_name_and_another_sees_what_is_named() -> None:
    everyone = wire.viewer(session_pb2.Viewer(owner_id="alice", any_owner=True))
    alice = wire.viewer(session_pb2.Viewer(owner_id="alice", kind=session_pb2.KIND_CHAT))

    assert everyone.owner_id is None
    assert everyone.kind is None
    assert alice.owner_id == "alice"
    assert alice.kind is Kind.CHAT


def test_every_field_that_breaks_a_rule_is_named_at_once() -> None:
    with pytest.raises(InvalidField) as refused:
        wire.new_session(session_pb2.Session(session_id=str(uuid4())))

    assert {violation.field for violation in refused.value.violations} == {
        "session.kind",
        "session.created_at",
        "session.owner_id",
        "session.max_turns",
    }


def test_the_runs_of_a_batch_are_refused_by_their_place_in_it() -> None:
    session_id = SessionId(uuid4())
    good = session_pb2.SessionTurns(session_id=str(session_id), last_seq=0)
    gap = session_pb2.SessionTurns(
        session_id=str(session_id),
        turns=[
            session_pb2.AppliedTurn(seq=1, previous_digest=first_digest(session_id), digest=bytes(32)),
            session_pb2.AppliedTurn(seq=3, previous_digest=bytes(32), digest=bytes(32)),
        ],
        last_seq=3,
    )
    poor = session_pb2.SessionTurns(session_id=str(session_id), last_seq=1)
    poor.turns.add(seq=1, previous_digest=first_digest(session_id), digest=bytes(32), prompt_tokens=-1)
    timeless = session_pb2.SessionTurns(session_id=str(session_id), last_seq=0, sealed=True)

    with pytest.raises(InvalidField) as refused:
        wire.readings(session_pb2.ApplyTurnsRequest(sessions=[good, gap, poor, timeless]))

    assert [violation.field for violation in refused.value.violations] == [
        "sessions[1].turns[1].seq",
        "sessions[2].turns[0].prompt_tokens",
        "sessions[3].sealed_at",
    ]
