"""What all tests share."""

from __future__ import annotations

import os

# Rich and Click look at these; tests must read the same on every machine.
os.environ.pop("FORCE_COLOR", None)
os.environ["NO_COLOR"] = "1"
for _name in [n for n in os.environ if n.startswith("FNGW_")]:
    del os.environ[_name]
