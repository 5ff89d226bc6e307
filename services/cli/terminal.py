"""An interview or a chat in the terminal, with a person or a script of answers; the reply streams in."""

import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from libs.identity.actor import Role
from libs.identity.keys import UnusableKeyError
from libs.identity.minting import DEFAULT_AUDIENCE, DEFAULT_ISSUER, mint
from libs.runtime.config import Env
from services.cli import environment
from services.cli.conversation import Conversation
from services.cli.errors import CommandError
from services.cli.supervisor import tell

DEMO_PLAN = "quick"
DEMO_ANSWERS = Path(__file__).with_name("demo.txt")


class TokenError(CommandError):
    """No token can be made; the text says what to set."""


def token(settled: Mapping[str, str], subject: str, roles: Iterable[str]) -> str:
    """A token signed with the key that `colloquy run` made, or the one that the environment names.

    Raises:
        TokenError: there is no private key, or none that can be used.
        ConfigError: something is to be read from a file and cannot be.
    """
    env = Env(settled)
    issuer = env.text("COLLOQUY_JWT_ISSUER", DEFAULT_ISSUER)
    audience = env.text("COLLOQUY_JWT_AUDIENCE", DEFAULT_AUDIENCE)
    env.check()
    path = settled.get(environment.PRIVATE_KEY_FILE)
    if not path:
        raise TokenError(
            f"no key to sign with: start `colloquy run` with keys of its own, or set {environment.PRIVATE_KEY_FILE}"
        )
    try:
        return mint(
            Path(path).read_text(encoding="utf-8"),
            subject,
            [Role(role) for role in roles],
            issuer=issuer,
            audience=audience,
        )
    except (UnusableKeyError, UnicodeError):
        raise TokenError(f"{path} (as {environment.PRIVATE_KEY_FILE} names it) is no usable private key") from None


def conversation(settled: Mapping[str, str], subject: str) -> Conversation:
    """A client of the BFF that the environment names, as a candidate."""
    env = Env(settled)
    address = env.text("COLLOQUY_BFF_LISTEN", "127.0.0.1:8080")
    env.check()
    return Conversation(f"http://{address}", token(settled, subject, ["candidate"]))


async def demo(settled: Mapping[str, str]) -> None:
    """The short interview that `make run` plays against itself. That it fails is worth a line, not the end."""
    try:
        await interview(settled, plan=DEMO_PLAN, name="Ada", script=DEMO_ANSWERS)
    except (CommandError, OSError) as error:
        tell(f"the demo interview did not work: {error}")


async def interview(settled: Mapping[str, str], *, plan: str | None, name: str | None, script: Path | None) -> None:
    """Hold an interview: answers from the script, one a line, else from standard input.

    Raises:
        ConversationError: the product refused or could not be reached.
    """
    answers = _script(script) if script else None
    async with conversation(settled, "terminal") as client:
        interview_id, opening = await client.start_interview(plan, name)
        tell(f"\ninterviewer  {opening}")
        while (text := _next(answers)) is not None:
            tell(f"\ncandidate    {text}") if answers is not None else tell("")
            written = _write("interviewer  ")
            turn = await client.answer(interview_id, text, written)
            written.finish(turn.text)
            tell(f"             [turn {turn.seq}, {turn.duration_ms:.0f} ms{_marks(turn.degraded)}]")
            if turn.final:
                return


async def chat(settled: Mapping[str, str]) -> None:
    """Chat until the input ends.

    Raises:
        ConversationError: the product refused or could not be reached.
    """
    conversation_id = None
    async with conversation(settled, "terminal") as client:
        while (text := _next(None)) is not None:
            written = _write("assistant  ")
            conversation_id, turn = await client.chat(conversation_id, text, written)
            written.finish(turn.text)
            tell(f"           [turn {turn.seq}, {turn.duration_ms:.0f} ms]")


class _write:  # noqa: N801 - a verb: it is called with each piece
    """Writes the draft of a reply as it comes, and the reply itself where it is another text."""

    def __init__(self, speaker: str) -> None:
        self._draft = ""
        sys.stdout.write(speaker)
        sys.stdout.flush()

    def __call__(self, piece: str) -> None:
        self._draft += piece
        sys.stdout.write(piece)
        sys.stdout.flush()

    def finish(self, text: str) -> None:
        """End the line; what was committed counts, not the draft."""
        if self._draft.strip() != text.strip():
            sys.stdout.write(f"\n             {text}" if self._draft else text)
        sys.stdout.write("\n")
        sys.stdout.flush()


def _script(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeError:
        raise CommandError(f"{path} is not UTF-8 text") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _next(answers: list[str] | None) -> str | None:
    """The next thing to say; None where there is no more."""
    if answers is not None:
        return answers.pop(0) if answers else None
    while (text := _typed("\nyou          ")) is not None:
        if text.strip():
            return text
    return None


def _typed(prompt: str) -> str | None:
    """A line from standard input; None at its end, and for Ctrl-C.

    It holds up the event loop, which has nothing else to do: a thread that waits here could not be stopped. Nor does
    asyncio's own handler for Ctrl-C end an `input`, so Python's is put in its place meanwhile.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        tell("")
        return None
    except UnicodeError:
        raise CommandError("what was typed is not UTF-8 text") from None
    finally:
        signal.signal(signal.SIGINT, handler)


def _marks(degraded: list[str]) -> str:
    return f", degraded: {', '.join(degraded)}" if degraded else ""
