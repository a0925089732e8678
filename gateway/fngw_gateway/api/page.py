"""The control API described on one page of HTML. Pure; no script, nothing from elsewhere: it works offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["render"]

Schema = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentcolor 18%, transparent) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 3rem 0 0 }
nav { columns: 22rem; margin: 1.5rem 0 } nav a { display: block; text-decoration: none; white-space: nowrap }
code, pre { font: .875em/1.5 ui-monospace, monospace }
pre { border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; white-space: pre-wrap }
b { display: inline-block; min-width: 4rem; font: 700 .8em ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid var(--line); padding: .25rem 1rem .25rem 0; text-align: left }
small { opacity: .7 }
"""


def render(api: Schema, url: str) -> str:
    """Return the page.

    Args:
        api: an OpenAPI document, version 3.
        url: the gateway's, for examples.

    Example:
        >>> render(app.openapi(), "http://localhost:8000").startswith("<!doctype html>")
        True
    """
    info = api["info"]
    title = f"{escape(info['title'])} <small>{escape(info['version'])}</small>"
    operations = [(method.upper(), path, op) for path, item in api["paths"].items() for method, op in item.items()]
    links = "".join(f'<a href="#{_anchor(m, p)}"><b>{m}</b> <code>{escape(p)}</code></a>' for m, p, _ in operations)
    sections = "".join(_operation(method, path, op, api, url) for method, path, op in operations)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{title}</h1>{_prose(info.get('description', ''))}"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p><nav>{links}</nav>{sections}</html>\n'
    )


def _operation(method: str, path: str, op: Schema, api: Schema, url: str) -> str:
    head = f'<h2 id="{_anchor(method, path)}"><b>{method}</b> <code>{escape(path)}</code></h2>'
    parameters = [
        (p["name"], p["in"], p["schema"], p["required"], p.get("description", "")) for p in op.get("parameters", ())
    ]
    body = _body(op, api)
    fields = [(name, "body", schema, needed, schema.get("description", "")) for name, schema, needed in body]
    return (
        head
        + _prose(op.get("description", ""))
        + _table(parameters + fields)
        + _example(method, url + path, op, body)
    )


def _body(op: Schema, api: Schema) -> list[tuple[str, Schema, bool]]:
    """The members of a request's JSON: name, schema, whether it is required."""
    content = op.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    needed = schema.get("required", ())
    return [(name, member, name in needed) for name, member in schema.get("properties", {}).items()]


def _table(rows: list[tuple[str, str, Schema, bool, str]]) -> str:
    if not rows:
        return ""
    lines = (
        f"<tr><td><code>{escape(name)}</code><td>{where}<td>{escape(_type(schema))}"
        f"<td>{'required' if needed else _default(schema)}<td>{_inline(text)}"
        for name, where, schema, needed, text in rows
    )
    return f"<table><tr><th>name<th>in<th>type<th>default<th>{''.join(lines)}</table>"


def _type(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _default(schema: Schema) -> str:
    return f"<code>{escape(json.dumps(schema['default']))}</code>" if "default" in schema else "–"


def _example(method: str, url: str, op: Schema, body: list[tuple[str, Schema, bool]]) -> str:
    """A command to paste, and the status that it is answered with."""
    query = "&".join(f"{p['name']}={{…}}" for p in op.get("parameters", ()) if p["in"] == "query" and p["required"])
    words = ["curl"]
    if method == "HEAD":
        words.append("--head")
    elif method != "GET":
        words.append(f"-X {method}")
    if "requestBody" in op:
        shown = {name: "…" for name, _, needed in body if needed}
        words.append(f"-H 'Content-Type: application/json' -d '{json.dumps(shown, ensure_ascii=False)}'")
    words.append(f"'{url}{'?' + query if query else ''}'")
    answers = ", ".join(status for status in op["responses"] if status < "400")
    return f"<pre>{escape(' '.join(words))}\n# {escape(answers)}</pre>"


def _anchor(method: str, path: str) -> str:
    return escape(f"{method}{path}", quote=True)


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in _paragraphs(text))


def _paragraphs(text: str) -> Iterator[str]:
    return (paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip())


def _inline(text: str) -> str:
    """Text with ``code`` in it, as docstrings write it."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(text, quote=False))
