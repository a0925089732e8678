"""Where callbacks may go."""

from __future__ import annotations

import pytest

from fngw.errors import FngwError
from fngw_state.callback_urls import is_allowed, networks, resolve


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str):
    assert is_allowed(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public(address: str):
    assert not is_allowed(address)


def test_networks_can_be_allowed():
    allowed = networks("10.0.0.0/8, fd00::/8 192.168.1.7")
    assert all(is_allowed(a, allowed) for a in ("10.9.9.9", "fd00::1", "192.168.1.7", "::ffff:10.0.0.1", "8.8.8.8"))
    assert not any(is_allowed(a, allowed) for a in ("192.168.1.8", "127.0.0.1", "fc00::1"))
    assert networks("") == ()
    with pytest.raises(ValueError, match="10"):
        networks("10.0.0.0/99")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.org/", "callback_invalid"),
        ("https://", "callback_invalid"),
        ("example.org/x", "callback_invalid"),
        ("http://example.org:0/", "callback_invalid"),
        ("http://example.org:99999/", "callback_invalid"),
        ("http://[::1/", "callback_invalid"),
        ("http://me:secret@example.org/", "callback_invalid"),
        ("http://exa mple.org/", "callback_invalid"),
        ("http://example.org/\r\nX: 1", "callback_invalid"),
        ("http://example.org/" + "x" * 2048, "callback_invalid"),
        ("http://127.0.0.1:8000/", "callback_refused"),
        ("http://localhost/", "callback_refused"),
        ("http://[::ffff:127.0.0.1]/", "callback_refused"),
        ("http://2130706433/", "callback_refused"),  # 127.0.0.1 as one number
        ("http://0x7f.1/", "callback_refused"),
        ("http://0/", "callback_refused"),
        ("http://169.254.169.254/latest/meta-data", "callback_refused"),
        ("http://no-such-host.invalid/", "callback_unresolved"),
        ("http://" + "a" * 70 + ".example/", "callback_unresolved"),
    ],
)
async def test_callbacks_that_are_refused(url: str, code: str):
    with pytest.raises(FngwError) as caught:
        await resolve(url)
    assert (caught.value.code, caught.value.status) == (code, 422)


async def test_a_callback_that_is_allowed_says_where_to_connect():
    callback = await resolve("https://127.0.0.1/done?x=1", networks("127.0.0.0/8"))
    assert (callback.addresses, callback.port, callback.url.path) == (("127.0.0.1",), 443, "/done")
