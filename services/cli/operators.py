"""The gateway as operators use it from a terminal: with a token of theirs, and answers as plain values."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from colloquy.gateway.v1 import operations_pb2_grpc
from libs.runtime import client, context, status
from libs.runtime.config import Env
from libs.runtime.errors import ColloquyError, Unavailable
from services.cli import terminal
from services.cli.errors import CommandError

if TYPE_CHECKING:  # the generated async types exist for type checkers only
    from colloquy.gateway.v1.operations_pb2_grpc import OperationsServiceAsyncStub

ANSWER_MS = 10_000
TOKEN = "COLLOQUY_OPERATOR_TOKEN"  # noqa: S105 (the name of one)
_Answer = TypeVar("_Answer")
_Field: TypeAlias = Any  # google.protobuf's FieldDescriptor, which has two types


class RefusedError(CommandError):
    """The gateway refused, or does not answer; the text says which, and what was wrong."""


def ask(settled: Mapping[str, str], question: "Callable[[OperationsServiceAsyncStub], Awaitable[_Answer]]") -> _Answer:
    """Put a question to the gateway that the environment names.

    With COLLOQUY_OPERATOR_TOKEN, whoever issues tokens says who asks; without it, where `colloquy run` keeps a key to
    sign with, it is who is logged in.

    Raises:
        RefusedError: it was not answered.
        TokenError: no token can be made.
        ConfigError: the token is to be read from a file and cannot be.
    """
    return asyncio.run(_ask(settled, question))


async def _ask(
    settled: Mapping[str, str], question: "Callable[[OperationsServiceAsyncStub], Awaitable[_Answer]]"
) -> _Answer:
    env = Env(settled)
    target = env.text("COLLOQUY_GATEWAY_TARGET", "127.0.0.1:50050", otherwise="COLLOQUY_GATEWAY_LISTEN")
    env.check()
    token = _given_token(settled) or terminal.token(settled, _whoever_types(), ["operator"])
    channel = client.open_channel(target)
    try:
        with context.serving({"authorization": f"Bearer {token}"}, budget_ms=ANSWER_MS):
            return await question(operations_pb2_grpc.OperationsServiceStub(channel))
    except ColloquyError as error:
        if isinstance(error, Unavailable) and not _said_so(error.__cause__):
            raise RefusedError(f"nothing answers at {target}: is `colloquy run` up?") from None
        fields = "".join(f"\n  {violation.field}: {violation.message}" for violation in error.violations)
        raise RefusedError(f"{error.detail}{fields}") from None
    finally:
        await channel.close()


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it in our contracts: numbers are numbers, absent messages null, times RFC 3339.

    (Protobuf's own JSON makes strings of 64-bit integers and leaves empty fields out.)
    """
    return {field.name: _plain_field(message, field) for field in message.DESCRIPTOR.fields}


def _plain_field(message: Message, field: _Field) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_plain_value(it, field) for it in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _plain_value(value, field)


def _plain_value(value: Any, field: _Field) -> Any:
    if isinstance(value, Timestamp):
        return value.ToDatetime().isoformat(timespec="microseconds") + "Z"
    if isinstance(value, Message):
        return plain(value)
    return _enum_name(value, field) if field.enum_type is not None else value


def _enum_name(number: int, field: _Field) -> str:
    """A value's name without its enum's (`LACK_FOLD` is FOLD); one of a newer contract is its number."""
    names: dict[int, str] = {known: value.name for known, value in field.enum_type.values_by_number.items()}
    return names[number].removeprefix(names[0].removesuffix("UNSPECIFIED")) if number in names else str(number)


def _given_token(settled: Mapping[str, str]) -> str:
    env = Env(settled)
    token = env.secret(TOKEN, "")
    env.check()
    return token


def _whoever_types() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "operator"


def _said_so(cause: BaseException | None) -> bool:
    """Whether a failed call was answered by a process of ours, which tells the reason in its trailers."""
    trailers = cause.trailing_metadata() if isinstance(cause, grpc.aio.AioRpcError) else None
    return any(key == status.DETAILS_KEY for key, _ in trailers or ())
