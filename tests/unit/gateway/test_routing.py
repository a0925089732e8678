"""Request paths and the longest prefix."""

from __future__ import annotations

import random
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw_gateway.proxy.routing import Routes, is_own, read_path, remove_dots

ROUTES = Routes([("/", "root"), ("/api", "api"), ("/api/v1", "v1"), ("/größe", "size"), ("/a/b", "ab")])


def routed(raw: bytes) -> str | None:
    read = read_path(raw)
    if read is None:
        return "refused"
    return "own" if is_own(read[1]) else ROUTES.match(read[1])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/", "root"),
        (b"/api", "api"),
        (b"/api/", "api"),
        (b"/api//x", "api"),
        (b"/apix", "root"),
        (b"/API", "root"),
        (b"/api/v1", "v1"),
        (b"/api/v1/deep/er", "v1"),
        (b"/api/v10", "api"),
        (b"/%61pi", "api"),
        (b"/api%2Fv1", "root"),
        (b"/api%2fv1/x", "root"),
        (b"/a%2Fb", "root"),
        (b"/api%252Fv1", "root"),
        (b"/gr%C3%B6%C3%9Fe/x", "size"),
        (b"/api/../a/b", "ab"),
        (b"/api/%2e%2E/a/b", "ab"),
        (b"/api/./v1", "v1"),
        (b"/api/v1/..", "api"),
        (b"/../../api", "api"),
        (b"/api/..%2fa", "api"),
        (b"//api", "root"),
        (b"/.api", "root"),
        (b"/...", "root"),
    ],
)
def test_longest_prefix_by_whole_segments(raw: bytes, expected: str) -> None:
    assert routed(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"/-",
        b"/-/",
        b"/-/api/v1",
        b"/%2d/api",
        b"/%2D",
        b"/x/../-/api",
        b"/x/%2e%2e/-/api",
        b"/./-/call/f/m",
        b"/-/x/../api",
        b"/../-/call/f/m",
    ],
)
def test_what_is_the_gateways_own(raw: bytes) -> None:
    assert routed(raw) == "own"


@pytest.mark.parametrize(
    "raw",
    [
        b"//-/api",
        b"///-/api",
        b"/%2F-/api",
        b"/-%2Fcall/f",
        b"/-%2f",
        b"/%2d%2Fcall/f",
        b"/x/..%2F-/api",
        b"/x%2F..%2F-/api",
        b"/.%2F-/api",
        b"//-",
        b"*",
        b"",
    ],
)
def test_what_is_never_routed(raw: bytes) -> None:
    assert routed(raw) == "refused"


@pytest.mark.parametrize("raw", [b"/-x", b"/--/", b"/a/-/b", b"/-.", b"/%2dx"])
def test_a_dash_elsewhere_is_a_path_like_others(raw: bytes) -> None:
    assert routed(raw) == "root"


def test_the_replica_gets_the_raw_path_without_dots() -> None:
    read = read_path(b"/%61pi/x%2Fy/../%7Ez/./")
    assert read == (b"/%61pi/%7Ez/", b"/api/~z/")


def test_no_route_without_a_root() -> None:
    routes = Routes([("/api", 1)])
    assert routes.match(b"/") is None
    assert routes.match(b"/other/api") is None
    assert Routes[int]().match(b"/x") is None


def test_the_longest_of_10_000_prefixes() -> None:
    """Some within others, up to five segments deep; compared with a search through all of them."""
    rng = random.Random(1)
    prefixes = {"/"}
    while len(prefixes) < 10_000:
        prefixes.add("/" + "/".join(f"{rng.choice('aA')}{rng.randrange(15)}" for _ in range(rng.randint(1, 5))))
    routes = Routes((prefix, prefix) for prefix in prefixes)

    def longest(path: str) -> str:
        return max((p for p in prefixes if p == "/" or path == p or path.startswith(p + "/")), key=len)

    tails = ["", "/", "x", "/x/y"]
    for prefix in rng.sample(sorted(prefixes), 300):
        path = prefix.rstrip("/") + rng.choice(tails) or "/"
        assert routes.match(path.encode()) == longest(path)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/Api", "upper"),
        (b"/api", "lower"),
        (b"/API", None),
        (b"/%41pi", "upper"),  # RFC 3986 section 6.2.2.2: unreserved characters, encoded or not, are the same
        (b"/%61pi", "lower"),
        (b"/a%2Fb", None),
        (b"/a%2fb/c", None),
        (b"/a/b", "two segments"),
        (b"/a b", "space"),
        (b"/a%20b/x", "space"),
        (b"/a%2520b", None),
        (b"/caf%C3%A9", "composed"),
        (b"/cafe%CC%81", None),  # canonically equal, but other bytes
    ],
)
def test_prefixes_that_differ_by_case_or_encoding(raw: bytes, expected: str | None) -> None:
    entries = {"/Api": "upper", "/api": "lower", "/a/b": "two segments", "/a b": "space", "/caf\u00e9": "composed"}
    read = read_path(raw)
    assert read is not None
    assert Routes(entries.items()).match(read[1]) == expected


def test_a_long_path_costs_no_more_than_the_deepest_route() -> None:
    assert ROUTES.match(b"/api" + b"/x" * 50_000) == "api"


# -- properties -------------------------------------------------------------------------------------------

SEGMENTS = [
    "",
    "-",
    ".",
    "..",
    "%2e",
    "%2E.",
    "%2e%2e",
    "%2d",
    "%2F",
    "%2f-",
    "-%2F",
    "..%2F-",
    "api",
    "v1",
    "call",
    "x",
]
paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=8).map(lambda s: "/" + "/".join(s))


def rfc3986(path: str) -> str:
    """§5.2.4, letter by letter."""
    left, out = path, ""
    while left:
        if left.startswith("../"):
            left = left[3:]
        elif left.startswith(("./", "/./")):
            left = left[2:]
        elif left == "/.":
            left = "/"
        elif left.startswith("/../"):
            left, out = left[3:], out.rpartition("/")[0]
        elif left == "/..":
            left, out = "/", out.rpartition("/")[0]
        elif left in (".", ".."):
            left = ""
        else:
            cut = left.find("/", 1)
            cut = len(left) if cut < 0 else cut
            left, out = left[cut:], out + left[:cut]
    return out


@given(
    st.lists(st.sampled_from(["", ".", "..", "a", "b.", "..c", "..."]), min_size=1).map(lambda s: "/" + "/".join(s))
)
def test_dots_are_resolved_as_the_rfc_says(path: str) -> None:
    assert remove_dots(path.encode()).decode() == rfc3986(path)


@given(paths)
def test_resolving_is_done_once_and_for_all(path: str) -> None:
    once = remove_dots(path.encode())
    assert remove_dots(once) == once
    assert once.startswith(b"/")


@given(paths)
def test_nothing_slips_into_the_gateways_own_paths_of_a_replica(path: str) -> None:
    """However a replica's server reads a forwarded path, it is not one under ``/-/``."""
    read = read_path(path.encode())
    if read is None or is_own(read[1]):
        return
    decoded = unquote_to_bytes(read[0])
    seen_as = {decoded, remove_dots(decoded), read[0], remove_dots(read[0])}
    seen_as |= {b"/" + seen.lstrip(b"/") for seen in seen_as}
    assert not any(is_own(seen) for seen in seen_as)


@given(paths, st.sampled_from(["/api", "/api/v1", "/a/b", "/größe"]))
def test_a_match_is_a_prefix_of_decoded_segments(path: str, prefix: str) -> None:
    read = read_path(path.encode())
    if read is None or is_own(read[1]):
        return
    segments = [unquote_to_bytes(s) for s in read[0].split(b"/")][1:]
    wanted = prefix.encode().split(b"/")[1:]
    assert (Routes([(prefix, True)]).match(read[1]) is True) == (segments[: len(wanted)] == wanted)
