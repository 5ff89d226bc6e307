"""The other commands as a person or a script types them: what they print, how they refuse, how they are left."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import psutil
import pytest

from services.cli import environment
from tests.e2e.product import Product, eventually
from tests.ports import free_ports

CTRL_C, CTRL_D = b"\x03", b"\x04"
# Makes standard input the controlling terminal, which alone turns Ctrl-C into a signal.
AT_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
SCHEMAS = ("SESSION", "HISTORY", "ASSESSMENT", "LLM")


async def colloquy(settings: Mapping[str, str], *arguments: str) -> tuple[int | None, str, str]:
    """Its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **settings},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


class Terminal:
    """A terminal with a process at it."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process, self.shown = process, ""
        self._descriptor, self._news = descriptor, asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    async def shows(self, pattern: str) -> None:
        """Wait until it has shown what matches."""
        while not re.search(pattern, self.shown):
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), 20)
            except TimeoutError:
                raise AssertionError(f"it shows {self.shown!r}") from None

    async def asks(self, times: int) -> None:
        """Wait until it has asked for so many lines, and waits for the last."""
        await self.shows(rf"(?s:you  .*?){{{times}}}")

        # A key that comes between the prompt and the system call which reads is seen with the key after it.
        async def waits() -> bool:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_SLEEPING

        await eventually(waits)

    async def left(self) -> int:
        """Wait until the process has ended; its exit code."""
        try:
            return await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            raise AssertionError(f"it goes on, and shows {self.shown!r}") from None

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            self.shown += os.read(self._descriptor, 4096).decode()
        self._news.set()


@asynccontextmanager
async def terminal(settings: Mapping[str, str], *arguments: str) -> AsyncIterator[Terminal]:
    ours, its = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AT_A_TERMINAL, "-m", "services.cli", *arguments),
        stdin=its,
        stdout=its,
        stderr=its,
        env={"PATH": os.environ["PATH"], **settings},
        start_new_session=True,
    )
    screen = Terminal(process, ours)
    try:
        yield screen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.close()
        os.close(its)


@pytest.mark.parametrize("command", ["interview", "chat"])
@pytest.mark.parametrize("key", [CTRL_C, CTRL_D], ids=["Ctrl-C", "Ctrl-D"])
async def test_a_conversation_is_left_at_the_prompt(product: Product, command: str, key: bytes) -> None:
    async with terminal(product.environment, command) as screen:
        await screen.asks(1)
        screen.type(b"Would an index help here?\n")
        await screen.shows(r"\[turn \d, \d+ ms")
        await screen.asks(2)

        screen.type(key)

        assert await screen.left() == 0
    assert "Traceback" not in screen.shown


async def test_a_conversation_is_left_while_the_reply_is_awaited(product: Product) -> None:
    await product.set_simulator(faults={"hang": 1})
    async with terminal(product.environment, "chat") as screen:
        await screen.asks(1)
        screen.type(b"Are you there?\n")
        await screen.shows("assistant")

        screen.type(CTRL_C)

        assert await screen.left() == 1
    await product.set_simulator(latency={"median_ms": 30, "sigma": 0.2})
    assert "Traceback" not in screen.shown


async def test_a_token_is_printed_and_nothing_else(product: Product) -> None:
    code, out, err = await colloquy(product.environment, "token", "--sub", "ada", "--role", "candidate")

    assert (code, err, out.count("\n")) == (0, "", 1)
    assert jwt.decode(out.strip(), options={"verify_signature": False})["sub"] == "ada"


@pytest.mark.parametrize("subject", ["", "a" * 256], ids=["empty", "too long"])
async def test_a_token_that_the_product_would_refuse_is_a_mistake_of_usage(product: Product, subject: str) -> None:
    code, out, err = await colloquy(product.environment, "token", "--sub", subject, "--role", "candidate")

    assert (code, out) == (2, "")
    assert "argument --sub: " in err


async def test_a_command_that_finds_no_product_says_so_at_once(product: Product) -> None:
    nowhere = {**product.environment, "COLLOQUY_BFF_LISTEN": f"127.0.0.1:{free_ports(1)[0]}"}

    code, out, err = await colloquy(nowhere, "interview")

    assert (code, out) == (1, "")
    assert re.fullmatch(r"colloquy: nothing answers at http://\S+: is `colloquy run` up\?\n", err)


async def test_a_service_without_its_environment_says_what_it_needs(tmp_path: Path) -> None:
    names = [program.name for program in environment.PROGRAMS]
    ended = await asyncio.gather(*(colloquy({}, "--data", str(tmp_path), "serve", name) for name in names))

    for name, (code, out, err) in zip(names, ended, strict=True):
        assert (code, out) == (1, ""), name
        assert re.fullmatch(r"(colloquy: [A-Z_]+ is not set.*\n)+", err), (name, err)


async def test_migrate_says_all_that_it_needs(tmp_path: Path) -> None:
    code, _, err = await colloquy({}, "--data", str(tmp_path), "migrate")

    assert code == 1
    assert re.findall(r"^colloquy: COLLOQUY_(\w+)_DATABASE_URL is not set", err, re.MULTILINE) == [*SCHEMAS]
    assert err.count("\n") == len(SCHEMAS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres:/ada:secret@127.0.0.1", "COLLOQUY_DATABASE_URL must be postgresql://"),
        ("postgresql://ada:secret@127.0.0.1:1/x", "the database cannot be used: "),
    ],
)
async def test_migrate_refuses_a_wrong_database_without_showing_its_password(
    url: str, said: str, tmp_path: Path
) -> None:
    code, _, err = await colloquy({"COLLOQUY_DATABASE_URL": url}, "--data", str(tmp_path), "migrate")

    assert code == 1
    assert err.startswith(f"colloquy: {said}")
    assert "secret" not in err
    assert "Traceback" not in err
