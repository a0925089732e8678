"""What a request's head must be, by itself; on sockets: see tests/integration/gateway/corpus_refused.py."""

from __future__ import annotations

import pytest

from fngw.errors import FngwError
from fngw_gateway.strict import check, framing, origin_form


@pytest.mark.parametrize("host", ["t", "t:80", "t:", "", "[::1]:80", "a_b.c-d", "10.0.0.1", "x%20y"])
def test_hosts(host: str) -> None:
    check("1.1", b"GET", [(b"host", host.encode())])


@pytest.mark.parametrize("host", ["t/u", "t u", "u@t", "t:8x", "[::1", "::1", "t,u", "t?", "t#", "\xe9"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(FngwError, match="Host"):
        check("1.1", b"GET", [(b"host", host.encode("latin-1"))])


def test_a_urls_host_takes_the_place_of_the_header() -> None:
    fields = [(b"x", b"1"), (b"host", b"fake"), (b"host", b"too")]
    assert origin_form(b"GET", b"HTTP://real:1?q", fields) == b"/?q"
    assert fields == [(b"x", b"1"), (b"host", b"real:1")]


@pytest.mark.parametrize("url", [b"*", b"t:80", b"ftp://t/", b"http:///x", b"http://", b"http://u@t/", b"x"])
def test_targets_that_are_none(url: bytes) -> None:
    with pytest.raises(FngwError) as caught:
        origin_form(b"GET", url, [])
    assert caught.value.status == 400


def test_framing() -> None:
    fields = [(b"x", b"1"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    assert framing(fields) == b"content-length: 5\r\ntransfer-encoding: chunked\r\n"
    assert framing(fields[:1]) == b""
