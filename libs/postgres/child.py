"""The last steps before a program that must not outlive its launcher: lay down root, ask to die with it, become it.

Run as a script (`python -I -S child.py PARENT UID GID PROGRAM ARGUMENT...`) and never imported: a `preexec_fn` would
run Python between fork and exec, which may deadlock where the launcher has threads. It sees the standard library only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(parent: int, uid: int, gid: int, command: list[str]) -> None:
    """Replace this process by `command`, as `uid` and `gid` where that is not who we are already."""
    if os.geteuid() != uid:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, because a change of credentials clears it (prctl(2)). SIGINT is PostgreSQL's fast shutdown.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:
            sys.exit("the launcher died before its child was ready to notice")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that down
    os.execv(command[0], command)  # noqa: S606 - no shell is meant to be here


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
