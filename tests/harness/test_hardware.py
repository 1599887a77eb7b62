"""What a run does to the process that it runs in: memory that was freed stays at hand."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from imbcil.harness.hardware import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.ones(12 << 20, np.uint8), np.ones(48 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults(10)
if not keep_freed_memory():
    print("no glibc")
else:
    faults(1)
    print(before, faults(10))
"""


def test_the_pages_of_a_large_batch_are_not_asked_for_again() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    if "no glibc" in found:
        pytest.skip("the allocator of this C library has no such option")
    before, after = map(int, found.split())
    assert before > 1000 and after < before / 20
