"""The contexts that the gateway composes: on one channel each, for the process's life."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from colloquy.assessment.v1 import assessment_pb2_grpc
from colloquy.history.v1 import history_pb2_grpc, operations_pb2_grpc
from colloquy.llm.v1 import llm_pb2_grpc
from colloquy.session.v1 import session_pb2_grpc

if TYPE_CHECKING:  # the generated async types exist for type checkers only
    from colloquy.assessment.v1.assessment_pb2_grpc import AssessmentServiceAsyncStub
    from colloquy.history.v1.history_pb2_grpc import HistoryServiceAsyncStub
    from colloquy.history.v1.operations_pb2_grpc import OperationsServiceAsyncStub
    from colloquy.llm.v1.llm_pb2_grpc import LlmServiceAsyncStub
    from colloquy.session.v1.session_pb2_grpc import SessionServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Contexts:
    """A stub for each context below the gateway, and one more for the operators' side of the ledger."""

    history: "HistoryServiceAsyncStub"
    operations: "OperationsServiceAsyncStub"
    session: "SessionServiceAsyncStub"
    assessment: "AssessmentServiceAsyncStub"
    llm: "LlmServiceAsyncStub"

    @classmethod
    def over(
        cls,
        *,
        history: grpc.aio.Channel,
        session: grpc.aio.Channel,
        assessment: grpc.aio.Channel,
        llm: grpc.aio.Channel,
    ) -> "Contexts":
        return cls(
            history_pb2_grpc.HistoryServiceStub(history),
            operations_pb2_grpc.OperationsServiceStub(history),
            session_pb2_grpc.SessionServiceStub(session),
            assessment_pb2_grpc.AssessmentServiceStub(assessment),
            llm_pb2_grpc.LlmServiceStub(llm),
        )
