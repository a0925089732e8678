"""Two replicas that share one GPU, each with half of it. Needs a machine with an NVIDIA GPU.

fngw deploy examples/gpu_share/app.py
curl 'http://localhost:8000/gpu_share?seconds=2' & curl 'http://localhost:8000/gpu_share?seconds=2'; wait
fngw gpus
fngw deploy examples/gpu_share/app.py --set num_gpus=0.25 --set num_replicas=4
"""

import os
import time

import fngw


@fngw.deployment(
    route_prefix="/gpu_share",
    num_gpus=0.5,
    num_replicas=2,
    gpu_policy="warn",
    max_concurrent_queries=1,
    pip=["torch"],
)
class Multiplier:
    """Multiplies matrices for some seconds, and says how often it could, where."""

    def __init__(self):
        import torch

        self.cuda = torch.cuda
        self.matrix = torch.rand(2048, 2048, device="cuda", dtype=torch.float16)

    def __call__(self, request):
        seconds = min(10.0, float(request.query_params.get("seconds", "1")))
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(20):
                self.matrix @ self.matrix
            self.cuda.synchronize()
            count += 20
        return {"multiplications": count, "gpu": self.cuda.get_device_name(), "process": os.getpid()}
