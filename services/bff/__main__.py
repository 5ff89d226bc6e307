"""Starts the BFF: `python -m services.bff`, or `colloquy serve bff`."""

import os

from libs.identity import settings as identity
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.server import run
from services.bff.app import build
from services.bff.conversations import Budgets
from services.bff.gateway import Gateway
from services.bff.routes import Probes
from services.bff.server import HttpServer, serve
from services.bff.settings import read


async def main(env: Env) -> None:
    """Serve until the process is told to stop.

    Raises:
        ConfigError: a variable is missing or wrong.
        StartError: a port is taken.
    """
    settings = read(env)
    failpoints.configure("bff", env)
    env.check()
    telemetry.configure("bff", settings.log_level)
    verifier = identity.open_verifier(settings.tokens)
    gateway = Gateway(settings.gateway_target)
    budgets = Budgets(reply_ms=settings.turn_budget_ms, chat_ms=settings.chat_budget_ms)
    probes = Probes(gateway)
    server = HttpServer(build(gateway, verifier, budgets, probes, settings.cors_origins), settings.listen)
    await serve(server, settings.metrics_listen, probes, closing=[gateway.close, verifier.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
