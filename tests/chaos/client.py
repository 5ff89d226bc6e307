"""A client that holds one conversation after another, in all the manners that clients have."""

import asyncio
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos import paths
from tests.chaos.journal import Journal, What
from tests.chaos.load import Flight, Load
from tests.chaos.manners import CHAT_SHARE, NAMES_LAST_SHARE, TURNS, Manner, manner, sayings
from tests.chaos.replies import Reply, Verdict
from tests.chaos.rest import Rest
from tests.chaos.sending import Message, Sender

LEAVES_AFTER_SECONDS = 0.3
RETURNS_AFTER_SECONDS = 0.5


@dataclass(slots=True)
class Conversation:
    """A session as its client knows it: `session` empty until it is told, `seq` the last turn if that is known."""

    kind: str
    session: str = ""
    seq: int | None = None
    over: bool = False

    def heard(self, reply: Reply | None) -> None:
        """What became of a message, and so of the session."""
        if reply is None:
            self.over = True
        elif reply.verdict is Verdict.NEVER:
            self.over, self.seq = reply.reason != "CONFLICT", None
        else:
            turn = reply.document
            self.session, self.seq, self.over = turn["session_id"], turn["seq"], turn["session_status"] != "open"


class Client:
    """Holds conversations until the load is over, and finishes what it has begun."""

    def __init__(self, rest: Rest, journal: Journal, load: Load, seed: int) -> None:
        self._subject, self._load = rest.subject, load
        self._randomness = random.Random(seed)
        self._sender = Sender(rest, journal, self._randomness)
        self._sayings: Iterator[str] = sayings(seed)

    async def run(self) -> None:
        while not self._load.over:
            conversation = await self._begun()
            for _ in range(self._randomness.randint(*TURNS)):
                if not (conversation.over or self._load.over):
                    await self._converse(conversation)

    async def _begun(self) -> Conversation:
        """A conversation to go on with; a chat is opened by its first message."""
        if self._randomness.random() < CHAT_SHARE:
            return Conversation("chat")
        conversation = Conversation("interview")
        message = Message(self._new_id(), "interview", "", paths.INTERVIEWS, {"candidate_name": self._subject})
        await self._sender.announce(message)
        with self._load.flying(self._flight(message)):
            reply = await self._sender.deliver(message)
        if reply is None or reply.verdict is Verdict.NEVER:
            conversation.over = True
        else:
            conversation.session, conversation.seq = reply.document["session_id"], 1
        return conversation

    async def _converse(self, conversation: Conversation) -> None:
        """One message, in whatever manner comes up."""
        message, how = await self._written(conversation), manner(self._randomness)
        with self._load.flying(self._flight(message)):
            match how:
                case Manner.TWICE:
                    both = (self._sender.deliver(message, streamed=streamed) for streamed in (False, True))
                    replies = await asyncio.gather(*both)
                    conversation.heard(replies[0])
                case Manner.RETURNS:
                    await self._leave(message)
                    await asyncio.sleep(RETURNS_AFTER_SECONDS * self._randomness.random())
                    conversation.heard(await self._sender.deliver(message))
                case Manner.LATE if conversation.session:
                    await self._leave(message)
                    next_one = await self._written(conversation)
                    conversation.heard(await self._sender.deliver(next_one))
                    await self._sender.deliver(message)
                    self._load.turn_ended()
                case Manner.LEAVES if conversation.session:
                    await self._leave(message)
                    await self._sender.note(What.LEFT, message)
                    conversation.seq = None
                case _:
                    conversation.heard(await self._sender.deliver(message, streamed=how is Manner.STREAMED))
        self._load.turn_ended()

    async def _leave(self, message: Message) -> None:
        await self._sender.send_and_leave(message, LEAVES_AFTER_SECONDS * self._randomness.random())

    async def _written(self, conversation: Conversation) -> Message:
        """The next message of a conversation, in the journal."""
        text, session = next(self._sayings), conversation.session
        body: dict[str, object] = {"message_text": text} if conversation.kind == "interview" else {"message": text}
        if conversation.kind == "interview":
            if conversation.seq is not None and self._randomness.random() < NAMES_LAST_SHARE:
                body["in_reply_to"] = conversation.seq
        elif session:
            body["conversation_id"] = session
        path = paths.saying(conversation.kind, session)
        message = Message(self._new_id(), conversation.kind, session, path, body, text)
        await self._sender.announce(message)
        return message

    def _flight(self, message: Message) -> Flight:
        return Flight(message.request, message.session, message.kind, self._subject)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._randomness.getrandbits(128), version=4))
