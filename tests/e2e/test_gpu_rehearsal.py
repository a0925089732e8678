"""``make test-gpu`` and the example where there is no GPU: all but CUDA is real, NVIDIA's parts have stand-ins.

This tells nothing of GPUs. It tells that the checks run to their end: that what ``tests/gpu`` expects of discovery,
of replicas as local processes, of what is used and of limits is there, under the names that it expects.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.nvml_standin.build import TABLE, build, table

from fngw_controller.inventory.fake_nvml import FakeGpu, FakeNvml

ROOT = Path(__file__).parents[2]
PARTS = ROOT / "tests" / "gpu" / "rehearsal"
GPU = "GPU-11111111-2222-3333-4444-555555555555"

pytestmark = pytest.mark.slow


@pytest.fixture
def stage(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine that seems to have a GPU, MPS, and PyTorch beside another interpreter."""
    packages = tmp_path / "packages"
    shutil.copytree(PARTS / "torch", packages / "torch", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "table").write_text(table(FakeNvml([FakeGpu(GPU, "NVIDIA Stand-in")])))
    return {
        "LD_LIBRARY_PATH": str(build(tmp_path).parent),
        TABLE: str(packages / "table"),
        "REHEARSAL_PACKAGES": str(packages),
        "REHEARSAL_PYTHON": sys.executable,
        "DOCKER_HOST": "unix:///no-engine",  # whatever it has, it has no stand-ins
        "PATH": f"{PARTS / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }


@pytest.mark.timeout(900)
def test_the_checks_run_to_their_end(stage: dict[str, str]) -> None:
    checks = {
        "FNGW_TEST_TORCH": "installed",
        "FNGW_TEST_ROUNDS": "1",
        "FNGW_TEST_SECONDS": "2",
        "FNGW_TEST_PROCESSES": "seen",
    }
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST_"))}
    command = ["make", "--no-print-directory", "test-gpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, env={**env, **stage, **checks}, timeout=880, **pipes)
    assert done.returncode == 0, done.stdout
    assert f"{GPU}: NVIDIA Stand-in, 81920 MiB" in done.stdout
    assert "4 passed" in done.stdout and "not checked" not in done.stdout, done.stdout


def test_the_example_runs(stage: dict[str, str], own_stack) -> None:
    packages = json.dumps({"PYTHONPATH": stage["REHEARSAL_PACKAGES"]})
    command = ("deploy", str(ROOT / "examples/gpu_share/app.py"), "--set", "pip=[]", "--set", f"env={packages}")
    with own_stack("process", **stage) as stack:

        def shares() -> list[float]:
            (device,) = json.loads(stack.fngw("gpus", "--json").stdout)["gpus"]
            assert device["uuid"] == GPU
            return [lease["share"] for lease in device["leases"]]

        stack.fngw(*command)
        assert shares() == [0.5, 0.5]
        answer = httpx.get(f"{stack.url}/gpu_share", params={"seconds": 0.2}, timeout=30).json()
        assert answer["multiplications"] > 0 and answer["gpu"] == "NVIDIA Stand-in"
        stack.fngw(*command, "--set", "num_gpus=0.25", "--set", "num_replicas=4")
        assert shares() == [0.25] * 4
        assert "NVIDIA Stand-in" in stack.fngw("gpus").stdout
        stack.fngw("delete", "Multiplier")
