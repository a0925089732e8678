"""What the machine has for replicas: memory, CPUs, GPUs.

``base``    the protocol and its values
``static``  GPUs from a file (FNGW_GPU_INVENTORY)
``nvml``    GPUs from NVIDIA's driver; ``fake_nvml``: the driver in memory, for tests
``host``    memory of this machine, or of the container that this runs in
``choose``  puts them together, as the settings and the engine say
"""

from __future__ import annotations

from fngw_controller.engines.base import EngineInfo
from fngw_controller.inventory.base import Gpus, Inventory
from fngw_controller.settings import ControllerSettings
from fngw_state.resources import MIB, WHOLE

__all__ = ["choose"]


def choose(settings: ControllerSettings, engine: EngineInfo) -> Inventory:
    """Return the inventory that the settings ask for.

    Args:
        settings: what is declared.
        engine: what runs replicas: where nothing is declared, it knows the machine's memory.
    """
    memory = settings.memory if settings.memory is not None else engine.memory
    return Inventory(
        memory_mib=None if memory is None else memory // MIB,
        milli_cpus=None if settings.cpus is None else int(settings.cpus * WHOLE),
        gpus=_gpus(settings),
    )


def _gpus(settings: ControllerSettings) -> Gpus:
    if settings.gpu_inventory is not None:
        from fngw_controller.inventory.static import GpuFile

        return GpuFile(settings.gpu_inventory)
    from fngw_controller.inventory.nvml import NvmlGpus

    return NvmlGpus()
