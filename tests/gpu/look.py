"""Say which GPUs this machine has; exit 1 where it has none, before anything is built for them."""

from __future__ import annotations

import asyncio
import sys

from fngw_controller.inventory.nvml import NvmlGpus


def main() -> int:
    seen = asyncio.run(NvmlGpus().read())
    for device in seen.devices:
        print(f"{device.uuid}: {device.model}, {device.memory_mib} MiB {device.fault}".rstrip())
    if not seen.devices:
        print(f"no GPU: `make test-gpu` needs a machine with an NVIDIA GPU ({seen.reason})", file=sys.stderr)
    return 0 if seen.devices else 1


if __name__ == "__main__":
    sys.exit(main())
