"""Which addresses a callback may go to: public ones, and those of networks that a setting allows.

A callback is a request that somebody else makes this machine send. So the name in its URL is resolved, and every
address that it has must be public. Whoever sends must connect to an address from here, not to the name: it might be
resolved to another one a moment later (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

from fngw.errors import FngwError, ValidationError

__all__ = ["Callback", "is_allowed", "networks", "resolve"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2048
RESOLVE_S = 5.0
ALLOW_HINT = "FNGW_CALLBACK_ALLOW of the server lists networks that are allowed besides public ones"
#: IPv6 addresses in which an IPv4 one travels on (RFC 6052 §2.1).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Callback:
    """Where a callback goes: the parts of its URL, and the addresses that were checked, all of them allowed."""

    url: SplitResult
    addresses: tuple[str, ...]

    @property
    def port(self) -> int:
        return self.url.port or (443 if self.url.scheme == "https" else 80)


def networks(text: str) -> tuple[Network, ...]:
    """Return networks from a list such as ``"10.0.0.0/8, fd00::/8, 192.168.1.7"``.

    Raises:
        ValueError: one is no network.
    """
    return tuple(ipaddress.ip_network(part) for part in text.replace(",", " ").split())


def is_allowed(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Whether a callback may go to an address.

    Args:
        address: as text; a zone (``%eth0``) is left out of account.
        allowed: networks besides the public ones.

    Example:
        >>> is_allowed("93.184.215.14"), is_allowed("::ffff:127.0.0.1")
        (True, False)
        >>> is_allowed("10.1.2.3", networks("10.0.0.0/8"))
        True
    """
    found = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if any(found in network for network in allowed):
        return True
    inner = _inner(found)
    return (
        found.is_global
        and not found.is_multicast
        and (inner is None or (inner.is_global and not inner.is_multicast))
    )


def _plain(address: Address) -> Address:
    """An IPv4 address in IPv6's clothes (``::ffff:127.0.0.1``) without them: so the kernel takes it."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _inner(address: Address) -> IPv4Address | None:
    """The IPv4 address that a tunnel's or translator's IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.sixtofour or (teredo[1] if teredo else None)


async def resolve(url: str, allowed: Sequence[Network] = ()) -> Callback:
    """Check a callback's URL and resolve its host.

    Args:
        url: what ``Fngw-Callback-Url`` says.
        allowed: networks besides the public ones.

    Raises:
        ValidationError: it is no such URL (``callback_invalid``), or leads where it must not
            (``callback_refused``).
        FngwError: its host cannot be resolved now (``callback_unresolved``).
    """
    parts = _parse(url)
    host = parts.hostname or ""
    callback = Callback(parts, await _addresses(host))
    refused = [address for address in callback.addresses if not is_allowed(address, allowed)]
    if refused:
        text = f"the callback's host {host} is at {refused[0]}, which is not a public address"
        raise ValidationError(text, code="callback_refused", hint=ALLOW_HINT)
    return callback


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # what urlsplit says of a bad port or bracket
        good = False
    if not good or len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        hint = f"http:// or https:// with a host, at most {LONGEST_URL} characters, all of them visible ASCII"
        raise ValidationError(
            f"the callback's URL {url[:200]!r} makes no sense", code="callback_invalid", hint=hint
        )
    if parts.username is not None:
        hint = "leave it out: callbacks are signed (Fngw-Signature)"
        raise ValidationError("the callback's URL has a user in it", code="callback_invalid", hint=hint)
    return parts


async def _addresses(host: str) -> tuple[str, ...]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        text = f"the callback's host {host!r} cannot be resolved: {error or 'no answer in time'}"
        hint = "check the name; it has to be known where fngw runs"
        raise FngwError(text, code="callback_unresolved", status=422, hint=hint) from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
