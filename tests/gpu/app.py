"""What the checks deploy. It takes GPU memory, multiplies matrices, and tells where it is."""

import os
import sys
import time

import fngw

if "TORCH_FOLDER" in os.environ:  # another environment's: behind this one's own packages, of which it has others
    sys.path.append(os.environ["TORCH_FOLDER"])


@fngw.deployment(max_concurrent_queries=1, graceful_shutdown_timeout_s=5)
class Share:
    def __init__(self):
        import torch

        self.torch = torch
        self.kept = []
        self.matrix = torch.rand(4096, 4096, device="cuda", dtype=torch.float16)
        self.burn(1.0)  # the libraries that do it are loaded at the first time

    def __call__(self, request):
        query = request.query_params
        if "keep" in query:
            return self.keep(int(query["keep"]))
        if "seconds" in query:
            return self.burn(float(query["seconds"]))
        return self.place()

    def place(self):
        """The device as CUDA names it, and as the variables do."""
        uuid = str(self.torch.cuda.get_device_properties(0).uuid)
        env = {name: text for name, text in os.environ.items() if name.startswith(("CUDA_", "NVIDIA_"))}
        return {"pid": os.getpid(), "count": self.torch.cuda.device_count(), "uuid": uuid, "env": env}

    def burn(self, seconds):
        """Multiply for so long; how often that was."""
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(10):
                self.matrix @ self.matrix
            self.torch.cuda.synchronize()
            count += 10
        return {"pid": os.getpid(), "count": count}

    def keep(self, mib):
        """Take so much memory, and keep it; whether there was so much."""
        try:
            self.kept.append(self.torch.ones(mib << 20, dtype=self.torch.uint8, device="cuda"))
        except self.torch.cuda.OutOfMemoryError as error:
            return {"pid": os.getpid(), "kept": False, "why": str(error)}
        return {"pid": os.getpid(), "kept": True}
