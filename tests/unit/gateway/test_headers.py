"""Heads of requests to replicas and headers of their answers."""

from __future__ import annotations

from typing import Any

import pytest

from fngw_gateway.proxy.headers import RequestHead, answer_headers, is_at_capacity, read_request, request_id

Header = tuple[bytes, bytes]


def scope(*headers: Header, **more: Any) -> dict[str, Any]:
    return {"headers": list(headers), "scheme": "http", "client": ("10.0.0.9", 4321), **more}


def forwarded(head: RequestHead) -> list[Header]:
    lines = b"".join(head.lines).split(b"\r\n")[:-1]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def test_ordinary_headers_pass_in_their_order() -> None:
    head = read_request(scope((b"host", b"h:1"), (b"accept", b"*/*"), (b"cookie", b"a=1"), (b"accept", b"x/y")))
    assert forwarded(head)[:4] == [(b"host", b"h:1"), (b"accept", b"*/*"), (b"cookie", b"a=1"), (b"accept", b"x/y")]


def test_hop_by_hop_headers_end_here_and_those_that_connection_names() -> None:
    given = [
        (b"x-secret", b"1"),
        (b"connection", b"Keep-Alive, X-Secret , close"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"proxy-authorization", b"Basic x"),
        (b"upgrade", b"h2c"),
        (b"x-kept", b"2"),
        (b"expect", b"100-continue"),
        (b"host", b"h"),
    ]
    names = {name for name, _ in forwarded(read_request(scope(*given)))}
    own = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"}
    assert names == {b"x-kept", b"host", *own}


def test_a_request_without_a_host_gets_an_empty_one() -> None:
    assert (b"host", b"") in forwarded(read_request(scope()))


def test_connection_cannot_remove_the_host() -> None:
    head = read_request(scope((b"host", b"h"), (b"connection", b"host, x-forwarded-for")))
    assert (b"host", b"h") in forwarded(head)
    assert (b"x-forwarded-for", b"10.0.0.9") in forwarded(head)


def test_forwarded_headers_are_set_and_appended_to() -> None:
    given = [
        (b"host", b"example.org:8000"),
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"x-forwarded-for", b"2.2.2.2"),
        (b"x-forwarded-proto", b"gopher"),
        (b"x-forwarded-host", b"evil"),
    ]
    headers = forwarded(read_request(scope(*given, scheme="https")))
    assert [v for n, v in headers if n == b"x-forwarded-for"] == [b"1.1.1.1, 2.2.2.2, 10.0.0.9"]
    assert [v for n, v in headers if n == b"x-forwarded-proto"] == [b"https"]
    assert [v for n, v in headers if n == b"x-forwarded-host"] == [b"example.org:8000"]


def test_a_peer_on_the_unix_socket_has_no_address() -> None:
    assert (b"x-forwarded-for", b"unknown") in forwarded(read_request(scope(client=None)))


def test_private_headers_of_clients_are_dropped() -> None:
    head = read_request(scope((b"fngw-root-path", b"/evil"), (b"fngw-at-capacity", b"1"), (b"fngwx", b"1")))
    names = {name for name, _ in forwarded(head)}
    assert b"fngwx" in names
    assert not any(name.startswith(b"fngw-") for name in names)


@pytest.mark.parametrize("usable", [b"a", b"x" * 128, b"!~-{}"])
def test_a_usable_request_id_is_kept(usable: bytes) -> None:
    head = read_request(scope((b"x-request-id", usable)))
    assert head.request_id == usable == request_id([(b"x-request-id", usable)])
    assert [v for n, v in forwarded(head) if n == b"x-request-id"] == [usable]


@pytest.mark.parametrize("unusable", [b"", b"x" * 129, b"two words", b"caf\xc3\xa9", b"\x7f"])
def test_another_request_id_is_replaced(unusable: bytes) -> None:
    head = read_request(scope((b"x-request-id", unusable)))
    assert len(head.request_id) == 32
    int(head.request_id, 16)
    assert [v for n, v in forwarded(head) if n == b"x-request-id"] == [head.request_id]


def test_framing_is_read_and_not_passed_on() -> None:
    declared = read_request(scope((b"content-length", b"12")))
    assert (declared.length, declared.framed) == (12, True)
    chunked = read_request(scope((b"transfer-encoding", b"Chunked"), (b"expect", b"100-Continue")))
    assert (chunked.length, chunked.framed, chunked.coding, chunked.expects) == (None, True, b"chunked", True)
    twice = read_request(scope((b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")))
    assert twice.coding == b"gzip, chunked"
    assert not any(
        n in (b"content-length", b"transfer-encoding") for h in (declared, chunked) for n, _ in forwarded(h)
    )
    none = read_request(scope())
    assert (none.length, none.framed) == (0, False)


OWN = ((b"x-request-id", b"id"), (b"server-timing", b"queue;dur=1"))


def test_an_answer_keeps_its_headers_but_for_private_and_hop_by_hop_ones() -> None:
    given = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"server-timing", b"db;dur=5"),
        (b"fngw-user-error", b"1"),
        (b"x-request-id", b"other"),
        (b"date", b"then"),
        (b"connection", b"close, x-internal"),
        (b"x-internal", b"1"),
        (b"transfer-encoding", b"chunked"),
    ]
    assert answer_headers(200, given, OWN) == [*given[:5], *OWN]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_declares_no_length(status: int) -> None:
    assert answer_headers(status, [(b"content-length", b"3"), (b"etag", b"x")], ()) == [(b"etag", b"x")]


def test_at_capacity_is_a_503_with_the_private_header() -> None:
    assert is_at_capacity(503, [(b"fngw-at-capacity", b"1")])
    assert not is_at_capacity(200, [(b"fngw-at-capacity", b"1")])
    assert not is_at_capacity(503, [(b"retry-after", b"1")])
