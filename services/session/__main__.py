"""The session service: `python -m services.session`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.session.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import Server, run, serve
from migrations.readiness import is_migrated
from services.session.servicer import SessionServicer
from services.session.settings import read
from services.session.store import Store
from services.session.usecases import Directory


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    settings = read(env)
    failpoints.configure("session", env)
    env.check()
    telemetry.configure("session", settings.log_level)
    database = Database(settings.database_url, "session")
    servicer = SessionServicer(Directory(Store(database)))
    server = Server(
        "session",
        settings.listen,
        [partial(add_SessionServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "session"),
    )
    await serve(server, settings.metrics_listen, closing=[database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
