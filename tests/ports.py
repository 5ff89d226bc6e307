"""Ports for what is started later."""

import random
import socket
from contextlib import ExitStack, suppress

# Below those that systems give to outgoing connections and to whoever binds port 0 (Linux from 32768, macOS from
# 49152): nobody gets one of these without asking for it before the process is there that it was found for.
_RANGE = range(10_000, 32_768)


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that are free now, each another one."""
    found: list[int] = []
    ours = random.Random()  # seeded by the system, once; Hypothesis sets the seed of the module's own
    with ExitStack() as held:
        for port in ours.sample(_RANGE, len(_RANGE)):
            if len(found) == count:
                break
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
