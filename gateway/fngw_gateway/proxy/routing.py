"""Request paths and the longest prefix. Pure; an immutable table that is swapped whole.

A path is read in two forms. The *path* is what the client sent, with dot segments resolved (RFC 3986 §5.2.4,
``%2e`` included): it goes to the replica. The *key* is the same with every segment decoded on its own, but for
``%2F``, which stays as it is: routes are compared with keys. So ``/%61pi`` is ``/api`` (equal by RFC 3986
§6.2.2.2), while ``/a%2Fb`` has one segment and never matches the route ``/a/b``.

What is the gateway's own is decided by the key: its first segment is ``-``. So ``/x/../-/api`` and ``/%2d/api``
*are* ``/-/api``. What only looks like it to someone who decodes once more or merges slashes (``//-/api``,
``/-%2Fapi``, ``/x/..%2F-/api``) is neither the gateway's nor forwarded: a replica has paths of its own under
``/-/``, where calls come in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

__all__ = ["Routes", "is_own", "read_path", "remove_dots"]

T = TypeVar("T")


class Routes(Generic[T]):
    """From route prefixes to anything; the longest prefix wins, whole segments only.

    Args:
        entries: pairs of a route prefix (``"/"``, ``"/api"``; plain text) and what it stands for.

    Example:
        >>> routes = Routes([("/", "all"), ("/api", "api")])
        >>> routes.match(b"/api/users"), routes.match(b"/apix")
        ('api', 'all')
    """

    __slots__ = ("_by_prefix", "_depth", "_root")

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        by_prefix = {prefix.encode(): value for prefix, value in entries}
        self._root: T | None = by_prefix.pop(b"/", None)
        self._by_prefix = by_prefix
        self._depth = max((prefix.count(b"/") for prefix in by_prefix), default=0)

    def match(self, key: bytes) -> T | None:
        """Return what the longest matching prefix stands for; never looks deeper than the deepest route."""
        best, get, end = self._root, self._by_prefix.get, 0
        for _ in range(self._depth):
            end = key.find(b"/", end + 1)
            hit = get(key if end < 0 else key[:end])
            if hit is not None:
                best = hit
            if end < 0:
                break
        return best


def read_path(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return ``(path, key)`` of a request's raw path, or None for one that is never routed."""
    if b"%" not in raw and b"/." not in raw and raw[:1] == b"/" and raw[:2] not in (b"/-", b"//"):
        return raw, raw  # nearly all of them
    if raw[:1] != b"/":
        return None  # `OPTIONS *`
    path = remove_dots(raw)
    key = b"/".join([_decode(segment) for segment in path.split(b"/")])
    if not is_own(key) and _looks_own(path):
        return None
    return path, key


def is_own(key: bytes) -> bool:
    """Whether a key is under ``/-``, which is the gateway's own."""
    return key[:2] == b"/-" and key[2:3] in (b"", b"/")


def remove_dots(raw: bytes) -> bytes:
    """Resolve the dot segments of an absolute path (RFC 3986 §5.2.4), percent-encoded ones too.

    Example:
        >>> remove_dots(b"/a/b/../%2E/c")
        b'/a/c'
    """
    segments = raw.split(b"/")[1:]
    kept: list[bytes] = []
    dots = None
    for segment in segments:
        dots = _dots(segment)
        if dots is None:
            kept.append(segment)
        elif dots == b".." and kept:
            kept.pop()
    if dots is not None:
        kept.append(b"")  # a path that ends in dots ends in a slash
    return b"/" + b"/".join(kept)


def _dots(segment: bytes) -> bytes | None:
    """Return ``.`` or ``..`` when the segment is one of them in any spelling."""
    if len(segment) > 6:
        return None
    plain = segment.lower().replace(b"%2e", b".")
    return plain if plain in (b".", b"..") else None


def _decode(segment: bytes) -> bytes:
    return unquote_to_bytes(segment).replace(b"/", b"%2F") if b"%" in segment else segment


def _looks_own(path: bytes) -> bool:
    """Whether the path would be under ``/-`` for someone who decodes ``%2F`` too, or merges slashes."""
    loose = remove_dots(unquote_to_bytes(path))
    return is_own(b"/" + loose.lstrip(b"/"))
