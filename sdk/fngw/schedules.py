"""Schedules at the gateway: calls of a deployment by the clock, besides those that its own options ask for.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import base64
from typing import Any, Dict, List, Tuple
from urllib.parse import quote

from fngw.protocol import API_PREFIX, DEFAULT_METHOD, encode_frame
from fngw.submitting import ask

__all__ = ["list_schedules", "put_schedule", "remove_schedule"]


def list_schedules() -> List[Dict[str, Any]]:
    """Return all schedules, those of deployments' options included.

    Raises:
        Unreachable, Unauthorized: the gateway does not answer, or wants its token.
    """
    return list(ask("GET", f"{API_PREFIX}/schedules")["schedules"])


def put_schedule(
    name: str,
    deployment: str,
    cron: str,
    arguments: Tuple[Any, ...] = (),
    *,
    method: str = DEFAULT_METHOD,
    timezone: str = "UTC",
    missed: str = "skip",
) -> Dict[str, Any]:
    """Call a deployment by the clock from now on; return the schedule.

    Args:
        name: the schedule's.
        deployment: what is called.
        cron: when.
        arguments: plain data, which every Python reads.
        method: of the deployment.
        timezone: where the clock hangs.
        missed: what becomes of ticks while nobody was there: ``skip`` or ``once``.

    Raises:
        DeploymentNotFound: there is none of this name.
        ValidationError: a value that cannot work.
    """
    frame = b"".join(encode_frame((arguments, {}), protocol=4))
    wanted = {
        "deployment": deployment,
        "cron": cron,
        "timezone": timezone,
        "missed": missed,
        "method": method,
        "frame": base64.b64encode(frame).decode(),
    }
    return ask("PUT", f"{API_PREFIX}/schedules/{quote(name, safe='')}", wanted)


def remove_schedule(name: str) -> None:
    """Forget a schedule.

    Raises:
        FngwError: there is none of this name (``schedule_not_found``).
    """
    ask("DELETE", f"{API_PREFIX}/schedules/{quote(name, safe='')}")
