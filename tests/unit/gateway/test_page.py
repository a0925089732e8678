"""The control API's page for people: complete, and nothing of it comes from elsewhere."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fngw_gateway.api import create_api, page
from fngw_gateway.settings import GatewaySettings

URL = "http://localhost:8000"


@pytest.fixture
def api(tmp_path: Path) -> Any:
    store: Any = SimpleNamespace()
    return create_api(store, GatewaySettings(data_dir=tmp_path, run_dir=tmp_path))


class Loads(HTMLParser):
    """Gathers what a browser would fetch by itself, and where links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[tuple[str, str | None]] = []
        self.links: set[str | None] = set()
        self.ids: set[str | None] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.fetched += [(tag, given[name]) for name in ("src", "srcset", "data", "action") if name in given]
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.fetched.append((tag, given.get("href")))
        if tag == "a":
            self.links.add(given.get("href"))


async def test_it_needs_nothing_from_elsewhere(api: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://gateway") as http:
        answer = await http.get("/-/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    read = Loads()
    read.feed(answer.text)
    assert read.fetched == []
    assert not re.search(r"url\(|@import", answer.text)
    assert {link for link in read.links if link and not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in read.links if link and link.startswith("#")} <= read.ids


def test_it_has_every_operation_and_all_that_each_takes(api: Any) -> None:
    document = api.openapi()
    text = page.render(document, URL)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            section = text.partition(f'<h2 id="{method.upper()}{path}">')[2].partition("<h2")[0]
            assert section, f"{method} {path}"
            assert operation["description"].split("`")[0].split("\n")[0] in section
            assert [
                p["name"] for p in operation.get("parameters", ()) if f"<code>{p['name']}</code>" not in section
            ] == []
    assert f"curl -X DELETE '{URL}/-/api/v1/deployments/{{name}}'" in unescape(text)
    assert "<code>prev_version</code><td>body<td>string or null<td>" in text


def test_what_it_shows_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    operation = {
        "description": hostile,
        "parameters": [{"name": hostile, "in": "query", "required": False, "schema": {"default": hostile}}],
        "responses": {"200": {}},
    }
    document = {"info": {"title": hostile, "version": hostile}, "paths": {f"/{hostile}": {"get": operation}}}
    assert "<script" not in page.render(document, URL)
