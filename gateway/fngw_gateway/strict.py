"""What a request's head must be besides what the parser sees to: its version, its Host, its target. Pure.

Each rule is one that the RFCs lay on servers (9112 §2.6, §3.2, §6.1), and one that two readers of the same bytes
have disagreed on: who is meant, or where the request ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fngw_gateway.proxy import problems

__all__ = ["check", "framing", "origin_form"]

Header = tuple[bytes, bytes]

#: RFC 3986 §3.2.2 and §3.2.3: a name or an address, and a port. Empty where a URL has no host.
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def check(version: str, method: bytes, fields: Iterable[Header]) -> None:
    """Refuse a head that means different things to different readers.

    Args:
        version: of HTTP, as the parser has it.
        method: the request's.
        fields: names in lower case.

    Raises:
        FngwError: why.
    """
    hosts = [value for name, value in fields if name == b"host"]
    if version != "1.1":
        _check_older(version, fields)
    elif not hosts:
        raise problems.bad_request("a request of HTTP/1.1 needs a Host header", "add one")
    if len(hosts) > 1:
        raise problems.bad_request("the request has several Host headers", "send one")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise problems.bad_request("the Host header names no host", "send a name or an address, and a port")
    if method == b"CONNECT":
        raise problems.bad_request("CONNECT is for proxies that open tunnels", "ask for a path")


def _check_older(version: str, fields: Iterable[Header]) -> None:
    if version == "2.0":
        raise problems.version_not_supported(version)
    if version != "1.0":
        raise problems.bad_request(f"HTTP/{version} is not spoken here", "use HTTP/1.1")
    if any(name == b"transfer-encoding" for name, _ in fields):
        raise problems.bad_request("HTTP/1.0 knows no Transfer-Encoding", "use HTTP/1.1, or Content-Length")


def origin_form(method: bytes, url: bytes, fields: list[Header]) -> bytes:
    """Return a request's target as a path; the host that it names takes the place of ``Host``.

    Args:
        method: the request's.
        url: its target, which is no path already.
        fields: names in lower case; changed in place.

    Raises:
        FngwError: it is none that a server is asked for.

    Example:
        >>> fields = [(b"host", b"other")]
        >>> origin_form(b"GET", b"http://real/f?x", fields), fields
        (b'/f?x', [(b'host', b'real')])
    """
    if url == b"*" and method == b"OPTIONS":
        return url
    absolute = ABSOLUTE.fullmatch(url)
    if absolute is None or not HOST.fullmatch(absolute[1]):
        hint = "begin it with a slash, or with http:// and a host"
        raise problems.bad_request("the request's target is neither a path nor a URL", hint)
    fields[:] = [*((name, value) for name, value in fields if name != b"host"), (b"host", absolute[1])]
    return absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]


def framing(fields: Iterable[Header]) -> bytes:
    """Return the header lines that say where the request's body ends; empty when it has none."""
    return b"".join(b"%b: %b\r\n" % field for field in fields if field[0] in _FRAMING)
