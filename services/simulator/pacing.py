"""When each part of a streamed reply is due.

The first piece comes after 40 % of the latency (a model reads its prompt first), the others follow evenly, the last at
the end. Pieces less than 10 ms apart are sent together, in one write: so do real servers and TCP, and it saves most of
the CPU.
"""

import math
from collections.abc import Iterator, Sequence

FIRST_PIECE_SHARE = 0.4
SLOW_PIECE_MS = 500.0
_TICK_MS = 10.0


def groups(events: Sequence[bytes], first_ms: float, total_ms: float) -> Iterator[tuple[float, bytes]]:
    """Yield what is sent together and when, in milliseconds after the request.

    Args:
        events: at least one.
        first_ms: when the first event is due.
        total_ms: when the last one is due; not before `first_ms`.
    """
    rest_ms = total_ms - first_ms
    count = min(len(events), 1 + math.ceil(rest_ms / _TICK_MS))
    if count == 1:
        yield total_ms, b"".join(events)
        return
    yield first_ms, events[0]
    later = len(events) - 1
    for at in range(1, count):
        start, stop = 1 + later * (at - 1) // (count - 1), 1 + later * at // (count - 1)
        yield first_ms + rest_ms * at / (count - 1), b"".join(events[start:stop])
