"""Installing a lock's pip part with uv: unpacked beside the stage, made independent of this machine, and moved in.

uv runs with the builder's interpreter, whatever the target's is, and lays the files out for the former; `relocate`
corrects that. Files may be hard links to uv's cache: they are replaced, never written to.
"""

from __future__ import annotations

import glob
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT

from fngw.errors import BuildFailed
from fngw_builder.environment import cache, child, disk, merge, relocate, wheel_files
from fngw_builder.environment.lock import LocalWheel, Lock, PipPackage
from fngw_builder.environment.provided import site_packages
from fngw_builder.environment.sources import Sources, redact
from fngw_builder.environment.target import Target
from fngw_builder.report import Report

#: uv's words for a download that it thinks worth telling, and for its end.
DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
HASH_MISMATCH = re.compile(r"Hash mismatch for `([^`]+)`")
GONE = re.compile(r"there is no version of (\S+)|Because (\S+) was not found|no wheels? with a matching")
UNREACHABLE = ("Failed to fetch", "Request failed", "error sending request", "Failed to download")


def install(
    lock: Lock, target: Target, stage: Path, sources: Sources, report: Report, wheels_dir: Path | None
) -> None:
    """Install the pip part of a lock into ``stage``. Where conda has installed the same, this replaces it.

    Args:
        stage: the environment so far, on the same disk as the cache, so that files can be shared with it.
        sources: serving the requirements that the lock is of.
        report: gets the progress of the steps ``download``, in bytes, and ``install``, in packages.
        wheels_dir: the folder of the bundle's wheels, if the lock has any.

    Raises:
        BuildFailed: ``hash_mismatch``, ``index_unreachable``, ``package_gone``, ``install_failed``, ``bad_package``
            or ``disk_full``.
    """
    count = len(lock.pip) + len(lock.wheels)
    if not count:
        return
    library = site_packages(lock)
    report.progress("install", 0, count, "packages")
    with tempfile.TemporaryDirectory(prefix="install-", dir=stage.parent) as name:
        prefix = Path(name, "prefix")
        _Uv(lock, target, sources, report, wheels_dir or Path(name)).install(prefix)
        (prefix / ".lock").unlink(missing_ok=True)
        relocate.relocate(prefix, target.prefix, library)
        merge.uninstall(wheel_files.names(prefix / library), stage / library, stage)
        merge.merge(prefix, stage, stage)
    report.progress("install", count, count, "packages")


@dataclass
class _Uv:
    """One environment's worth of calling uv."""

    lock: Lock
    target: Target
    sources: Sources
    report: Report
    wheels_dir: Path
    _announced: dict[str, int] = field(default_factory=dict)
    _done: int = 0

    def install(self, prefix: Path) -> None:
        """Install everything into ``prefix``; what turns out to be damaged in uv's cache is fetched again."""
        self._note_use()
        self._install(prefix)
        self._note_use()
        damaged = wheel_files.damaged(prefix)
        if damaged:
            self.report.say(f"damaged in the cache, fetched again: {', '.join(damaged)}")
            self._clean(damaged)
            shutil.rmtree(prefix)
            self._install(prefix)  # what differs from its record even now was made so

    def _install(self, prefix: Path) -> None:
        # The lock says by hash what is wanted: if the cache has it, no index needs to be asked.
        if self._run(self._command(prefix, "--offline"))[0]:
            shutil.rmtree(prefix, ignore_errors=True)
            status, said = self._run(self._command(prefix))
            if status:
                raise self._failure(said)

    def _command(self, prefix: Path, *more: str) -> list[str]:
        command = [str(self.sources.uv), "pip", "install", "--python", sys.executable, "--prefix", str(prefix)]
        command += ["--python-version", self.lock.python, "--python-platform", self.target.uv_platform]
        command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--link-mode", "hardlink"]
        return [*command, "--requirements", str(self._requirements(prefix)), *self.sources.uv_arguments(), *more]

    def _requirements(self, prefix: Path) -> Path:
        packages = [package.requirement for package in self._packages()]
        path = prefix.with_name("requirements.txt")
        # What came from folders of the bundle is named file by file.
        path.write_text("\n".join([*self.sources.index_lines(local=False), *packages, ""]), "utf-8")
        return path

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Run uv in the bundle's folder, to which the paths of its wheels are relative."""
        said, environment = [], self.sources.uv_environment()
        with child.running(command, environment=environment, cwd=self.wheels_dir, stderr=STDOUT) as uv:
            for line in child.lines(uv.stdout):
                said.append(line)
                self._relay(line)
        return uv.returncode, "\n".join(said)

    def _relay(self, line: str) -> None:
        begun, ended = DOWNLOADING.match(line), DOWNLOADED.match(line)
        if begun:
            self._announced[begun.group(1)] = int(float(begun.group(2)) * UNITS[begun.group(3)])
        elif ended:
            self._done += self._announced.get(ended.group(1), 0)
        if begun or ended:
            self.report.progress("download", self._done, sum(self._announced.values()), "bytes")

    def _note_use(self) -> None:
        """Of the unpacked wheels that are in the cache: before, so that they stay, and after, when all are."""
        links = (link for package in self._packages() for link in self._unpacked(package.name, package.version))
        cache.use(self.sources.cache, [link.resolve() for link in links if link.is_symlink()])

    def _unpacked(self, name: str, version: str) -> Iterator[Path]:
        """Yield uv's links to the unpacked wheels of a version, from whichever index they came."""
        for place in ("*", "*/*"):
            yield from self.sources.uv_cache.glob(f"wheels-v*/{place}/{name}/{glob.escape(version)}-*")

    def _packages(self) -> Iterator[PipPackage | LocalWheel]:
        yield from self.lock.pip
        yield from self.lock.wheels

    def _clean(self, names: list[str]) -> None:
        status, said = self._run([str(self.sources.uv), "cache", "clean", *names])
        if status:
            self.report.say(f"uv's cache could not be cleaned: {said}")

    def _failure(self, said: str) -> BuildFailed:
        secrets = self.sources.secrets(self._addresses())
        detail = redact("\n".join(_errors(said)), secrets)
        if disk.is_full(said):
            return disk.full(detail, self.sources.cache)
        mismatch, gone = HASH_MISMATCH.search(said), GONE.search(said)
        if mismatch:
            return BuildFailed(
                f"{redact(mismatch.group(1), secrets)} is not what the lock says: its hash differs",
                code="hash_mismatch",
                hint="deploy again; if it stays so, the index changed or is damaged: deploy with --upgrade",
                detail=detail,
            )
        if gone:
            return BuildFailed(
                "the indexes no longer have all that the lock names",
                code="package_gone",
                hint="deploy with --upgrade, which solves the requirements anew",
                detail=detail,
            )
        if any(sign in said for sign in UNREACHABLE):
            return BuildFailed(
                "an index cannot be reached",
                code="index_unreachable",
                hint=f"it was tried {self.sources.retries + 1} times; check the network, then deploy again",
                detail=detail,
            )
        return BuildFailed("uv could not install the packages", code="install_failed", detail=detail)

    def _addresses(self) -> Iterator[str]:
        yield from self.sources.pip_options
        yield from (package.url for package in self.lock.pip if package.url)


def _errors(said: str) -> list[str]:
    """Of what uv says, the part that begins with its first error."""
    lines = [line for line in said.splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if line.startswith("error:")), 0)
    return lines[first:]
