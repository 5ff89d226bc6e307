"""grpc.health.v1: whether calls may come, asked (Check) or told (Watch)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    """One answer for "" and for each service of the process, NOT_SERVING at first.

    Unlike those of grpcio's own servicer, watches end when told to: a drain would wait its whole grace for them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._closed = False
        self._changed = asyncio.Event()
        self.serving = False

    def set(self, serving: bool) -> None:
        if serving != self.serving:
            self.serving = serving
            self._wake()

    def end_watches(self) -> None:
        """Let every watcher go, once it has been told the last answer."""
        self._closed = True
        self._wake()

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, rpc: "grpc.aio.ServicerContext[Any, Any]"
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            await rpc.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, rpc: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        sent = None
        while not self._closed:
            changed, current = self._changed, self._status(request.service)
            if current != sent:
                await rpc.write(health_pb2.HealthCheckResponse(status=current))
                sent = current
            await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int:
        if service not in self._names:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return health_pb2.HealthCheckResponse.SERVING if self.serving else health_pb2.HealthCheckResponse.NOT_SERVING
