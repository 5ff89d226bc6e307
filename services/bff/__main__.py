"""Starts the BFF: `python -m services.bff`, or `colloquy serve bff`."""

import os

from libs.identity import settings as identity
from libs.runtime import failpoints, telemetry
from libs.runtime.config import Env
from libs.runtime.server import LEVELS, run
from services.bff.app import build
from services.bff.conversations import Budgets
from services.bff.gateway import Gateway
from services.bff.routes import Probes
from services.bff.server import HttpServer, serve


async def main(env: Env) -> None:
    """Serve until the process is told to stop.

    Raises:
        ConfigError: a variable is missing or wrong.
        StartError: a port is taken.
    """
    listen = env.listen("COLLOQUY_BFF_LISTEN", "127.0.0.1:8080")
    metrics_listen = env.listen("COLLOQUY_BFF_METRICS_LISTEN", "127.0.0.1:9470")
    target = env.text("COLLOQUY_GATEWAY_TARGET", "127.0.0.1:50050")
    tokens = identity.read(env)
    budgets = Budgets(
        reply_ms=env.integer("COLLOQUY_TURN_BUDGET_MS", 2000, minimum=200),
        chat_ms=env.integer("COLLOQUY_CHAT_BUDGET_MS", 15_000, minimum=200),
    )
    cors_origins = [origin.strip() for origin in env.text("COLLOQUY_CORS_ORIGINS", "").split(",") if origin.strip()]
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("bff", env)
    env.check()
    verifier = identity.open_verifier(tokens)
    telemetry.configure("bff", level)
    gateway = Gateway(target)
    probes = Probes(gateway)
    server = HttpServer(build(gateway, verifier, budgets, probes, cors_origins), listen)
    await serve(server, metrics_listen, probes, closing=[gateway.close, verifier.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
