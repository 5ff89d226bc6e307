"""The `colloquy` command. Exit codes: 0 done, 1 failed, 2 usage."""

import argparse
import asyncio
import contextlib
import math
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from libs.identity.actor import MAX_NAME_CODE_POINTS, Role, from_claims
from libs.postgres.errors import LaunchError
from libs.runtime.config import ConfigError
from libs.runtime.errors import Unauthenticated
from services.cli import environment
from services.cli.errors import CommandError


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do it; the exit code."""
    parsed = _parser().parse_args(arguments)
    given = dict(os.environ)
    try:
        if parsed.command != "run":
            given = environment.read(given, parsed.data)
        return int(_COMMANDS[parsed.command](parsed, given))
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 1
    except ConfigError as error:
        return _failed(*error.problems)
    except (CommandError, LaunchError, OSError) as error:
        return _failed(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="colloquy", description="AI interviews and chats, one turn at a time.")
    parser.add_argument(
        "--data", type=Path, default=environment.DATA, help="where `run` keeps its data, keys and logs (%(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="start everything here, play a short interview, stay until Ctrl-C")
    run.add_argument("--no-demo", action="store_true", help="do not play the interview")
    serve = commands.add_parser("serve", help="run one service; it logs to stdout")
    serve.add_argument("service", choices=[program.name for program in environment.PROGRAMS])
    commands.add_parser("migrate", help="bring every context's schema to its head")
    interview = commands.add_parser("interview", help="be interviewed in the terminal")
    interview.add_argument("--plan", help="the interview's plan (else the product's default)")
    interview.add_argument("--name", help="the candidate's name")
    interview.add_argument(
        "--script", type=Path, metavar="FILE", help="play a file of answers, one a line, instead of asking"
    )
    commands.add_parser("chat", help="chat in the terminal")
    token = commands.add_parser("token", help="print a token and nothing else")
    token.add_argument("--sub", type=_subject, required=True, help="the subject: who owns what the token creates")
    token.add_argument("--role", action="append", choices=[role.value for role in Role], required=True)
    verify = commands.add_parser("verify", help="check every invariant in the tables; exit code 1 if one is broken")
    verify.add_argument("session", nargs="?", type=UUID, metavar="SESSION", help="this session only")
    verify.add_argument("--json", action="store_true", help="as JSON")
    sessions = commands.add_parser("sessions", help="see and repair sessions, as an operator")
    of_sessions = sessions.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    stuck = of_sessions.add_parser("stuck", help="list sessions that are not settled, and why")
    stuck.add_argument(
        "--older-than", type=_seconds, default=30, metavar="SECONDS", help="unchanged for so long (%(default)s)"
    )
    stuck.add_argument("--json", action="store_true", help="as JSON")
    for name, what in (
        ("reset", "end the claim on the turn that is being answered, so that it can be answered anew"),
        ("complete", "close a session, so that it completes"),
    ):
        repair = of_sessions.add_parser(name, help=f"{what}; on record with your name")
        repair.add_argument("session", type=UUID, metavar="SESSION")
        repair.add_argument("--reason", required=True, help="why, for the record; none of a candidate's words")
    turns = commands.add_parser("turns", help="see turns, as an operator")
    show = turns.add_subparsers(dest="subcommand", required=True, metavar="COMMAND").add_parser(
        "show", help="the whole life of a turn: states, fences, calls, attempts, timings"
    )
    show.add_argument("session", type=UUID, metavar="SESSION")
    show.add_argument("turn", type=UUID, metavar="TURN", help="the turn's id, or its request's")
    show.add_argument("--json", action="store_true", help="as JSON")
    failpoints = commands.add_parser("failpoints", help="list the points at which tests can have a fault by name")
    failpoints.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text} is no number of seconds")


def _subject(text: str) -> str:
    try:
        return from_claims({"sub": text}).subject
    except Unauthenticated:
        raise argparse.ArgumentTypeError(
            f"{text!r} would be refused in a token: a name has 1 to {MAX_NAME_CODE_POINTS} characters that can be seen"
        ) from None


def _run(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import stack

    return stack.run(given, parsed.data, demo=not parsed.no_demo)


def _serve(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    module = next(program.module for program in environment.PROGRAMS if program.name == parsed.service)
    os.environ.update(given)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _migrate(_: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import database

    database.migrate(database.database_urls(given))
    return 0


def _interview(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import terminal

    asyncio.run(terminal.interview(given, plan=parsed.plan, name=parsed.name, script=parsed.script))
    return 0


def _chat(_: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import terminal

    asyncio.run(terminal.chat(given))
    return 0


def _token(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import terminal

    sys.stdout.write(terminal.token(given, parsed.sub, parsed.role) + "\n")
    return 0


def _verify(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import verify

    return asyncio.run(verify.verify(given, parsed.session, as_json=parsed.json))


def _sessions(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import sessions

    if parsed.subcommand == "stuck":
        sessions.stuck(given, parsed.older_than, as_json=parsed.json)
    else:
        sessions.repair(given, parsed.session, parsed.subcommand, parsed.reason)
    return 0


def _turns(parsed: argparse.Namespace, given: Mapping[str, str]) -> int:
    from services.cli import turns

    turns.show(given, parsed.session, parsed.turn, as_json=parsed.json)
    return 0


def _failpoints(parsed: argparse.Namespace, _: Mapping[str, str]) -> int:
    from services.cli import failpoints

    failpoints.tell(as_json=parsed.json)
    return 0


def _failed(*reasons: str) -> int:
    sys.stderr.write("".join(f"colloquy: {reason}\n" for reason in reasons))
    return 1


_COMMANDS = {
    "run": _run,
    "serve": _serve,
    "migrate": _migrate,
    "interview": _interview,
    "chat": _chat,
    "token": _token,
    "verify": _verify,
    "sessions": _sessions,
    "turns": _turns,
    "failpoints": _failpoints,
}

if __name__ == "__main__":
    raise SystemExit(main())
