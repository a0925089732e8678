"""``/-/metrics`` of a whole stack with two gateway processes: one answer for both, replicas included."""

from __future__ import annotations

import re
from typing import Any

import httpx

APP = """
import fngw


@fngw.deployment(name="NAME", num_replicas=2)
def f(request):
    return 1 / int(request.query_params.get("by", 1))
"""

LABEL = r'[a-z]+="[^"]*"'
LINE = re.compile(rf"# (HELP|TYPE) .+|[a-z_]+\{{{LABEL}(,{LABEL})*\}} \S+")


def samples(stack: Any) -> dict[str, float]:
    """One scrape, on a connection of its own: from either process."""
    text = httpx.get(f"{stack.url}/-/metrics", timeout=60).raise_for_status().text
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
    pairs = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
    return {key: float(value) for key, _, value in pairs}


def test_one_answer_for_all_gateways(installation: Any, unique: str, files: Any, wait: Any):
    stack = installation.up("process", "--workers", "2")
    folder = files({"metered_app.py": APP.replace("NAME", unique)})
    stack.fngw("deploy", str(folder / "metered_app.py"))
    for _ in range(60):
        assert httpx.get(f"{stack.url}/{unique}", timeout=60).status_code == 200
    assert httpx.get(f"{stack.url}/{unique}?by=0", timeout=60).status_code == 500
    wanted = {
        f'fngw_requests_total{{deployment="{unique}",code="2xx"}}': 60,
        f'fngw_requests_total{{deployment="{unique}",code="5xx"}}': 1,
        f'fngw_request_duration_seconds_count{{deployment="{unique}"}}': 61,
        f'fngw_requests_in_flight{{deployment="{unique}"}}': 0,
        f'fngw_requests_queued{{deployment="{unique}"}}': 0,
        f'fngw_replicas{{deployment="{unique}",state="READY"}}': 2,
    }

    def seen() -> list[dict[str, float]]:
        scrapes = [samples(stack) for _ in range(10)]
        return [{key: scrape.get(key, -1) for key in wanted} for scrape in scrapes]

    wait(lambda: seen() == [wanted] * 10, "ten scrapes with the sum over both processes")
    stack.fngw("delete", unique)
    wait(lambda: not [key for _ in range(5) for key in samples(stack) if unique in key], "the end of its series")
