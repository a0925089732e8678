"""NVIDIA's MPS: where its daemon runs, replicas that share a GPU run at the same time, each held to its share.

https://docs.nvidia.com/deploy/mps/ : clients of one GPU have to be of one user; a limit is keyed by UUID or number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fngw_controller.engines.base import ReplicaSpec
from fngw_state.resources import WHOLE

__all__ = ["find_pipes", "is_share", "variables"]

PIPE_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
DEFAULT_PIPES = "/tmp/nvidia-mps"
#: The daemon's own end: there while it runs.
CONTROL = "control"


def find_pipes(environ: Mapping[str, str]) -> Path | None:
    """Return the directory through which the MPS daemon of this machine is reached; None where none runs."""
    pipes = Path(environ.get(PIPE_VARIABLE) or DEFAULT_PIPES)
    return pipes if (pipes / CONTROL).exists() else None


def is_share(spec: ReplicaSpec) -> bool:
    """Whether a replica has less than a whole GPU."""
    return any(milli < WHOLE for milli, _ in spec.gpu_shares.values())


def variables(spec: ReplicaSpec) -> dict[str, str]:
    """Return what tells CUDA of the daemon and of the share; nothing for whole GPUs, or without a daemon."""
    if spec.mps is None or not is_share(spec):
        return {}
    milli = max(milli for milli, _ in spec.gpu_shares.values())
    limits = ",".join(f"{uuid}={mib}M" for uuid, (_, mib) in sorted(spec.gpu_shares.items()))
    return {
        PIPE_VARIABLE: str(spec.mps),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(max(1, milli * 100 // WHOLE)),
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": limits,
    }
