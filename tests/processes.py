"""Processes as the kernel shows them, ours or not."""

from contextlib import suppress

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; an orphan may stay a zombie where the machine's first process is slow to reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two looks
        return True


def command_of(process: psutil.Process) -> list[str]:
    """What it runs: nothing if it has ended, which one that we did not start may do at any time."""
    with suppress(psutil.NoSuchProcess):  # also raised for a zombie
        return process.cmdline()
    return []
