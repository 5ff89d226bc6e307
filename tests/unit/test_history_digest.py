"""The digest chain and the fingerprint. The expected values were computed by PostgreSQL, from the protocol's words."""

from uuid import UUID

from services.history.digest import content_digest, fingerprint, stream_digest, turn_digest
from services.history.domain import Digest, SessionId, TurnId

SESSION = SessionId(UUID("01234567-89ab-8def-8123-456789abcdef"))
TURN = TurnId(UUID("fedcba98-7654-4321-8fed-cba987654321"))
SALT = b"\x5a" * 32
TEXT = "Grüße 🦉"


def test_digest_zero_names_the_session() -> None:
    expected = "b01fe0fda0845b6b0bf7e6f567fb8c603bff98e6df8e00e6e40ae3002c0b73a3"

    assert stream_digest(SESSION).hex() == expected


def test_content_holds_both_texts_and_the_record_as_stored() -> None:
    expected = "29f4278aca8ee6e8ce4deac0a13b5e30e9b944521734c98e0fc31ce4e979080d"

    assert content_digest(SALT, TEXT, "Why?", b"\x00\xff\x10").hex() == expected


def test_an_absent_message_is_nine_zero_bytes() -> None:
    expected = "95ff0de41bfefc104b3ca7b780d7615347eaa83b23eacc42fe061f402bbff214"

    assert content_digest(SALT, None, "Why?", b"").hex() == expected


def test_an_absent_message_is_not_an_empty_one() -> None:
    assert content_digest(SALT, None, "Why?", b"") != content_digest(SALT, "", "Why?", b"")


def test_what_moves_from_one_text_into_the_next_changes_the_content() -> None:
    assert content_digest(SALT, "ab", "c", b"") != content_digest(SALT, "a", "bc", b"")


def test_a_turns_digest_chains_the_previous_one() -> None:
    expected = "48354b7fc24ecf48c934722ba50cf0fd88a5d078ff11b7f4807038381b307e0a"

    assert turn_digest(Digest(b"\x11" * 32), SESSION, TURN, 258, Digest(b"\x22" * 32)).hex() == expected


def test_a_fingerprint_holds_the_text_and_what_it_replies_to() -> None:
    expected = "84c0f9f7370489941eb0dfb444b6e05f814fa971d7038fd38a7364cf09db9700"

    assert fingerprint(TEXT, 7).hex() == expected


def test_a_fingerprint_tells_no_reply_from_a_reply_to_nothing() -> None:
    expected = "4a4522f92f75c5aea2301ce97839d77ac7dd57498871c3369f44a7277c78ab58"

    assert fingerprint(TEXT, None).hex() == expected
    assert fingerprint(TEXT, 0) != fingerprint(TEXT, None)


def test_a_fingerprint_is_of_the_text_as_written_not_as_normalised() -> None:
    assert fingerprint("é", None) != fingerprint("e\u0301", None)
