"""The bytes that are hashed: the chain that makes a ledger tamper-evident, and the fingerprint of a request.

Integers are 8 bytes, big-endian; ids are 16 bytes; lp(x) is a presence byte, an 8-byte length and the bytes as stored,
nine zero bytes where x is absent. `store` computes a commit's two digests in SQL, under the lock that orders the chain;
these functions say what they must be.
"""

from hashlib import sha256

from services.history.domain import Digest, SessionId, TurnId


def stream_digest(session_id: SessionId) -> Digest:
    """Digest 0: that of a stream without a turn."""
    return Digest(sha256(b"colloquy/stream/1" + session_id.bytes).digest())


def content_digest(salt: bytes, user_text: str | None, reply_text: str, record: bytes) -> Digest:
    """What a turn says. Under the session's 32 random bytes: who has not got them cannot test a guess at the text."""
    user = None if user_text is None else user_text.encode()
    return Digest(sha256(salt + _lp(user) + _lp(reply_text.encode()) + _lp(record)).digest())


def turn_digest(previous: Digest, session_id: SessionId, turn_id: TurnId, seq: int, content: Digest) -> Digest:
    """The digest of a stream once the turn is its last."""
    return Digest(
        sha256(b"colloquy/turn/1" + previous + session_id.bytes + turn_id.bytes + _integer(seq) + content).digest()
    )


def fingerprint(text: str, in_reply_to: int | None) -> bytes:
    """What a request asks for: the same request id with another fingerprint is refused. 32 bytes."""
    reply_to = None if in_reply_to is None else _integer(in_reply_to)
    return sha256(b"colloquy/message/1" + _lp(text.encode()) + _lp(reply_to)).digest()


def _lp(value: bytes | None) -> bytes:
    return bytes(9) if value is None else b"\x01" + _integer(len(value)) + value


def _integer(value: int) -> bytes:
    return value.to_bytes(8, "big")
