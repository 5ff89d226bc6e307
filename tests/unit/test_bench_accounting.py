"""The benchmark counts the CPU of every process, also of those that have come and gone."""

import subprocess
import sys

import pytest

from tests.bench.accounting import cpu_ms
from tests.bench.children import BenchError

# More than is asserted: of each of four times the kernel tells the whole hundredths of a second.
_BURN = "import time\nwhile time.process_time() < 0.3: pass"
_BURN_IN_A_CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_BURN!r}], check=True)
print("reaped", flush=True)
sys.stdin.read()
"""


def test_a_child_that_has_come_and_gone_counts_with_its_parent() -> None:
    command = [sys.executable, "-c", _BURN_IN_A_CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"reaped\n"

        used = cpu_ms({"parent": parent.pid})

        parent.kill()
    assert used["parent"] >= 200


def test_a_process_that_is_gone_is_named() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    with pytest.raises(BenchError, match="history ended"):
        cpu_ms({"history": gone.pid})
