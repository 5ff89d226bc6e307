"""The assessment service as its own process: what it needs to start, what it says, how it ends."""

import asyncio
import signal
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from colloquy.assessment.v1 import assessment_pb2
from colloquy.assessment.v1.assessment_pb2_grpc import AssessmentServiceStub
from libs.runtime import client
from tests.databases import Database
from tests.rpc.processes import PATIENCE_SECONDS, line_of, process

ANYWHERE = {"COLLOQUY_ASSESSMENT_LISTEN": "127.0.0.1:0", "COLLOQUY_ASSESSMENT_METRICS_LISTEN": "127.0.0.1:0"}


async def test_it_serves_without_a_judge_and_leaves_when_told_to(database: Database) -> None:
    settings = {"COLLOQUY_DATABASE_URL": database.dsns["assessment"], "COLLOQUY_LLM_TARGET": "127.0.0.1:1"}
    async with process("services.assessment", {**ANYWHERE, **settings}) as service:
        serving = await line_of(service, "serving")
        channel = client.open_channel(f"127.0.0.1:{serving['port']}")
        health_stub: Any = health_pb2_grpc.HealthStub(channel)
        stub: Any = AssessmentServiceStub(channel)
        health = await health_stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_SECONDS)
        resolved = await client.call(stub.ResolvePlan, assessment_pb2.ResolvePlanRequest(), 5000)
        await channel.close()

        service.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(service.wait(), 10)

    assert serving["service"] == "assessment"
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert resolved.plan == "backend-engineer"
    assert code == 0


async def test_without_a_database_url_it_says_so_and_does_not_start() -> None:
    async with process("services.assessment", {"COLLOQUY_ASSESSMENT_LISTEN": "nonsense"}) as service:
        _, errors = await asyncio.wait_for(service.communicate(), 20)

    assert service.returncode == 1
    problems = errors.decode().splitlines()
    assert len(problems) == 2
    assert any("COLLOQUY_ASSESSMENT_DATABASE_URL" in problem for problem in problems)
    assert any("COLLOQUY_ASSESSMENT_LISTEN" in problem for problem in problems)
