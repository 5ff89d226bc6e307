"""The failpoints there are: before and after each step of a turn that a crash could cut off from the next.

A step is a call to another service, a transaction, or an attempt at the provider. The code knows it by its seam, what
gRPC, the statement or the provider is called by anyway, so that no step has to be marked. The first word of a name is
the context whose process has the point.

`before`: nothing has been sent. `after`: it has been done, and whoever asked for it does not know yet; of a stream,
the first message has come.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

PROVIDER: Final = "provider"
"""The seam of an attempt at the provider."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a service does between two points.

    service: the name of its process. seam: a gRPC method's path, a statement's label, or PROVIDER.
    """

    name: str
    service: str
    seam: str
    what: str

    @property
    def before(self) -> str:
        return f"{self.name}.before"

    @property
    def after(self) -> str:
        return f"{self.name}.after"


@dataclass(frozen=True, slots=True)
class Point:
    """A failpoint: its name, the service whose process has it, and where that is."""

    name: str
    service: str
    meaning: str


# What the caller may lose the answer to. What only reads for somebody who looks is no step of a turn.
_CALLS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "bff": {
        "gateway.v1.ConversationService": ("StartSession", "SubmitTurn", "StreamTurn", "EndSession", "EraseSession")
    },
    "gateway": {
        "history.v1.HistoryService": (
            "OpenStream",
            "BeginTurn",
            "CommitTurn",
            "ReleaseTurn",
            "GetStream",
            "ListTurns",
            "AcknowledgeStreams",
            "SealStream",
            "EraseStream",
        ),
        "session.v1.SessionService": ("CreateSession", "ApplyTurns", "EraseSession"),
        "assessment.v1.AssessmentService": (
            "ResolvePlan",
            "StartInterview",
            "GetPlan",
            "AssessAnswer",
            "ApplyTurns",
            "EraseInterview",
        ),
        "llm.v1.LlmService": ("Generate", "StreamGenerate", "GetCall", "EraseSession", "ClearResults"),
    },
    "assessment": {"llm.v1.LlmService": ("Generate", "GetCall")},
}

# By context: the label of a statement that writes, or a transaction's name; the step's name; what the transaction does.
_TRANSACTIONS: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "history": (
        ("history_open", "open", "makes a stream, an interview's with its opening claimed"),
        ("history_claim", "begin", "saves a message and claims its turn"),
        ("history_take_over", "take_over", "claims an expired or abandoned turn for its own request"),
        ("history_supersede", "supersede", "fails an abandoned turn that the ledger has overtaken"),
        ("history_commit", "commit", "makes a turn the next of the ledger"),
        ("history_release", "release", "gives a claim back"),
        ("history_acknowledge", "acknowledge", "records that the projections hold what the ledger holds"),
        ("history_seal", "seal", "closes a stream"),
        ("history_erase", "erase", "erases what was said in a stream"),
        ("history_reset", "reset", "ends a claim by an operator's hand, on record"),
        ("history_complete", "complete", "closes a stream by an operator's hand, on record"),
    ),
    "session": (
        ("session_insert", "insert", "enters a session into the directory"),
        ("session_advance", "advance", "folds committed turns into the directory"),
        ("session_erase", "erase", "erases whose a session is"),
    ),
    "assessment": (
        ("assessment_start", "start", "makes an interview"),
        ("assessment_record", "record", "records an answer's score, or that its judge failed"),
        ("assessment_advance", "advance", "folds committed turns into the evidence"),
        ("assessment_erase", "erase", "erases what was said in an interview's answers"),
    ),
    "llm": (
        ("llm_open", "open", "writes the intent of a call"),
        ("llm_retry", "retry", "ends an attempt and begins the next"),
        ("llm_repeat", "repeat", "writes the intent of a call that came to nothing before"),
        ("llm_finish", "finish", "ends a call, with its result"),
        ("llm_clear", "clear", "clears the results of turns that are over"),
        ("llm_erase", "erase", "erases what was said in calls"),
    ),
}

_PROCESSES: Final[Mapping[str, str]] = {"llm": "llm-gateway"}  # where a process is not named like its context


def _call_steps() -> Iterator[Step]:
    for caller, services in _CALLS.items():
        for service, methods in services.items():
            callee = service.partition(".")[0]
            for method in methods:
                name = f"{caller}.{callee}.{_snake(method)}"
                yield Step(name, caller, f"/colloquy.{service}/{method}", f"the call of {callee}'s {method}")


def _transaction_steps() -> Iterator[Step]:
    for context, transactions in _TRANSACTIONS.items():
        for label, name, what in transactions:
            yield Step(f"{context}.{name}", _PROCESSES.get(context, context), label, f"the transaction that {what}")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


STEPS: Final = (
    *_call_steps(),
    *_transaction_steps(),
    Step("llm.provider", _PROCESSES["llm"], PROVIDER, "an attempt at the provider"),
)
POINTS: Final[Mapping[str, Point]] = {
    name: Point(name, step.service, f"{when} {step.what}")
    for step in STEPS
    for name, when in ((step.before, "before"), (step.after, "after"))
}
