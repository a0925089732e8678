"""Say which GPUs this machine has; exit 1 where none can be used, before anything is built for them."""

from __future__ import annotations

import asyncio
import sys

from fngw_controller.inventory.nvml import NvmlGpus


def main() -> int:
    seen = asyncio.run(NvmlGpus().read())
    for device in seen.devices:
        print(f"{device.uuid}: {device.model}, {device.memory_mib} MiB {device.fault}".rstrip())
    usable = [device for device in seen.devices if not device.fault]
    if not usable:
        why = seen.reason or "none is without a fault"
        print(f"no GPU: `make test-gpu` needs a machine with an NVIDIA GPU ({why})", file=sys.stderr)
    return 0 if usable else 1


if __name__ == "__main__":
    sys.exit(main())
