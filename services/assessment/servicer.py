"""AssessmentService: each method decodes, calls its use case and encodes."""

from typing import Any

import grpc

from colloquy.assessment.v1 import assessment_pb2, assessment_pb2_grpc
from libs.runtime import context
from libs.runtime.errors import Unimplemented
from services.assessment import wire
from services.assessment.answers import Answers
from services.assessment.usecases import Interviews

_Context = grpc.aio.ServicerContext[Any, Any]


class AssessmentServicer(assessment_pb2_grpc.AssessmentServiceServicer):
    """AssessmentService, on the use cases of interviews and answers."""

    def __init__(self, interviews: Interviews, answers: Answers) -> None:
        self._interviews = interviews
        self._answers = answers

    async def ResolvePlan(
        self, request: assessment_pb2.ResolvePlanRequest, _: _Context
    ) -> assessment_pb2.ResolvePlanResponse:
        return wire.resolved(self._interviews.resolve(request.plan))

    async def StartInterview(
        self, request: assessment_pb2.StartInterviewRequest, _: _Context
    ) -> assessment_pb2.StartInterviewResponse:
        context.bind(session_id=request.session_id)
        choice, opening = await self._interviews.start(
            wire.session_id(request.session_id), request.plan, request.bank_version, request.candidate_name
        )
        return assessment_pb2.StartInterviewResponse(plan=wire.plan(choice), opening_text=opening)

    async def GetPlan(self, request: assessment_pb2.GetPlanRequest, _: _Context) -> assessment_pb2.GetPlanResponse:
        context.bind(session_id=request.session_id)
        choice = await self._interviews.plan(wire.plan_request(request))
        return assessment_pb2.GetPlanResponse(plan=wire.plan(choice))

    async def AssessAnswer(
        self, request: assessment_pb2.AssessAnswerRequest, _: _Context
    ) -> assessment_pb2.AssessAnswerResponse:
        context.bind(session_id=request.session_id, turn_id=request.turn_id)
        return wire.assessed(await self._answers.assess(wire.answer(request)))

    async def ApplyTurns(
        self, request: assessment_pb2.ApplyTurnsRequest, _: _Context
    ) -> assessment_pb2.ApplyTurnsResponse:
        results = await self._interviews.apply(wire.runs(request))
        return assessment_pb2.ApplyTurnsResponse(results=[wire.result(applied) for applied in results])

    async def ListUnscored(
        self, request: assessment_pb2.ListUnscoredRequest, _: _Context
    ) -> assessment_pb2.ListUnscoredResponse:
        return wire.unscored(await self._answers.unscored(wire.unscored_request(request)))

    async def GetReport(
        self, request: assessment_pb2.GetReportRequest, _: _Context
    ) -> assessment_pb2.GetReportResponse:
        raise Unimplemented

    async def EraseInterview(
        self, request: assessment_pb2.EraseInterviewRequest, _: _Context
    ) -> assessment_pb2.EraseInterviewResponse:
        context.bind(session_id=request.session_id)
        await self._interviews.erase(wire.session_id(request.session_id))
        return assessment_pb2.EraseInterviewResponse()
