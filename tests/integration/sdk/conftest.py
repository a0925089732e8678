"""A fake gateway over real sockets, and this process told where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fngw import endpoint, transport

from .fake_gateway import FakeGateway, serving


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    with serving(FakeGateway(), tmp_path) as started:
        monkeypatch.setenv("FNGW_URL", started.url)
        yield started
        transport.close()
        endpoint.choose(None)
