"""A TCP link that can be made to fail: what it carries arrives late, is cut with a reset, or vanishes.

Between two processes of the product, or a process and PostgreSQL. It forwards bytes and knows no protocol above TCP.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Self, TypeAlias, cast

from libs.runtime.config import Address

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger {l_onoff, l_linger}: close(2) sends RST, not FIN
_BACKLOG = 256
_Arrival: TypeAlias = Callable[[], None]


class Proxy:
    """Listens on a free port of the loopback interface and carries connections to `upstream`.

    `counted` says what its faults did so far: connections `reset`; chunks, and ends, `delayed` and `swallowed`.
    """

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.counted = Counter[str]()
        self.delay_seconds = 0.0
        self.resetting = False
        self.connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self).near, "127.0.0.1", 0, backlog=_BACKLOG)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset_all()
        await self._server.wait_closed()

    @contextlib.contextmanager
    def delaying(self, seconds: float) -> Iterator[None]:
        """Inside the block every chunk arrives so much later, in both directions."""
        self.delay_seconds = seconds
        try:
            yield
        finally:
            self.delay_seconds = 0.0

    @contextlib.contextmanager
    def cutting(self) -> Iterator[None]:
        """The connections that there are, and those opened inside the block, are reset."""
        self.resetting = True
        self.reset_all()
        try:
            yield
        finally:
            self.resetting = False

    @contextlib.contextmanager
    def swallowing(self) -> Iterator[None]:
        """On the connections that there are nothing arrives any more and none is closed: as after a lost host.

        New ones work. After the block the swallowed ones are reset, as by a host that has come back without them.
        """
        swallowed = list(self.connections)
        for connection in swallowed:
            connection.swallows = True
        try:
            yield
        finally:
            for connection in swallowed:
                connection.cut()

    def reset_all(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.cut()
            self.counted["reset"] += 1


class Connection:
    """Two sockets and what travels between them."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.swallows = False
        self.near, self.far = Side(self), Side(self)
        self.near.other, self.far.other = self.far, self.near

    def opened(self) -> None:
        """Somebody connected: connect to whom they mean; what they send meanwhile waits."""
        self.proxy.connections.add(self)
        if self.proxy.resetting:
            self.proxy.reset_all()
            return
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        host, port = self.proxy.upstream
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, host, port)
        except OSError:
            self.cut()  # refused
        else:
            if self in self.proxy.connections:
                self.near.set_off()
            else:  # given up meanwhile
                self.far.abort()

    def close(self) -> None:
        """Nothing more is to come from either end."""
        self.near.close()
        self.far.close()

    def cut(self) -> None:
        """Reset both ends."""
        self.proxy.connections.discard(self)
        self.near.abort()
        self.far.abort()


class Side(asyncio.Protocol):
    """One socket of a connection; what it receives goes to the other one, in order."""

    other: "Side"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._travelling: deque[tuple[float, _Arrival]] = deque()
        self._is_off = False
        self._ended = False

    # -- what the socket tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self is self._connection.near:
            self._connection.opened()
        else:
            self.set_off()  # to who opened it

    def data_received(self, data: bytes) -> None:
        self._send(lambda: self.other.write(data))

    def eof_received(self) -> bool:
        """The other direction goes on, until it has ended too."""
        self._ended = True
        self._send(self._connection.close if self.other._ended else self.other.write_eof)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if not self._connection.swallows:
            self._connection.proxy.connections.discard(self._connection)
        self._send(self.other.abort if error else self.other.close)

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    # -- what is done to it; harmless once it is closed

    def write(self, data: bytes) -> None:
        if transport := self._open():
            transport.write(data)

    def write_eof(self) -> None:
        if transport := self._open():
            transport.write_eof()

    def pause_reading(self) -> None:
        if transport := self._open():
            transport.pause_reading()

    def resume_reading(self) -> None:
        if transport := self._open():
            transport.resume_reading()

    def close(self) -> None:
        if transport := self._open():
            transport.close()

    def abort(self) -> None:
        """Close with a reset."""
        if transport := self._open():
            own: socket.socket = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def _open(self) -> asyncio.Transport | None:
        transport = self._transport
        return None if transport is None or transport.is_closing() else transport

    # -- the way to the other side

    def set_off(self) -> None:
        """The other side is there: what has waited for it travels."""
        self._is_off = True
        if self._travelling:
            self._await_first()

    def _send(self, arrive: _Arrival) -> None:
        """Let something arrive at the other side, now or late, and never before what was sent earlier."""
        proxy = self._connection.proxy
        if self._connection.swallows:
            proxy.counted["swallowed"] += 1
            return
        if self._is_off and not self._travelling and not proxy.delay_seconds:
            arrive()
            return
        proxy.counted["delayed"] += proxy.delay_seconds > 0
        self._travelling.append((asyncio.get_running_loop().time() + proxy.delay_seconds, arrive))
        if self._is_off and len(self._travelling) == 1:
            self._await_first()

    def _await_first(self) -> None:
        asyncio.get_running_loop().call_at(self._travelling[0][0], self._arrive)

    def _arrive(self) -> None:
        _, arrive = self._travelling.popleft()
        if not self._connection.swallows:  # what was under way when its connection began to vanish has vanished
            arrive()
        if self._travelling:
            self._await_first()
