"""``fngw gpus``: what the machine has for replicas, and who holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fngw.cli import report
from fngw.cli.options import AsJson, Token, Url, connected

EXAMPLES = {"gpus": ("fngw gpus", "fngw gpus --json")}


def gpus(url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Show the GPUs, who holds shares of them, and what is free; and the memory that replicas may ask for.

    With --json: {"gpus": [{"uuid", "model", "memory_mib", "mig", "fault", "free": {"share", "memory_mib"},
    "leases": [{"deployment", "replica", "share", "memory_mib"}]}], "reason": why there are none,
    "memory_mib" and "cpus": {"total", "free", "leases": [{"deployment", "replica", "amount"}]}, or null where they
    are not accounted}.
    """
    with connected(url, token) as client:
        found = client.gpus()
    if as_json:
        report.show_json(found)
    else:
        print("\n".join(_page(found)))


def _page(found: dict[str, Any]) -> Iterator[str]:
    if found["gpus"]:
        rows = [row for gpu in found["gpus"] for row in _rows(gpu)]
        yield report.table(("GPU", "MODEL", "MEMORY", "FREE", "HELD BY"), rows)
    else:
        yield f"no GPU: {found['reason']}" if found["reason"] else "no GPU"
    if found["memory_mib"]:
        yield f"memory: {_size(found['memory_mib']['free'])} of {_size(found['memory_mib']['total'])} free"
    if found["cpus"]:
        yield f"CPUs: {found['cpus']['free']:g} of {found['cpus']['total']:g} free"


def _rows(gpu: dict[str, Any]) -> list[tuple[str, ...]]:
    """One device: a line for each who holds some of it."""
    free = f"not used: {gpu['fault']}" if gpu["fault"] else _share(gpu["free"])
    holders = [f"{lease['deployment']} ({lease['replica']}): {_share(lease)}" for lease in gpu["leases"]] or ["-"]
    first = (gpu["uuid"], gpu["model"] or "-", _size(gpu["memory_mib"]), free, holders[0])
    return [first, *(("", "", "", "", holder) for holder in holders[1:])]


def _share(part: dict[str, Any]) -> str:
    return f"{part['share']:g}, {_size(part['memory_mib'])}" if part["share"] else "-"


def _size(mib: float) -> str:
    """Return an amount of memory for people.

    Example:
        >>> _size(1536)
        '1.5 GiB'
    """
    return f"{mib / 1024:.4g} GiB" if mib >= 1024 else f"{mib:g} MiB"
