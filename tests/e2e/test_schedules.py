"""A deployment with a schedule is called by the clock, through a whole fngw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from fngw_state import keys

CODE = """
import fngw

@fngw.deployment(name={name!r}, schedule="0 0 1 1 *", schedule_missed="once", route_prefix={route!r})
def tick({arguments}):
    return "ticked"

tick.deploy()
"""


@pytest.mark.parametrize(("routed", "arguments"), [(True, "request"), (False, "")])
def test_a_deployments_schedule_makes_calls(
    process_stack: Any, unique: str, wait: Callable[..., Any], routed: bool, arguments: str
) -> None:
    route = f"/{unique}" if routed else None
    done = process_stack.python(CODE.format(name=unique, route=route, arguments=arguments))
    assert done.returncode == 0, done.stderr
    with redis.Redis.from_url(process_stack.redis_url) as client:
        wait(lambda: client.hexists(keys.SCHEDULE_TICKS, f"@{unique}"), "the schedule to be seen")
        client.hset(keys.SCHEDULE_TICKS, f"@{unique}", "0")  # as if no dispatcher had run since 1970

    with process_stack.http as http:

        def finished() -> list[dict[str, Any]]:
            calls = http.get("/-/calls", params={"deployment": unique}).json()["calls"]
            return [call for call in calls if call["status"] == "finished"]

        (call,) = wait(finished, "its call")
    assert call["result_status"] == 200
