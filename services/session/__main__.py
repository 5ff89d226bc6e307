"""The session service: `python -m services.session`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.session.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import LEVELS, Server, run, serve
from migrations.readiness import is_migrated
from services.session.servicer import SessionServicer
from services.session.store import Store
from services.session.usecases import Directory


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    listen = env.listen("COLLOQUY_SESSION_LISTEN", "127.0.0.1:50051")
    metrics = env.listen("COLLOQUY_SESSION_METRICS_LISTEN", "127.0.0.1:9472")
    dsn = env.secret("COLLOQUY_SESSION_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL")
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("session", env)
    env.check()
    telemetry.configure("session", level)
    database = Database(dsn, "session")
    servicer = SessionServicer(Directory(Store(database)))
    server = Server(
        "session",
        listen,
        [partial(add_SessionServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "session"),
    )
    await serve(server, metrics, closing=[database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
