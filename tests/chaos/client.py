"""A client that holds one conversation after another, in all the manners that clients have."""

import asyncio
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos import paths
from tests.chaos.journal import Journal, What
from tests.chaos.load import Flight, Load
from tests.chaos.manners import ALL_SORTS, CHAT_SHARE, NAMES_LAST_SHARE, TURNS, Habits, Manner, sayings
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

    def __init__(self, rest: Rest, journal: Journal, load: Load, seed: int, habits: Habits = ALL_SORTS) -> None:
        self._subject, self._load, self._habits = rest.subject, load, habits
        self._randomness = random.Random(seed)
        self._sayings: Iterator[str] = sayings(seed)
        self.sender = Sender(rest, journal, self._randomness, habits.patience_seconds)

    async def run(self) -> None:
        while not self._load.over:
            chats = self._randomness.random() < CHAT_SHARE
            conversation = Conversation("chat") if chats else await self.interview()
            for _ in range(self._randomness.randint(*TURNS)):
                if not (conversation.over or self._load.over):
                    await self._converse(conversation)

    async def interview(self) -> Conversation:
        """A new interview, over if there could be none. A chat is opened by its first message."""
        conversation = Conversation("interview")
        message = Message(self._new_id(), "interview", "", paths.INTERVIEWS, {"candidate_name": self._subject})
        await self.sender.announce(message)
        with self._load.flying(self._flight(message)):
            reply = await self.sender.deliver(message)
        if reply is None or reply.verdict is Verdict.NEVER:
            conversation.over = True
        else:
            conversation.session, conversation.seq = reply.document["session_id"], 1
        return conversation

    async def written(self, conversation: Conversation) -> Message:
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
        await self.sender.announce(message)
        return message

    async def _converse(self, conversation: Conversation) -> None:
        """One message, in whatever manner comes up."""
        message, how = await self.written(conversation), self._habits.next(self._randomness)
        with self._load.flying(self._flight(message)):
            match how:
                case Manner.TWICE:
                    both = (self.sender.deliver(message, streamed=streamed) for streamed in (False, True))
                    replies = await asyncio.gather(*both)
                    conversation.heard(replies[0])
                case Manner.RETURNS:
                    await self._leave(message)
                    await asyncio.sleep(RETURNS_AFTER_SECONDS * self._randomness.random())
                    conversation.heard(await self.sender.deliver(message))
                case Manner.LATE if conversation.session:
                    await self._leave(message)
                    conversation.heard(await self.sender.deliver(await self.written(conversation)))
                    self._load.turn_ended()
                    await self.sender.deliver(message)
                case Manner.LEAVES if conversation.session:
                    await self._leave(message)
                    await self.sender.note(What.LEFT, message)
                    conversation.seq = None
                case _:
                    conversation.heard(await self.sender.deliver(message, streamed=how is Manner.STREAMED))
        self._load.turn_ended()

    async def _leave(self, message: Message) -> None:
        await self.sender.send_and_leave(message, LEAVES_AFTER_SECONDS * self._randomness.random())

    def _flight(self, message: Message) -> Flight:
        return Flight(message.request, message.session, message.kind, self._subject)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._randomness.getrandbits(128), version=4))
