"""A short soak with every kind of fault in it, by the program that does the long one (`make soak`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "bench" / "soak.py"
#: A rate lets each fault meet requests: without one, all of them would be over before the first redeploy is.
SHORT = ("--requests", "5000", "--rate", "700", "--death-every", "400", "--rest", "0", "--minutes", "5")
FAULTS = (
    "client gone at any byte",
    "slow reader",
    "slow writer",
    "request over its time limit",
    "answer broken off by the replica",
    "replica killed",
    "replica ended in mid-answer",
    "replica frozen for a while",
    "rolling redeploy",
    "replica killed during a redeploy",
)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_every_answer_is_right_or_explained_and_nothing_is_held_at_rest():
    done = subprocess.run([sys.executable, SOAK, *SHORT], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    _, _, faults = done.stdout.partition("\nFaults\n")
    assert not [fault for fault in FAULTS if f"\n  {fault} " not in faults], faults[:2000]
