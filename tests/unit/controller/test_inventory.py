"""What is declared of a machine, and what can be read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fngw_controller import inventory
from fngw_controller.engines.base import EngineInfo
from fngw_controller.inventory import host
from fngw_controller.inventory.base import InventoryError
from fngw_controller.inventory.static import GpuFile
from fngw_controller.settings import ControllerSettings
from fngw_state.resources import Capacity, Device

GOOD = {"gpus": [{"uuid": "GPU-0", "model": "H100", "memory": "80GiB"}]}
ENGINE = EngineInfo("process", "1", "", memory=4 << 30)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gpus.json"
    path.write_text(json.dumps(GOOD))
    return path


# -- a file ------------------------------------------------------------------------------------------------


async def test_reads_the_devices_of_a_file(file: Path):
    entries = [*GOOD["gpus"], {"uuid": "MIG-1", "memory": 10 << 30, "mig": True}]
    file.write_text(json.dumps({"gpus": entries}))
    devices = (await GpuFile(file).read()).devices
    assert devices == (Device("GPU-0", "H100", 81920), Device("MIG-1", "", 10240, mig=True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is no JSON"),
        ([], 'has no list "gpus"'),
        ({"gpus": {}}, 'has no list "gpus"'),
        ({"gpus": ["GPU-0"]}, "gpus[0]: 'GPU-0' is no object"),
        ({"gpus": [{"memory": "1GiB"}]}, "gpus[0].uuid: None"),
        ({"gpus": [{"uuid": "a,b", "memory": "1GiB"}]}, "gpus[0].uuid: 'a,b'"),
        ({"gpus": [*GOOD["gpus"], {"uuid": "GPU-1"}]}, "gpus[1].memory: None is not a size"),
        ({"gpus": [{"uuid": "GPU-0", "memory": "lots"}]}, "gpus[0].memory: 'lots' is not a size"),
        ({"gpus": [{"uuid": "GPU-0", "memory": -5}]}, "gpus[0].memory: -5 is less than 1 MiB"),
        ({"gpus": [{"uuid": "GPU-0", "memory": True}]}, "gpus[0].memory: True is not a size"),
        ({"gpus": [{"uuid": "GPU-0", "memory": "1GiB", "model": 5}]}, "gpus[0].model: 5 is no text"),
        ({"gpus": [{"uuid": "GPU-0", "memory": "1GiB", "mig": 1}]}, "gpus[0].mig: 1 is neither"),
        ({"gpus": [{"uuid": "GPU-0", "memory": "1GiB", "count": 2}]}, "gpus[0].count: no such member"),
        ({"gpus": [*GOOD["gpus"], *GOOD["gpus"]]}, "gpus[1].uuid: 'GPU-0' is listed twice"),
    ],
)
async def test_a_file_that_makes_no_sense_is_refused_and_the_member_named(file: Path, content: Any, problem: str):
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InventoryError) as caught:
        await GpuFile(file).read()
    assert caught.value.code == "gpu_inventory_invalid"
    assert f"FNGW_GPU_INVENTORY: {file}: {problem}" in caught.value.message


async def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InventoryError, match="No such file"):
        await GpuFile(tmp_path / "nothing.json").read()


async def test_a_change_is_seen_and_one_that_makes_no_sense_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
):
    gpus = GpuFile(file)
    before = await gpus.read()
    file.write_text("{")
    assert await gpus.read() == before and await gpus.read() == before
    assert caplog.text.count("is no JSON") == 1
    file.write_text('{"gpus": []}')
    seen = await gpus.read()
    assert seen.devices == () and "lists none" in seen.reason


# -- all of it ---------------------------------------------------------------------------------------------


async def test_what_is_declared_counts_else_what_the_engine_has(file: Path):
    declared = ControllerSettings(memory="2GiB", cpus=1.5, gpu_inventory=file)
    found = await inventory.choose(declared, ENGINE).read()
    assert found == Capacity(2048, 1500, (Device("GPU-0", "H100", 81920),))
    found = await inventory.choose(ControllerSettings(gpu_inventory=file), ENGINE).read()
    assert (found.memory_mib, found.milli_cpus) == (4096, None)


@pytest.mark.parametrize("wrong", [{"memory": "lots"}, {"memory": "0"}, {"cpus": 0}, {"cpus": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ControllerSettings(**wrong)


# -- this machine's memory ---------------------------------------------------------------------------------


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\n"}


def test_memory_is_the_machines(tmp_path: Path):
    assert host.memory(machine(tmp_path, MEMINFO)) == 16 << 20
    assert (host.memory() or 0) > 1 << 20  # this one has some, too


def test_memory_is_limited_by_the_tightest_group_around(tmp_path: Path):
    groups = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": f"{4 << 20}\n",
    }
    assert host.memory(machine(tmp_path, MEMINFO | groups)) == 4 << 20


def test_memory_is_limited_by_groups_of_version_one(tmp_path: Path):
    groups = {
        "proc/self/cgroup": "5:memory:/a\n4:cpu:/c\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{5 << 20}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory.max": "1\n",
    }
    assert host.memory(machine(tmp_path, MEMINFO | groups)) == 5 << 20


def test_memory_is_unknown_where_nothing_tells(tmp_path: Path):
    assert host.memory(tmp_path) is None
