"""``python -m fngw_runtime``: serve the one replica that ``$FNGW_REPLICA_DIR/replica.json`` describes."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    gc.disable()  # until all is imported: see `lifecycle.Replica._load`
    from fngw_runtime.process import main

    sys.exit(main())
