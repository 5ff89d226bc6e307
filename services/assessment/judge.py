"""The judge: a model behind the llm-gateway, asked once for each answer and purpose.

Whether what it says can be used is decided elsewhere (`judging`). Here is decided only what a call came to: it said
something, or it failed for good and counts, or it is late or out of reach and does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from colloquy.llm.v1 import llm_pb2
from libs.prompts.rendering import Rendered
from libs.runtime import context
from libs.runtime.client import call
from libs.runtime.errors import Internal, InvalidField, NotFound, Unavailable
from services.assessment.evidence import AnswerKey, NanoUsd

if TYPE_CHECKING:  # the generated async types exist for type checkers only
    from colloquy.llm.v1.llm_pb2_grpc import LlmServiceAsyncStub

CALL_CAP_MS: Final = 15_000
"""How long a call is waited for where the caller names no deadline: above the llm-gateway's lease."""
RECORD_MS: Final = 20
"""What is kept of the caller's time to record the score."""

PURPOSES: Final = ("judge", "judge/2", "judge/3")
"""A call that is DONE is not made again, so one whose verdict cannot be used is followed by one of the next purpose
(docs/decisions/0005-judge-repeats.md). There are MAX_FAILED_CALLS, as each that is followed has failed."""

_ROLES: Final = {
    "system": llm_pb2.Message.ROLE_SYSTEM,
    "user": llm_pb2.Message.ROLE_USER,
    "assistant": llm_pb2.Message.ROLE_ASSISTANT,
}

_FREE: Final = NanoUsd(0)


@dataclass(frozen=True, slots=True)
class Usage:
    """What judge calls consumed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: NanoUsd = _FREE

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            NanoUsd(self.cost_nano_usd + other.cost_nano_usd),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What the calls of one purpose came to: the text of the one that is DONE, None while none is.

    `failed_calls` counts those that ended without a text, as the llm-gateway's ledger has them: whoever asks, however
    often, a call that failed once is counted once. `exhausted`: nothing was tried now, since all the calls that are
    allowed under this purpose have been made, and what they said, if anything, has been cleared.
    """

    text: str | None
    failed_calls: int
    usage: Usage
    version: str
    model: str
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """How many judge calls were made for an answer by purpose, what they consumed, and whether one is under way."""

    calls: Mapping[str, int]
    usage: Usage
    under_way: bool


class Judge:
    """A stub of the llm-gateway, asked for verdicts."""

    def __init__(self, llm: "LlmServiceAsyncStub") -> None:
        self._llm = llm

    async def ask(self, key: AnswerKey, purpose: str, prompt: Rendered, max_calls: int = 1) -> Reply:
        """Make the call, or learn what became of it.

        Args:
            max_calls: how many calls may be made under this purpose in all, by whomever; at least 1.

        Raises:
            NotFound: the session was erased.
            DeadlineExceeded: the caller's time ended first; the call goes on, and is there when it is asked for again.
            Unavailable: the llm-gateway did not answer.
        """
        request = _request(key, purpose, prompt)
        request.max_repeats = max_calls - 1
        try:
            entry = (await call(self._llm.Generate, request, _left_ms())).call
            return _reply(entry, exhausted=entry.state != llm_pb2.CALL_STATE_DONE)
        except (Unavailable, InvalidField) as failure:
            return await self._look_up(request, failure)

    async def spent(self, key: AnswerKey) -> Spent:
        """What has been spent on an answer so far. Raises Unavailable."""
        turn = llm_pb2.ListCallsRequest(session_id=str(key.session_id), turn_id=str(key.turn_id))
        entries = (await call(self._llm.ListCalls, turn, _left_ms())).calls
        judged = [entry for entry in entries if entry.purpose in PURPOSES]
        return Spent(
            calls={entry.purpose: entry.repeats + 1 for entry in judged},
            usage=sum((_usage(entry.usage) for entry in judged), Usage()),
            under_way=any(entry.state == llm_pb2.CALL_STATE_INFLIGHT for entry in judged),
        )

    async def _look_up(self, request: llm_pb2.GenerateRequest, failure: Unavailable | InvalidField) -> Reply:
        """What a call that was answered with an error came to: it failed, or it never began."""
        entry = llm_pb2.GetCallRequest(session_id=request.session_id, turn_id=request.turn_id, purpose=request.purpose)
        try:
            return _reply((await call(self._llm.GetCall, entry, _left_ms())).call)
        except NotFound:
            if isinstance(failure, InvalidField):
                raise Internal from failure  # the offer itself is wrong: that is ours to mend, not the caller's
            raise failure from None


def _left_ms() -> float:
    left_ms = context.remaining_ms()
    return CALL_CAP_MS if left_ms is None else left_ms - RECORD_MS


def _request(key: AnswerKey, purpose: str, prompt: Rendered) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(
        session_id=str(key.session_id),
        turn_id=str(key.turn_id),
        purpose=purpose,
        prompt=llm_pb2.Prompt(
            messages=[llm_pb2.Message(role=_ROLES[said["role"]], content=said["content"]) for said in prompt.messages],
            version=prompt.version,
            max_output_tokens=prompt.max_output_tokens,
            temperature=prompt.temperature,
            json_schema=prompt.json_schema,
        ),
    )


def _reply(entry: llm_pb2.Call, *, exhausted: bool = False) -> Reply:
    ended = entry.state in (llm_pb2.CALL_STATE_FAILED, llm_pb2.CALL_STATE_UNKNOWN)
    return Reply(
        text=entry.text if entry.state == llm_pb2.CALL_STATE_DONE else None,
        failed_calls=entry.repeats + ended,
        usage=_usage(entry.usage),
        version=entry.prompt_version,
        model=entry.model,
        exhausted=exhausted,
    )


def _usage(used: llm_pb2.Usage) -> Usage:
    return Usage(used.prompt_tokens, used.completion_tokens, NanoUsd(used.cost_nano_usd))
