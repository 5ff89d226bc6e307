"""Whether what clients were told is what the product holds: journals against the ledger and against what is told now.

Pure. I1 to I8 are the verifier's, which sees the tables alone; this sees what left the product.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import orjson

from tests.chaos.journal import Entry, What
from tests.chaos.ledger import Ledger, Stream, Turn

_ERASED = "404 NOT_FOUND"
_CLOSED = "409 SESSION_CLOSED"
_MOVED_ON = frozenset({"409 CONFLICT", "409 SESSION_LIMIT"})
_ORDERS = frozenset({What.END, What.ENDED, What.ERASE, What.ERASED})

Line: TypeAlias = tuple[int, str, str, str]
"""A message as a list has it: seq, turn, role, text."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. `session` is empty where it is not known."""

    rule: str
    session: str
    request: str
    what: str


@dataclass(slots=True)
class Story:
    """All that its client knows of one request.

    `sent` is the body that was sent, `bodies` are what was answered, `gave_up` is what came instead the last time.
    """

    request: str
    kind: str = ""
    session: str = ""
    client: str = ""
    text: str = ""
    sent: str = ""
    turns: set[str] = field(default_factory=set)
    bodies: set[str] = field(default_factory=set)
    refusals: set[str] = field(default_factory=set)
    gave_up: str = ""

    @property
    def answered_session(self) -> str:
        """The session, also where the client heard of it only in the answer."""
        return self.session or next((str(orjson.loads(body)["session_id"]) for body in self.bodies), "")


@dataclass(frozen=True, slots=True)
class Told:
    """What the product says when it is all over.

    Attributes:
        again: by request, what REST answers to the same request, sent once more; the reason where it refuses.
        grpc: the same from the gateway, rendered as REST would.
        listed: by session, the messages.
    """

    again: Mapping[str, str]
    grpc: Mapping[str, str]
    listed: Mapping[str, Sequence[Line]]


def stories(entries: Iterable[Entry]) -> dict[str, Story]:
    """The journals by request; Ends and Erases are no requests of this kind."""
    told: dict[str, Story] = {}
    for entry in entries:
        if entry.what in _ORDERS:
            continue
        story = told.setdefault(entry.request, Story(entry.request, entry.kind, entry.session, entry.client))
        match entry.what:
            case What.OPEN | What.SEND:
                story.text, story.sent = entry.text, entry.body
            case What.ACCEPTED:
                story.turns.add(entry.turn)
            case What.OPENED | What.ANSWERED:
                story.bodies.add(entry.body)
            case What.REFUSED:
                story.refusals.add(entry.reason)
            case What.GAVE_UP:
                story.gave_up = entry.reason
    return told


def findings(entries: Sequence[Entry], ledger: Ledger, told: Told) -> list[Finding]:
    """Everything that clients were told and is not so, and everything that is there and nobody has asked for."""
    known = stories(entries)
    found = [finding for story in known.values() for finding in _of_story(story, ledger, told)]
    found += _of_orders(entries, ledger)
    found += _of_rows(known, ledger)
    return found


def _of_story(story: Story, ledger: Ledger, told: Told) -> Iterator[Finding]:
    """What is wrong with one request."""
    turn = ledger.turns.get(story.request)
    stream = ledger.streams.get(turn.session if turn else story.answered_session)
    session = stream.session if stream else story.answered_session
    erased = stream is not None and stream.erased
    wrong = partial(Finding, session=session, request=story.request)
    if len(story.bodies) > 1 or len(story.turns) > 1:
        yield wrong("one request, one answer", what=f"it got {len(story.bodies)} and was accepted as {story.turns}")
    if story.bodies and story.refusals - {_ERASED}:
        yield wrong("one request, one answer", what=f"it was answered and refused: {sorted(story.refusals)}")
    for reason in sorted(story.refusals - _allowed(stream)):
        yield wrong("refusals are the contract's", what=f"{reason}, and the session is {stream}")
    if (story.bodies or story.turns) and turn is None:
        yield wrong("no acknowledgement is lost", what="it was acknowledged, and the ledger has no such turn")
        return
    if turn and not erased:
        for what in _differences(story, turn, told):
            yield wrong("no acknowledgement is lost", what=what)
    if erased and told.again.get(story.request, _ERASED) != _ERASED:
        yield wrong("what is erased is gone", what=f"asked again it answers {told.again[story.request][:200]}")


def _allowed(stream: Stream | None) -> frozenset[str]:
    """What a request may be refused with, now that the session is as it is."""
    closed = {_CLOSED} if stream and stream.sealed else set()
    return _MOVED_ON | closed | ({_ERASED} if stream and stream.erased else set())


def _differences(story: Story, turn: Turn, told: Told) -> Iterator[str]:
    """Where the ledger, or what is answered now, is not what the client was told; of sessions that are not erased."""
    if story.turns - {turn.turn}:
        yield f"accepted as {story.turns}, and it is {turn.turn}"
    if turn.user_text != story.text:
        yield f"the message is {turn.user_text!r} and was {story.text!r}"
    for body in story.bodies:
        document = orjson.loads(body)
        reply = document["message"] if "message" in document else {**document, "text": document["reply"]["text"]}
        if (turn.state, turn.turn, turn.seq) != ("COMMITTED", reply["turn_id"], reply["seq"]):
            yield f"answered as turn {reply['seq']} {reply['turn_id']}, and it is {turn.state} {turn.seq} {turn.turn}"
        if turn.reply_text != reply["text"]:
            yield f"the reply is {turn.reply_text!r} and was {reply['text']!r}"
        for face, again in (("REST", told.again), ("gRPC", told.grpc)):
            if again.get(story.request) != body:
                yield f"{face} answers {again.get(story.request, 'nothing')[:300]!r} and did {body!r}"
        missing = set(_lines(story, turn)) - set(told.listed.get(turn.session, ()))
        if missing:
            yield f"not listed: {missing}"


def _lines(story: Story, turn: Turn) -> Iterator[Line]:
    """The messages of a turn as lists have them."""
    candidate, interviewer = ("candidate", "interviewer") if story.kind == "interview" else ("user", "assistant")
    if story.text:
        yield turn.seq, turn.turn, candidate, story.text
    yield turn.seq, turn.turn, interviewer, turn.reply_text


def _of_orders(entries: Iterable[Entry], ledger: Ledger) -> Iterator[Finding]:
    """Whether what was said to be ended or erased is."""
    for entry in entries:
        stream = ledger.streams.get(entry.session)
        wrong = partial(Finding, session=entry.session, request=entry.request)
        if entry.what is What.ENDED and not (stream and stream.sealed):
            yield wrong("no acknowledgement is lost", what="an End was acknowledged, and the session is open")
        if entry.what is What.ERASED and not (stream and stream.erased):
            yield wrong("no acknowledgement is lost", what="an Erase was acknowledged, and the session stands")


def _of_rows(known: Mapping[str, Story], ledger: Ledger) -> Iterator[Finding]:
    """Whether every turn was asked for, and an erased one says nothing any more."""
    for turn in ledger.turns.values():
        wrong = partial(Finding, session=turn.session, request=turn.request)
        if turn.request not in known:
            yield wrong("every turn was asked for", what=f"{turn.turn} is in no journal")
        if ledger.streams[turn.session].erased and (turn.user_text or turn.reply_text or turn.record):
            yield wrong("what is erased is gone", what=f"turn {turn.turn} still holds what was said")
