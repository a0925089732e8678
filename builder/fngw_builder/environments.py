"""The environments that deployments ask for: locked once, built once, shared by all that lock alike.

An environment becomes an image of its own, which the code is layered on, or a folder for local processes. Many
deploys that want the same one at once wait for the first of them to make it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uv import find_uv_bin

from fngw import protocol
from fngw_builder import bundle, environment_image, host, images
from fngw_builder import plan as planning
from fngw_builder.container_compiler import ContainerCompiler
from fngw_builder.environment import cuda, disk, requirements
from fngw_builder.environment.bytecode import Compiler, LocalCompiler
from fngw_builder.environment.bytecode_cache import CachingCompiler
from fngw_builder.environment.cache import Cache, size_of
from fngw_builder.environment.lock import Lock, LockStore
from fngw_builder.environment.solve import solve
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.stage import materialise
from fngw_builder.environment.target import Target
from fngw_builder.image_archive import Image
from fngw_builder.made import Below
from fngw_builder.report import Report
from fngw_builder.settings import BuilderSettings
from fngw_state.records import BuildRequest

#: In an environment's folder: how large it is.
SIZE_NOTE = ".fngw-size"


@dataclass(frozen=True)
class EnvironmentFolder:
    """An environment that local processes run from; ``size`` in bytes, as it was made."""

    path: Path
    lock: str
    size: int
    reused: bool

    @property
    def name(self) -> str:
        """What it is called in what people read."""
        return self.path.name[:12]


class Environments:
    """What one build does about its environment.

    Args:
        request: asks for one.
        settings: where packages come from and are kept.
        report: told how it goes.

    Raises:
        BuildFailed: ``environment_invalid``, ``python_conflict`` or ``path_outside``: the request makes no sense.
    """

    def __init__(self, request: BuildRequest, settings: BuilderSettings, report: Report) -> None:
        self._request = request
        self._settings = settings
        self._report = report
        self._wanted = requirements.read(request.python, request.conda, request.pip, settings.default_channels)
        self._cache = Cache(settings.layout.cache, settings.cache_bytes)
        self._sources = Sources(
            cache=settings.layout.cache,
            uv=Path(find_uv_bin()),
            channel_alias=settings.conda_alias,
            environ=os.environ,
        ).serving(self._wanted)

    @property
    def brings_python(self) -> bool:
        """Whether its Python is a package like the others, and not that of what it lies on."""
        return self._wanted.conda is not None

    def image(self, tag: str, base: Image, engine: images.Images) -> Below:
        """Return the image of ``base`` and the environment, made if it is not there.

        Args:
            tag: the base's.
            base: what the environment lies on.
            engine: has the base.

        Raises:
            BuildFailed: see the codes of ``environment``, ``images`` and ``container_compiler``.
        """
        target = Target(
            subdir=host.subdir(base.platform["architecture"]),
            glibc=self._settings.glibc or base.labels.get(planning.GLIBC_LABEL, "0"),
            cuda=self._cuda(),
            prefix=protocol.CONTAINER_ENV_DIR,
            interpreter=base.labels.get(planning.INTERPRETER_LABEL, ""),
        )
        with self._files() as files:
            lock = self._lock(target, files)
            plan = planning.environment(tag, base.id, lock.digest)
            with self._cache.alone(plan.key):
                found = engine.made(plan, self._report)
                if found is not None:
                    self._report.say(
                        f"{protocol.REUSED_LINE}{plan.key[:12]} ({(found.size - base.size) / 1e6:.0f} MB)"
                    )
                    return Below(plan.tag, found, base, lock.digest)
                compiler = self._image_compiler(engine, base, target, lock)
                with self._staged(lock, target, files) as folder:
                    compile = partial(compiler.compile, folder, target.prefix)
                    made = environment_image.make(folder, base, plan, engine, self._report, compile)
        self._cache.trim()
        return Below(plan.tag, made, base, lock.digest, reused=False)

    def folder(self, interpreter: str) -> EnvironmentFolder:
        """Return the folder of the environment for local processes, made if it is not there.

        Args:
            interpreter: the Python that it lies on, unless it brings its own.

        Raises:
            BuildFailed: see the codes of ``environment``.
        """
        layout = self._settings.layout
        target = Target(host.subdir(), self._settings.glibc or host.glibc(), self._cuda(), "", interpreter)
        with self._files() as files:
            lock = self._lock(target, files)
            key = planning.hash_of("folder", lock.digest, None if self.brings_python else interpreter)
            path = layout.envs / key
            with self._cache.alone(key):
                if path.is_dir():
                    os.utime(path)  # asked for again: not to be cleared away now
                    found = EnvironmentFolder(path, lock.digest, _size(path), True)
                    self._report.say(f"{protocol.REUSED_LINE}{found.name} ({found.size / 1e6:.0f} MB)")
                    return found
                target = dataclasses.replace(target, prefix=str(path))
                compiler = LocalCompiler(None if self.brings_python else Path(interpreter), self._report)
                with self._staged(lock, target, files) as folder:
                    compiler.compile(folder, target.prefix)
                    size = _size(folder)
                    layout.envs.mkdir(parents=True, exist_ok=True)
                    folder.rename(path)
        self._cache.trim()
        return EnvironmentFolder(path, lock.digest, size, False)

    def _lock(self, target: Target, files: Path) -> Lock:
        """The lock to build from: the one asked for, that of an earlier solve, or a new one."""
        store, asked = LockStore(self._settings.layout.locks), self._request
        if asked.lock:
            return store.get(asked.lock)
        plain = planning.hash_of(self._wanted.key, _content(files), target.subdir, target.glibc, target.cuda)
        key = planning.hash_of(plain, asked.upgrade) if asked.upgrade else plain
        with self._cache.alone(key):
            digest = store.newest(key)
            if digest is None:
                digest = store.put(solve(self._wanted, target, self._sources, self._report, files))
                for known_by in {key, plain}:
                    store.remember(known_by, digest)
        self._report.say(f"lock {digest}")
        lock = store.get(digest)
        for warning in () if host.cuda() else cuda.without_driver(lock):
            self._report.say(protocol.WARNING_LINE + warning)
        return lock

    @contextmanager
    def _staged(self, lock: Lock, target: Target, files: Path) -> Iterator[Path]:
        """Build it in a folder of its own, but for the byte-code; as many at once as there are processors."""
        with self._cache.slot(os.cpu_count() or 1), self._cache.stage() as folder, disk.watched(folder):
            materialise(lock, target, folder, self._sources, self._report, files)
            yield folder

    def _image_compiler(self, engine: images.Images, base: Image, target: Target, lock: Lock) -> Compiler:
        compiler: Compiler
        if self.brings_python:
            compiler = LocalCompiler(None, self._report)
            python = next(package.sha256 for package in lock.conda if package.name == "python")
        else:
            compiler, python = ContainerCompiler(engine.client, base.id, target.interpreter, self._report), base.id
        return CachingCompiler(compiler, self._settings.layout.cache, python)

    def _cuda(self) -> str | None:
        return host.cuda() if self._settings.cuda == "auto" else self._settings.cuda or None

    @contextmanager
    def _files(self) -> Iterator[Path]:
        """A folder with the wheels of the bundle, if the requirements name any; uv is run in it."""
        with self._cache.stage() as folder:
            (folder.parent / "uv.toml").touch()  # it looks for settings upwards: no further than here
            if self._wanted.wheels or any(option.startswith("./") for option in self._wanted.pip_options):
                bundle.extract(bundle.locate(self._settings.layout, self._request.bundle), folder, ".whl")
            yield folder


def _size(folder: Path) -> int:
    """Return the bytes that an environment takes, as they were noted in it: counting 30,000 files takes a while."""
    note = folder / SIZE_NOTE
    with suppress(FileNotFoundError, ValueError):
        return int(note.read_text())
    size = size_of(folder)
    note.write_text(f"{size}\n")
    return size


def _content(folder: Path) -> str:
    """Name what lies in a folder: another wheel under the same name is another environment."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return " ".join(f"{path.relative_to(folder)}={hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
