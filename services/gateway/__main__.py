"""The gateway's process."""

import os
from functools import partial

from colloquy.gateway.v1 import gateway_pb2_grpc, operations_pb2_grpc
from libs.identity import settings as identity
from libs.prompts import rendering
from libs.runtime import failpoints, telemetry
from libs.runtime.client import open_channel
from libs.runtime.config import Env
from libs.runtime.server import LEVELS, Background, Server, run, serve
from services.gateway.clearable import Clearable
from services.gateway.composition import Composition
from services.gateway.contexts import Contexts
from services.gateway.erasing import Erasing
from services.gateway.opening import Limits, Sessions
from services.gateway.operations import Operations
from services.gateway.operations_servicer import OperationsServicer
from services.gateway.reading import Reading
from services.gateway.recovery import Recovery
from services.gateway.servicer import ConversationServicer
from services.gateway.settling import Settling
from services.gateway.sweep import Sweep
from services.gateway.unscored import Unscored
from services.gateway.unsettled import Unsettled
from services.gateway.usecases import Budgets, Turns


async def main(env: Env) -> None:
    listen = env.listen("COLLOQUY_GATEWAY_LISTEN", "127.0.0.1:50050")
    metrics = env.listen("COLLOQUY_GATEWAY_METRICS_LISTEN", "127.0.0.1:9471")
    targets = {
        "session": env.text("COLLOQUY_SESSION_TARGET", "127.0.0.1:50051"),
        "history": env.text("COLLOQUY_HISTORY_TARGET", "127.0.0.1:50052"),
        "assessment": env.text("COLLOQUY_ASSESSMENT_TARGET", "127.0.0.1:50053"),
        "llm": env.text("COLLOQUY_LLM_TARGET", "127.0.0.1:50054"),
    }
    limits = Limits(
        interview_ms=env.integer("COLLOQUY_TURN_BUDGET_MS", 2000, minimum=500),
        chat_ms=env.integer("COLLOQUY_CHAT_BUDGET_MS", 15_000, minimum=500),
        max_turns=env.integer("COLLOQUY_MAX_TURNS", 100, minimum=2),
        min_interval_ms=env.integer("COLLOQUY_MIN_TURN_INTERVAL_MS", 3000),
    )
    issuer = identity.read(env)
    level = env.choice("COLLOQUY_LOG_LEVEL", LEVELS, "info")
    failpoints.configure("gateway", env)
    env.check()
    telemetry.configure("gateway", level)

    verifier = identity.open_verifier(issuer)
    channels = {name: open_channel(target) for name, target in targets.items()}
    contexts = Contexts.over(**channels)
    background = Background()
    composition = Composition(contexts)
    settling = Settling(contexts, background)
    recovery = Recovery(contexts, composition, settling, background)
    budgets = Budgets(limits.interview_ms, limits.chat_ms)
    turns = Turns(contexts, composition, settling, recovery, background, budgets)
    pinned = {"question": rendering.QUESTION, "judge": rendering.JUDGE, "chat": rendering.CHAT}
    sessions = Sessions(contexts, composition, settling, background, limits, pinned)
    erasing = Erasing(contexts, settling, background)
    unsettled = Unsettled(contexts, settling, recovery, erasing)
    sweep = Sweep(background, [unsettled, Unscored(contexts), Clearable(contexts)])
    servicer = ConversationServicer(verifier, turns, sessions, Reading(contexts, settling), erasing)
    operators = OperationsServicer(verifier, Operations(contexts, settling))
    register = [
        partial(gateway_pb2_grpc.add_ConversationServiceServicer_to_server, servicer),
        partial(operations_pb2_grpc.add_OperationsServiceServicer_to_server, operators),
    ]
    server = Server("gateway", listen, register, background=background)
    sweep.start()
    await serve(server, metrics, closing=[verifier.close, *(channel.close for channel in channels.values())])


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
