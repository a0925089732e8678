"""WebSockets through a whole gateway to a real replica process, spoken by the ``websockets`` library."""

from __future__ import annotations
