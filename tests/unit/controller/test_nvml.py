"""GPUs through NVML: without it, and with this machine's own, if it has one."""

from __future__ import annotations

import inspect
import sys

import pytest

from fngw_controller.inventory import nvml
from fngw_controller.inventory.fake_nvml import FakeNvml
from fngw_controller.inventory.nvml import NvmlGpus


async def test_without_the_library_there_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvml, "DRIVER", None)  # this process itself: it is there
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (await NvmlGpus().read()).reason == "nvidia-ml-py is not installed"


async def test_without_a_driver_the_library_is_not_even_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvml, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert (await NvmlGpus().read()).reason.startswith("NVML fails: libno-such-driver.so.1")
    assert "pynvml" not in sys.modules


async def test_this_machines_own_driver_or_its_absence():
    seen = await NvmlGpus().read()
    assert seen.devices or seen.reason
    assert all(device.memory_mib > 0 for device in seen.devices)


def test_the_fake_has_nothing_that_the_library_has_not():
    import pynvml

    own = {name for name in dir(FakeNvml) if name.lower().startswith("nvml")}
    assert {name for name in own if not hasattr(pynvml, name)} == set()
    for name in own:
        if inspect.isfunction(getattr(FakeNvml, name)):
            given = len(inspect.signature(getattr(FakeNvml, name)).parameters) - 1
            inspect.signature(getattr(pynvml, name)).bind(*range(given))
