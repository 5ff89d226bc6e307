"""The digest chain, from the words of the turn protocol ("Digest").

Written a second time on purpose: the ledger computes its digests in SQL, and what checks them must not share a mistake
with it.
"""

from hashlib import sha256
from uuid import UUID


def first_digest(session_id: UUID) -> bytes:
    """Digest 0: that of a ledger without a turn."""
    return sha256(b"colloquy/stream/1" + session_id.bytes).digest()


def content_of(salt: bytes, user_text: str | None, reply_text: str | None, record: bytes | None) -> bytes:
    """What a turn says, under the salt of its session."""
    hashed = sha256(salt)
    for part in (user_text, reply_text, record):
        stored = part.encode() if isinstance(part, str) else part
        hashed.update(bytes(9) if stored is None else b"\x01" + len(stored).to_bytes(8, "big") + stored)
    return hashed.digest()


def next_digest(previous: bytes, session_id: UUID, turn_id: UUID, seq: int, content: bytes) -> bytes:
    """The ledger's digest once it has this turn too."""
    link = (b"colloquy/turn/1", previous, session_id.bytes, turn_id.bytes, seq.to_bytes(8, "big"), content)
    return sha256(b"".join(link)).digest()
