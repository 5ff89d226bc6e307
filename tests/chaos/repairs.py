"""Repairs by hand, as `colloquy sessions reset` and `complete` make them."""

import uuid
from contextlib import suppress

import grpc

from colloquy.gateway.v1 import operations_pb2, operations_pb2_grpc

RPC_SECONDS = 5.0
RESET, COMPLETE = operations_pb2.Repair.ACTION_RESET, operations_pb2.Repair.ACTION_COMPLETE


class Repairs:
    """An operator at a gateway."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._operations: operations_pb2_grpc.OperationsServiceAsyncStub = operations_pb2_grpc.OperationsServiceStub(
            channel
        )
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def repair(self, session: str, action: operations_pb2.Repair.Action.ValueType) -> None:
        """Try once, whatever comes of it."""
        request = operations_pb2.RepairSessionRequest(
            session_id=session, repair_id=str(uuid.uuid4()), action=action, reason="the fault suite wants it"
        )
        with suppress(grpc.aio.AioRpcError):
            await self._operations.RepairSession(request, metadata=self._metadata, timeout=RPC_SECONDS)
