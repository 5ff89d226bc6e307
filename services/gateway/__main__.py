"""The gateway's process."""

import os
from functools import partial

from colloquy.gateway.v1 import gateway_pb2_grpc, operations_pb2_grpc
from libs.identity import settings as identity
from libs.prompts import rendering
from libs.runtime import failpoints, telemetry
from libs.runtime.client import open_channel
from libs.runtime.config import Env
from libs.runtime.server import Background, Server, run, serve
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
from services.gateway.settings import read
from services.gateway.settling import Settling
from services.gateway.sweep import Sweep
from services.gateway.unscored import Unscored
from services.gateway.unsettled import Unsettled
from services.gateway.usecases import Budgets, Turns


async def main(env: Env) -> None:
    settings = read(env)
    failpoints.configure("gateway", env)
    env.check()
    telemetry.configure("gateway", settings.log_level)

    verifier = identity.open_verifier(settings.tokens)
    channels = {name: open_channel(target) for name, target in settings.targets.items()}
    contexts = Contexts.over(**channels)
    background = Background()
    composition = Composition(contexts)
    settling = Settling(contexts, background)
    recovery = Recovery(contexts, composition, settling, background)
    budgets = Budgets(settings.turn_budget_ms, settings.chat_budget_ms)
    turns = Turns(contexts, composition, settling, recovery, background, budgets)
    pinned = {"question": rendering.QUESTION, "judge": rendering.JUDGE, "chat": rendering.CHAT}
    limits = Limits(
        interview_ms=settings.turn_budget_ms,
        chat_ms=settings.chat_budget_ms,
        max_turns=settings.max_turns,
        min_interval_ms=settings.min_turn_interval_ms,
    )
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
    server = Server("gateway", settings.listen, register, background=background)
    sweep.start()
    await serve(
        server, settings.metrics_listen, closing=[verifier.close, *(channel.close for channel in channels.values())]
    )


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
