# SPDX-License-Identifier: Apache-2.0
"""Freed memory is kept: page faults of a process that takes and frees the same blocks again and again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from occupancy_nn_ros.runtime.allocator import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [b"x" * (20 << 20) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(2)
before = faults(5)
assert keep_freed_memory()
faults(2)
print(before, faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    before, after = map(int, result.stdout.split())
    assert before > 10_000  # by default most of the 150,000 pages are given back and fetched again
    assert after < 100
