"""What a caller may ask for: the rules of each field, and that all that are broken are named at once."""

import unicodedata
from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.messages.text import message_violations
from libs.runtime.errors import InvalidField
from services.history.commands import (
    NewStream,
    NewTurn,
    Release,
    Reply,
    TurnRange,
    Viewer,
    at_most,
)
from services.history.domain import ClaimId, Kind, OwnerId, RequestId, SessionId, TurnState, WindowLimit

ALICE = Viewer(OwnerId("alice"), any_owner=False, kind=None)
# Unicode 16, DerivedCoreProperties.txt, Default_Ignorable_Code_Point.
DEFAULT_IGNORABLE = (
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)


def new_turn(text: str, in_reply_to: int | None = None, window: WindowLimit | None = None) -> NewTurn:
    return NewTurn(
        session_id=SessionId(uuid4()),
        viewer=ALICE,
        request_id=RequestId(uuid4()),
        claim_id=ClaimId(uuid4()),
        text=text,
        in_reply_to=in_reply_to,
        window=window or WindowLimit(10, 3000),
    )


def broken(make: Callable[[], object]) -> list[str]:
    """The fields that are named at fault."""
    with pytest.raises(InvalidField) as caught:
        make()
    return [violation.field for violation in caught.value.violations]


def rules(text: str) -> list[str]:
    return [violation.message for violation in message_violations("text", text)]


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "x" * 2000,
        "🦉" * 2000,
        "e\u0301" * 2000,
        "\u1112\u1161\u11ab" * 2000,
        "\u03b1\u0313\u0300\u0345" * 2000,
        "'; DROP TABLE turns; --",
        "<script>alert(1)</script>",
        '{"role": "system"}',
        "👩‍👩‍👧‍👦",
        "\u202eabc",
        "\u0301",
        " a ",
        "السلام عليكم",
        "\ufffd",
        "\ud7ff\ue000\U0010ffff",
    ],
    ids=ascii,
)
def test_a_message_that_shows_something_and_is_not_too_long_may_be_sent(text: str) -> None:
    assert rules(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\t\r\n\x0b\x0c\x1c\x85\u00a0\u1680\u2000\u2028\u2029\u202f\u205f\u3000",
        "\u200b\u200c\u200d\u2060\ufeff",
        "\u115f\u1160\u3164\uffa0",
        "\u2800\u2800",
        "\ufe0f\U000e0100",
        "\U000e0041\U000e007f",
        "\x01\x1b\x7f\x9f",
        "\ufff9\ufffa\ufffb",
        "\U0001d159",
        "\u00ad \u2066\u2069 ",
    ],
    ids=ascii,
)
def test_a_message_in_which_nothing_can_be_seen_is_refused(text: str) -> None:
    assert rules(text) == ["must hold something that can be seen"]


def test_every_default_ignorable_code_point_is_invisible() -> None:
    for first, last in DEFAULT_IGNORABLE:
        for code in range(first, last + 1):
            assert rules(chr(code)) == ["must hold something that can be seen"], hex(code)


@given(st.characters(categories=["L", "N", "P", "S"]))
def test_a_letter_number_mark_of_punctuation_or_symbol_can_be_seen(character: str) -> None:
    invisible = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800", "\U0001d159"}

    assert (rules(character) == []) is (character not in invisible)


@given(st.text(alphabet=" \u200b\ufe0f\u3164\u2800\n"), st.text(alphabet=" \u200b\u200d\u00ad"))
def test_one_visible_character_is_enough(before: str, after: str) -> None:
    assert rules(f"{before}a{after}") == []


@pytest.mark.parametrize("text", ["x" * 2001, "🦉" * 2001, "e\u0301" * 2001, "\u0958" * 1001], ids=len)
def test_length_counts_code_points_after_nfc(text: str) -> None:
    assert len(unicodedata.normalize("NFC", text)) > 2000
    assert rules(text) == ["must be at most 2000 code points after NFC"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("aeoαक\u1112 "),
            st.text(alphabet="\u0301\u0313\u0316\u0345\u0334\u1161", max_size=9),
            st.integers(1, 700),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_bound_that_spares_normalising_agrees_with_nfc(clusters: list[tuple[str, str, int]]) -> None:
    text = "x" + "".join((starter + marks) * count for starter, marks, count in clusters)

    refused = "must be at most 2000 code points after NFC" in rules(text)

    assert refused is (len(unicodedata.normalize("NFC", text)) > 2000)


def test_a_storm_of_combining_marks_is_refused() -> None:
    storm = "a" + "\u0345\u0301\u0316\u0334" * 15_000

    assert rules(storm) == ["must be at most 2000 code points after NFC"]


@pytest.mark.parametrize("text", ["a\0b", "\0"], ids=ascii)
def test_nul_is_refused(text: str) -> None:
    assert "must not hold NUL" in rules(text)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    assert rules("a\ud83e") == ["must not hold lone surrogates"]


def test_every_broken_rule_of_a_message_is_named_at_once() -> None:
    assert broken(lambda: new_turn("\0" * 2001, in_reply_to=-1, window=WindowLimit(201, -1))) == [
        "text",
        "text",
        "text",
        "in_reply_to",
        "window.max_messages",
        "window.max_tokens",
    ]


def new_stream(**changes: object) -> NewStream:
    fields: dict[str, object] = {
        "session_id": SessionId(uuid4()),
        "viewer": ALICE,
        "tenant_id": "",
        "kind": Kind.CHAT,
        "request_id": RequestId(uuid4()),
        "fingerprint": b"f" * 32,
        "facts": b"",
        "personal_facts": b"",
        "max_turns": 1,
        "min_interval_ms": 0,
        "lease_ms": 1,
        "claim_id": ClaimId(uuid4()),
        "with_opening": False,
    }
    return NewStream(**(fields | changes))  # type: ignore[arg-type]


def test_a_stream_with_the_least_of_everything_may_be_opened() -> None:
    assert new_stream().max_turns == 1


def test_every_field_of_a_stream_that_cannot_be_is_named_at_once() -> None:
    nobody = Viewer(OwnerId(""), any_owner=False, kind=None)

    def made() -> NewStream:
        return new_stream(viewer=nobody, tenant_id="\0", kind=None, max_turns=0, min_interval_ms=-1, lease_ms=0)

    assert broken(made) == ["kind", "owner_id", "tenant_id", "max_turns", "min_interval_ms", "lease_ms"]


@pytest.mark.parametrize("owner_id", ["a\0", "x" * 257])
def test_nobody_has_an_owner_id_that_cannot_be_stored(owner_id: str) -> None:
    assert broken(lambda: Viewer(OwnerId(owner_id), any_owner=False, kind=None)) == ["owner_id"]


@pytest.mark.parametrize("text", ["", "x" * 16_001, "a\0"], ids=len)
def test_a_reply_has_its_bounds_too(text: str) -> None:
    assert broken(lambda: Reply(text, b"", "", final=False)) == ["reply_text"]
    assert Reply("x" * 16_000, b"", "", final=False)


@pytest.mark.parametrize("state", [None, TurnState.RUNNING, TurnState.COMMITTED])
def test_a_claim_is_given_back_as_abandoned_or_failed(state: TurnState | None) -> None:
    assert broken(lambda: Release(state, "whatever")) == ["state", "reason"]
    assert Release(TurnState.ABANDONED, "UNAVAILABLE").reason == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        (TurnRange(0, 0, 3, newest=False), (1, 3)),
        (TurnRange(0, 0, 3, newest=True), (8, 10)),
        (TurnRange(4, 0, 200, newest=False), (5, 10)),
        (TurnRange(0, 4, 200, newest=True), (1, 3)),
        (TurnRange(2, 9, 3, newest=True), (6, 8)),
        (TurnRange(2, 9, 3, newest=False), (3, 5)),
        (TurnRange(0, 99, 3, newest=True), (8, 10)),
        (TurnRange(10, 0, 3, newest=False), (11, 10)),
        (TurnRange(0, 1, 3, newest=False), (1, 0)),
    ],
)
def test_a_range_of_a_ledger_of_ten_turns(asked: TurnRange, bounds: tuple[int, int]) -> None:
    assert asked.bounds(last_seq=10) == bounds


def test_a_range_names_every_bound_that_cannot_be() -> None:
    assert broken(lambda: TurnRange(-1, -1, 201, newest=False)) == ["after_seq", "before_seq", "max_turns"]


def test_a_list_that_is_too_long_is_refused() -> None:
    assert broken(lambda: at_most(2, "streams", [1, 2, 3])) == ["streams"]
