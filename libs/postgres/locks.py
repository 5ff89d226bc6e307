"""Who holds a data directory: the kernel's locks, for a number in a file may outlive its process and be reused."""

import fcntl
import os
import time
from pathlib import Path


def acquire(path: Path, wait_seconds: float = 0.0) -> int | None:
    """Lock the file at `path` exclusively, waiting up to `wait_seconds`; its descriptor, or None if it stays taken.

    The lock belongs to the open file (flock(2)): it ends when the last process that inherited the descriptor has ended.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
        else:
            return descriptor
