"""The llm-gateway service: `python -m services.llm_gateway`, until SIGTERM or SIGINT."""

import os
from functools import partial

from colloquy.llm.v1.llm_pb2_grpc import add_LlmServiceServicer_to_server
from libs.runtime import failpoints, telemetry
from libs.runtime.config import ConfigError, Env
from libs.runtime.db import Database
from libs.runtime.server import LEVELS, Background, Server, run, serve
from libs.tokens import counting
from migrations.readiness import is_migrated
from services.llm_gateway.dispatch import Dispatcher
from services.llm_gateway.provider import OPENAI_URL, Provider
from services.llm_gateway.records import Records
from services.llm_gateway.servicer import LlmServicer
from services.llm_gateway.store import Store
from services.llm_gateway.usecases import Calls


async def main(env: Env) -> None:
    """Serve with this configuration; it raises what keeps the service from starting."""
    listen = env.listen("COLLOQUY_LLM_LISTEN", "127.0.0.1:50054")
    metrics = env.listen("COLLOQUY_LLM_METRICS_LISTEN", "127.0.0.1:9475")
    dsn = env.secret("COLLOQUY_LLM_DATABASE_URL", otherwise="COLLOQUY_DATABASE_URL")
    base_url = env.text("OPENAI_BASE_URL", OPENAI_URL)
    # An endpoint of one's own may want no key; the SDK wants one.
    api_key = env.secret("OPENAI_API_KEY", None if base_url == OPENAI_URL else "none")
    model = env.text("COLLOQUY_LLM_MODEL", "gpt-4o-mini")
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("llm-gateway", env)
    env.check()
    if not base_url.startswith(("https://", "http://")):
        raise ConfigError(["OPENAI_BASE_URL must be a URL, such as https://api.openai.com/v1"])
    telemetry.configure("llm-gateway", level)
    counting.warm()
    database, background = Database(dsn, "llm"), Background()
    provider, store = Provider(base_url, api_key, model), Store(database)
    servicer = LlmServicer(Calls(store, Dispatcher(store, provider), background), Records(store))
    server = Server(
        "llm-gateway",
        listen,
        [partial(add_LlmServiceServicer_to_server, servicer)],
        ready=partial(is_migrated, database, "llm"),
        background=background,
    )
    await serve(server, metrics, closing=[provider.close, database.close])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
