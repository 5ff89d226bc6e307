"""What makes a process pass a failpoint that the load alone seldom reaches. Pure; `provoking` does it."""

from collections.abc import Sequence
from enum import Enum, auto


class Provocation(Enum):
    """Something that happens anyway sooner or later, done now."""

    END = auto()
    """A session is ended."""
    ERASE = auto()
    """A session is erased."""
    READ = auto()
    """A session and its messages are looked at."""
    PROVIDER_FAILS = auto()
    """The model answers every call with 500 for a moment: calls are retried, repeated, given back, taken over."""
    OVERTAKEN = auto()
    """A chat's message is abandoned, another is answered, and then the first is sent again."""
    ORPHANED = auto()
    """Clients leave for good, and the gateway that has their turns is killed."""
    RESET = auto()
    """The claim on a turn that is being answered is ended by hand."""
    COMPLETED = auto()
    """A session is closed by hand."""
    AGED = auto()
    """Model calls of turns that are over look two hours old, and so are cleared by the next round of that."""


_BY_STEP = {
    "bff.gateway.end_session": [Provocation.END],
    "gateway.history.seal_stream": [Provocation.END],
    "history.seal": [Provocation.END],
    "history.reset": [Provocation.RESET],
    "history.complete": [Provocation.COMPLETED],
    "gateway.history.get_stream": [Provocation.READ],
    "gateway.history.list_turns": [Provocation.READ],
    "gateway.history.release_turn": [Provocation.PROVIDER_FAILS],
    "history.release": [Provocation.PROVIDER_FAILS],
    "history.take_over": [Provocation.PROVIDER_FAILS],
    "history.supersede": [Provocation.OVERTAKEN],
    "gateway.llm.get_call": [Provocation.PROVIDER_FAILS, Provocation.ORPHANED],
    "assessment.llm.get_call": [Provocation.PROVIDER_FAILS],
    "llm.retry": [Provocation.PROVIDER_FAILS],
    "llm.repeat": [Provocation.PROVIDER_FAILS],
}


def provocations(point: str) -> Sequence[Provocation]:
    """What to do in turn until a process passes this failpoint; nothing where the load does it by itself."""
    step = point.rpartition(".")[0]
    if "erase" in step:
        return [Provocation.ERASE]
    if "clear" in step:
        return [Provocation.AGED]
    return _BY_STEP.get(step, ())
