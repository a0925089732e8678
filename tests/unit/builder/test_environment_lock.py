"""Locks: one text for one environment, found again by digest and by request."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import BuildFailed
from fngw_builder.environment.lock import CondaPackage, LocalWheel, Lock, LockStore, PipPackage

CONDA = [
    CondaPackage("conda-forge", "linux-64", f"{name}-1-0.conda", name, "1", "0", 0, "0" * 64, depends=("b", "a"))
    for name in ("python", "openssl", "zlib")
]
PIP = [PipPackage(name, "1.0", ("sha256:" + "1" * 64,)) for name in ("six", "requests", "idna")]
WHEELS = [LocalWheel("x", "1.0", "wheels/x-1.0-py3-none-any.whl", "2" * 64)]


def lock(seed: int = 0) -> Lock:
    order = random.Random(seed)
    return Lock(
        "3.11", "linux-64", "2.36", None, tuple(order.sample(CONDA, 3)), tuple(order.sample(PIP, 3)), tuple(WHEELS)
    )


@given(st.integers())
def test_the_order_of_packages_does_not_matter(seed: int) -> None:
    assert lock(seed).digest == lock().digest


def test_the_text_is_read_back() -> None:
    assert Lock.from_text(lock().to_text()) == lock()
    assert lock().to_text().endswith("}\n") and '"version": 1' in lock().to_text()


def test_the_digest_is_the_same_for_ever() -> None:
    digest = "sha256:d44c2878e1c77bb81bf30c8255e45a21cf2ce291288c1724196fbe96f2837c88"
    assert lock().digest == digest, "a lock's text has changed: count up lock.VERSION, and read the old one still"


def test_lines_for_the_installer() -> None:
    assert PIP[0].requirement == f"six==1.0 --hash=sha256:{'1' * 64}"
    assert WHEELS[0].requirement == f"./wheels/x-1.0-py3-none-any.whl --hash=sha256:{'2' * 64}"
    url = PipPackage("x", "1", ("sha256:0",), "https://example.com/x-1-py3-none-any.whl")
    assert url.requirement == "x @ https://example.com/x-1-py3-none-any.whl --hash=sha256:0"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "conda": [], "pip": [{}]}'])
def test_what_is_no_lock(text: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        Lock.from_text(text)
    assert caught.value.code == "lock_invalid"


def test_a_store_finds_by_digest_and_request(tmp_path: Path) -> None:
    store = LockStore(tmp_path / "locks")
    assert store.newest("ab") is None
    digest = store.put(lock())
    assert store.put(lock(1)) == digest == lock().digest
    store.remember("ab", digest)
    assert store.newest("ab") == digest and store.get(digest) == lock()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["ab", f"{digest[7:]}.json"]


def test_a_pointer_to_a_lock_that_is_gone_counts_for_nothing(tmp_path: Path) -> None:
    store = LockStore(tmp_path)
    digest = store.put(lock())
    store.remember("ab", digest)
    (tmp_path / f"{digest[7:]}.json").unlink()
    assert store.newest("ab") is None
    with pytest.raises(BuildFailed, match="not in the data directory") as caught:
        store.get(digest)
    assert caught.value.code == "lock_missing"


def test_a_damaged_lock_is_not_built_from(tmp_path: Path) -> None:
    store = LockStore(tmp_path)
    digest = store.put(lock())
    (tmp_path / f"{digest[7:]}.json").write_text("{}")
    with pytest.raises(BuildFailed, match="is damaged"):
        store.get(digest)


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_what_names_no_lock(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BuildFailed, match="does not name a lock"):
        LockStore(tmp_path).get(digest)
