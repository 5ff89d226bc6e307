"""The history service: `python -m services.history`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.history.v1.history_pb2_grpc import add_HistoryServiceServicer_to_server
from colloquy.history.v1.operations_pb2_grpc import add_OperationsServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.db import Database
from libs.runtime.server import Server, run, serve
from libs.tokens import counting
from migrations.readiness import is_migrated
from services.history.operations import Operations
from services.history.servicer import HistoryServicer, OperationsServicer
from services.history.settings import read
from services.history.store import Store
from services.history.usecases import History


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    settings = read(env)
    failpoints.configure("history", env)
    env.check()
    telemetry.configure("history", settings.log_level)
    counting.warm()
    database = Database(settings.database_url, "history")
    store = Store(database)
    servicer = HistoryServicer(History(store, counting.count))
    operations = OperationsServicer(Operations(store))
    server = Server(
        "history",
        settings.listen,
        [
            partial(add_HistoryServiceServicer_to_server, servicer),
            partial(add_OperationsServiceServicer_to_server, operations),
        ],
        ready=partial(is_migrated, database, "history"),
    )
    await serve(server, settings.metrics_listen, closing=[database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
