"""What was solved: every package of an environment, by version and hash. Written down once, built from for ever.

A lock holds no addresses: where packages come from is a matter of `sources`, and the same lock is the same text
wherever it was solved. It is named by its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from fngw.errors import BuildFailed

VERSION = 1
SOLVE_AGAIN = "deploy with --upgrade, which solves the requirements anew"


@dataclass(frozen=True)
class CondaPackage:
    """One conda package: what is needed to fetch, check and link it.

    Args:
        channel: as the user wrote it; `Sources` knows its address.
        subdir: the channel's folder that it lies in: the platform's, or ``noarch``.
        fn: the file's name.
        noarch: ``"python"``, ``"generic"`` or None.
        python_site_packages_path: of a Python that says where its packages lie.
        depends, constrains: as in the repodata.
    """

    channel: str
    subdir: str
    fn: str
    name: str
    version: str
    build: str
    build_number: int
    sha256: str
    md5: str | None = None
    size: int | None = None
    noarch: str | None = None
    python_site_packages_path: str | None = None
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()

    @property
    def sort_key(self) -> tuple[str, str]:
        return self.name, self.fn


@dataclass(frozen=True)
class PipPackage:
    """One wheel from an index, or from a URL that the user gave.

    Args:
        name: normalised, as in PEP 503.
        hashes: ``"sha256:…"``, of every file that may be installed.
        url: for ``name @ https://…`` only, as the user wrote it, without the fragment.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    url: str | None = None

    @property
    def requirement(self) -> str:
        """The line that asks pip, or uv, for exactly this."""
        what = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return " ".join([what, *(f"--hash={value}" for value in self.hashes)])

    @property
    def sort_key(self) -> tuple[str, str]:
        return self.name, self.version


@dataclass(frozen=True)
class LocalWheel:
    """One wheel that lies in the bundle.

    Args:
        path: relative to the bundle's root, ``"wheels/x-1.0-py3-none-any.whl"``.
        sha256: of the file, 64 hex digits.
    """

    name: str
    version: str
    path: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The line that asks pip, or uv, for exactly this, with the bundle's root as current folder."""
        return f"./{self.path} --hash=sha256:{self.sha256}"

    @property
    def sort_key(self) -> tuple[str, str]:
        return self.name, self.path


@dataclass(frozen=True)
class Lock:
    """An environment, completely. The order of the packages does not matter.

    Args:
        python: ``"X.Y"``.
        subdir, glibc, cuda: of the target that it was solved for.
        conda: every conda package, Python included; empty: the base's Python is used.
        pip: what is installed on top, from indexes and URLs.
        wheels: what is installed on top, from the bundle.
    """

    python: str
    subdir: str
    glibc: str
    cuda: str | None = None
    conda: tuple[CondaPackage, ...] = ()
    pip: tuple[PipPackage, ...] = ()
    wheels: tuple[LocalWheel, ...] = ()

    def __post_init__(self) -> None:
        for name in ("conda", "pip", "wheels"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name), key=lambda package: package.sort_key)))

    @cached_property
    def digest(self) -> str:
        """The lock's name: ``"sha256:…"`` of its text."""
        return digest_of(self.to_text())

    def to_text(self) -> str:
        """Return the canonical text: JSON, sorted, indented, with a newline at its end."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the lock that ``to_text`` wrote.

        Raises:
            BuildFailed: ``lock_invalid``.
        """
        try:
            data = json.loads(text)
            version = data.pop("version")
            if version != VERSION:
                raise ValueError(f"it is of version {version!r}, and this fngw reads {VERSION}")
            return cls(
                conda=tuple(CondaPackage(**_tuples(p)) for p in data.pop("conda")),
                pip=tuple(PipPackage(**_tuples(p)) for p in data.pop("pip")),
                wheels=tuple(LocalWheel(**p) for p in data.pop("wheels")),
                **data,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BuildFailed(f"a lock cannot be read: {error}", code="lock_invalid", hint=SOLVE_AGAIN) from None


def digest_of(text: str) -> str:
    """Return the name of a lock's text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


class LockStore:
    """Locks by their digests, and by the requests that they answer.

    Args:
        folder: ``<data>/locks``; made when needed.

    Example:
        >>> store = LockStore(data / "locks")
        >>> digest = store.put(lock)
        >>> store.remember("5f0c…", digest)
        >>> store.get(store.newest("5f0c…"))
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, lock: Lock) -> str:
        """Store a lock and return its digest. Storing it again changes nothing."""
        text = lock.to_text()
        digest = digest_of(text)
        path = self._path(digest)
        if not path.exists():
            _write(path, text)
        return digest

    def get(self, digest: str) -> Lock:
        """Return a stored lock.

        Raises:
            BuildFailed: ``lock_missing``: it is not there, or not what its digest says; ``lock_invalid``.
        """
        try:
            text = self._path(digest).read_text("utf-8")
        except FileNotFoundError:
            text = ""
        if digest_of(text) != digest:
            state = "is damaged" if text else "is not in the data directory"
            raise BuildFailed(f"the lock {digest} {state}", code="lock_missing", hint=SOLVE_AGAIN)
        return Lock.from_text(text)

    def newest(self, request: str) -> str | None:
        """Return the digest that was last remembered for a request, if its lock is still there."""
        try:
            digest = self._pointer(request).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        return digest if self._path(digest).exists() else None

    def remember(self, request: str, digest: str) -> None:
        """Let ``newest(request)`` be ``digest`` from now on.

        Args:
            request: hex digits that name what was asked for; see `Requirements.key`.
        """
        _write(self._pointer(request), digest + "\n")

    def _path(self, digest: str) -> Path:
        kind, _, hexadecimal = digest.partition(":")
        if kind != "sha256" or len(hexadecimal) != 64 or not _is_hex(hexadecimal):
            raise BuildFailed(f"{digest!r} does not name a lock", code="lock_missing", hint=SOLVE_AGAIN)
        return self._folder / f"{hexadecimal}.json"

    def _pointer(self, request: str) -> Path:
        if not _is_hex(request):
            raise ValueError(f"{request!r} is not made of hex digits")
        return self._folder / "by-request" / request


def _is_hex(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789abcdef")


def _write(path: Path, text: str) -> None:
    """Make the file appear with all of its content, whoever else does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
