"""Files by content, and ids of calls."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fngw_state.call_ids import is_call_id, new_call_id
from fngw_state.payloads import Payloads, digest_of


def test_a_body_is_written_once_and_read(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path / "p")
    digest = digest_of(b"body")
    payloads.write(digest, b"body")
    first = payloads.path(digest).stat()
    payloads.write(digest, b"body")
    assert payloads.path(digest).stat().st_ino == first.st_ino
    assert payloads.read(digest) == b"body"
    assert list(payloads.digests()) == [digest]
    assert not list(tmp_path.rglob(".new-*"))


def test_only_the_unwanted_is_removed(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path)
    digest = digest_of(b"body")
    payloads.write(digest, b"body")
    assert not payloads.remove(digest, lambda: False)
    assert payloads.read(digest) == b"body"
    assert payloads.remove(digest, lambda: True)
    with pytest.raises(FileNotFoundError):
        payloads.read(digest)


def test_who_writes_waits_for_who_removes(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path)
    digest = digest_of(b"body")
    payloads.write(digest, b"body")
    writer = threading.Thread(target=payloads.write, args=(digest, b"body"))

    def unwanted() -> bool:
        writer.start()  # it finds the file under removal, and must not take it for there
        writer.join(0.05)
        assert writer.is_alive()
        return True

    assert payloads.remove(digest, unwanted)
    writer.join(60)
    assert payloads.read(digest) == b"body"


@pytest.mark.parametrize("name", ["sha256:../../x", "x", "sha256:" + "g" * 64])
def test_a_name_that_is_no_digest_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        Payloads(tmp_path).path(name)


def test_ids_sort_by_age_and_are_all_different() -> None:
    ids = [new_call_id(at) for at in (0.0, 1.0, 1.001, 1_800_000_000.0)]
    assert ids == sorted(ids)
    assert len({new_call_id(1.0) for _ in range(1000)}) == 1000
    assert all(is_call_id(i) and len(i) == 26 for i in ids)


@pytest.mark.parametrize("text", ["", "x", "8" + "0" * 25, "0" * 27, "o" * 26, "0" * 25 + "\n"])
def test_what_is_no_id(text: str) -> None:
    assert not is_call_id(text)
