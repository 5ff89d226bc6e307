"""Processes as the kernel shows them, ours or not."""

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; an orphan may stay a zombie where the machine's first process is slow to reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two looks
        return True
