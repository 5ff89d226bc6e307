"""The assessment service: `python -m services.assessment`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.assessment.v1.assessment_pb2_grpc import add_AssessmentServiceServicer_to_server
from colloquy.llm.v1.llm_pb2_grpc import LlmServiceStub
from libs.runtime import failpoints, telemetry
from libs.runtime.client import open_channel
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import LEVELS, Server, run, serve
from migrations.readiness import is_migrated
from services.assessment.answers import Answers
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.judge import Judge
from services.assessment.servicer import AssessmentServicer
from services.assessment.store import Store
from services.assessment.usecases import Interviews


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    listen = env.listen("COLLOQUY_ASSESSMENT_LISTEN", "127.0.0.1:50053")
    metrics = env.listen("COLLOQUY_ASSESSMENT_METRICS_LISTEN", "127.0.0.1:9474")
    dsn = env.secret("COLLOQUY_ASSESSMENT_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL")
    llm_target = env.text("COLLOQUY_LLM_TARGET", "127.0.0.1:50054")
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("assessment", env)
    env.check()
    telemetry.configure("assessment", level)
    database = Database(dsn, "assessment")
    llm = open_channel(llm_target)
    store, catalogue = Store(database), Catalogue.of(read_banks())
    servicer = AssessmentServicer(Interviews(store, catalogue), Answers(store, catalogue, Judge(LlmServiceStub(llm))))
    server = Server(
        "assessment",
        listen,
        [partial(add_AssessmentServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "assessment"),
    )
    await serve(server, metrics, closing=[llm.close, database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
