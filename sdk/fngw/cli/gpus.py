"""``fngw gpus``: what the machine has for replicas, and who holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fngw.cli import report
from fngw.cli.options import AsJson, Token, Url, connected

EXAMPLES = {"gpus": ("fngw gpus", "fngw gpus --json")}


def gpus(url: Url = None, token: Token = None, as_json: AsJson = False) -> None:
    """Show the GPUs, who holds shares of them, what is free, and what is used; and memory for replicas.

    With --json: {"gpus": [{"uuid", "model", "memory_mib", "mig", "fault", "free": {"share", "memory_mib"},
    "used": {"memory_mib", "percent"}, or null where the driver does not tell, "leases": [{"deployment", "replica",
    "share", "memory_mib", "used"}]}], "reason": why there are none, "memory_mib" and "cpus": {"total", "free",
    "leases": [{"deployment", "replica", "amount"}]}, or null where they are not accounted}.
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
        yield report.table(("GPU", "MODEL", "MEMORY", "FREE", "USED", "HELD BY"), rows)
    else:
        yield f"no GPU: {found['reason']}" if found["reason"] else "no GPU"
    if found["memory_mib"]:
        yield f"memory: {size_text(found['memory_mib']['free'])} of {size_text(found['memory_mib']['total'])} free"
    if found["cpus"]:
        yield f"CPUs: {found['cpus']['free']:g} of {found['cpus']['total']:g} free"


def _rows(gpu: dict[str, Any]) -> list[tuple[str, ...]]:
    """One device: a line for each who holds some of it."""
    free = f"not used: {gpu['fault']}" if gpu["fault"] else _share(gpu["free"])
    first = (gpu["uuid"], gpu["model"] or "-", size_text(gpu["memory_mib"]), free, use_text(gpu["used"]))
    holders = [_holder(lease) for lease in gpu["leases"]] or ["-"]
    return [(*first, holders[0]), *(("", "", "", "", "", holder) for holder in holders[1:])]


def _holder(lease: dict[str, Any]) -> str:
    text = f"{lease['deployment']} ({lease['replica']}): {_share(lease)}"
    return f"{text}; uses {use_text(lease['used'])}" if lease["used"] else text


def use_text(used: dict[str, Any] | None) -> str:
    """Return what is used of a device, for people.

    Example:
        >>> use_text({"memory_mib": 2048, "percent": 35}), use_text(None)
        ('2 GiB, 35%', '-')
    """
    if used is None:
        return "-"
    return size_text(used["memory_mib"]) + ("" if used["percent"] is None else f", {used['percent']}%")


def _share(part: dict[str, Any]) -> str:
    return f"{part['share']:g}, {size_text(part['memory_mib'])}" if part["share"] else "-"


def size_text(mib: float) -> str:
    """Return an amount of memory for people.

    Example:
        >>> size_text(1536)
        '1.5 GiB'
    """
    return f"{mib / 1024:.4g} GiB" if mib >= 1024 else f"{mib:g} MiB"
