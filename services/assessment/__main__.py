"""The assessment service: `python -m services.assessment`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.assessment.v1.assessment_pb2_grpc import add_AssessmentServiceServicer_to_server
from colloquy.llm.v1.llm_pb2_grpc import LlmServiceStub
from libs.runtime import failpoints, telemetry
from libs.runtime.client import open_channel
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import Server, run, serve
from migrations.readiness import is_migrated
from services.assessment.answers import Answers
from services.assessment.bankfile import read_banks
from services.assessment.catalogue import Catalogue
from services.assessment.judge import Judge
from services.assessment.servicer import AssessmentServicer
from services.assessment.settings import read
from services.assessment.store import Store
from services.assessment.usecases import Interviews


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    settings = read(env)
    failpoints.configure("assessment", env)
    env.check()
    telemetry.configure("assessment", settings.log_level)
    database = Database(settings.database_url, "assessment")
    llm = open_channel(settings.llm_target)
    store, catalogue = Store(database), Catalogue.of(read_banks())
    servicer = AssessmentServicer(Interviews(store, catalogue), Answers(store, catalogue, Judge(LlmServiceStub(llm))))
    server = Server(
        "assessment",
        settings.listen,
        [partial(add_AssessmentServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "assessment"),
    )
    await serve(server, settings.metrics_listen, closing=[llm.close, database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
