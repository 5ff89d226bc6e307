"""The history service: `python -m services.history`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.history.v1.history_pb2_grpc import add_HistoryServiceServicer_to_server
from colloquy.history.v1.operations_pb2_grpc import add_OperationsServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import LEVELS, Server, run, serve
from libs.tokens import counting
from migrations.readiness import is_migrated
from services.history.operations import Operations
from services.history.servicer import HistoryServicer, OperationsServicer
from services.history.store import Store
from services.history.usecases import History


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    listen = env.listen("COLLOQUY_HISTORY_LISTEN", "127.0.0.1:50052")
    metrics = env.listen("COLLOQUY_HISTORY_METRICS_LISTEN", "127.0.0.1:9473")
    dsn = env.secret("COLLOQUY_HISTORY_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL")
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("history", env)
    env.check()
    telemetry.configure("history", level)
    counting.warm()
    database = Database(dsn, "history")
    store = Store(database)
    servicer = HistoryServicer(History(store, counting.count))
    operations = OperationsServicer(Operations(store))
    server = Server(
        "history",
        listen,
        [
            partial(add_HistoryServiceServicer_to_server, servicer),
            partial(add_OperationsServiceServicer_to_server, operations),
        ],
        ready=partial(is_migrated, database, "history"),
    )
    await serve(server, metrics, closing=[database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
