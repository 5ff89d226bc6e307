"""The llm-gateway service: `python -m services.llm_gateway`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.llm.v1.llm_pb2_grpc import add_LlmServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import Background, Server, run, serve
from libs.tokens import counting
from migrations.readiness import is_migrated
from services.llm_gateway.dispatch import Dispatcher
from services.llm_gateway.provider import Provider
from services.llm_gateway.records import Records
from services.llm_gateway.servicer import LlmServicer
from services.llm_gateway.settings import read
from services.llm_gateway.store import Store
from services.llm_gateway.usecases import Calls


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    settings = read(env)
    failpoints.configure("llm-gateway", env)
    env.check()
    telemetry.configure("llm-gateway", settings.log_level)
    counting.warm()
    database, background = Database(settings.database_url, "llm"), Background()
    provider, store = Provider(settings.base_url, settings.api_key, settings.model), Store(database)
    servicer = LlmServicer(Calls(store, Dispatcher(store, provider), background), Records(store))
    server = Server(
        "llm-gateway",
        settings.listen,
        [partial(add_LlmServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "llm"),
        background=background,
    )
    await serve(server, settings.metrics_listen, closing=[provider.close, database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
