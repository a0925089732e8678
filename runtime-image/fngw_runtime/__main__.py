"""``python -m fngw_runtime``: serve the one replica that ``$FNGW_REPLICA_DIR/replica.json`` describes."""

from __future__ import annotations

import sys

from fngw_runtime.process import main

if __name__ == "__main__":
    sys.exit(main())
