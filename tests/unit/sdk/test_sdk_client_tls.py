"""Whose certificates the control API's client accepts."""

from __future__ import annotations

import pytest

from fngw import client
from fngw.endpoint import Endpoint


@pytest.mark.parametrize(
    "endpoint",
    [Endpoint("http://localhost:8000"), Endpoint("https://gateway.example.com", socket="/run/gateway.sock")],
)
def test_without_tls_no_authorities_are_loaded_as_that_takes_longer_than_a_command(endpoint):
    context = client._trusted(endpoint)
    assert context.cert_store_stats()["x509_ca"] == 0
    assert context.check_hostname  # should TLS ever be spoken with it, it refuses


def test_with_tls_the_known_authorities_are_trusted():
    assert client._trusted(Endpoint("https://gateway.example.com")) is True
