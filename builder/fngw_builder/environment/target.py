"""What an environment is made for: a platform, its C library, its CUDA, and where the files will lie. Pure.

A target is part of what decides an environment, and says nothing of the machine that builds it: the same target
gives the same lock anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from fngw.errors import BuildFailed

#: Counted as the kernel that everything runs on. Few packages ask, and a build must not depend on its host.
LINUX = "5.10"
#: The machine's name in wheels, by conda's name for the platform.
ARCHITECTURES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
#: The second numbers of `manylinux_2_N` that `uv --python-platform` knows.
MANYLINUX = (17, 28, *range(31, 41))


@dataclass(frozen=True)
class Target:
    """Where an environment will run.

    Args:
        subdir: conda's name of the platform, ``"linux-64"`` or ``"linux-aarch64"``.
        glibc: the version of the C library there, ``"2.36"``.
        cuda: the version of CUDA that the driver there supports, ``"12.4"``; None without one.
        prefix: the absolute path under which the environment will lie.
        interpreter: the absolute path of the base's Python there, for environments that bring none.

    Raises:
        BuildFailed: ``target_unknown``: no packages are made for it.
    """

    subdir: str
    glibc: str
    cuda: str | None
    prefix: str
    interpreter: str

    def __post_init__(self) -> None:
        if self.subdir not in ARCHITECTURES:
            raise _unknown(f"no environments are made for the platform {self.subdir!r}", ", ".join(ARCHITECTURES))
        if _numbers(self.glibc) < (2, MANYLINUX[0]):
            raise _unknown(f"no wheels are made for glibc {self.glibc}", f"2.{MANYLINUX[0]} or newer")

    @property
    def architecture(self) -> str:
        """The machine's name as wheels have it."""
        return ARCHITECTURES[self.subdir]

    @property
    def uv_platform(self) -> str:
        """What ``uv --python-platform`` calls it: the newest manylinux that runs on this C library."""
        newest = max(minor for minor in MANYLINUX if (2, minor) <= _numbers(self.glibc))
        return f"{self.architecture}-manylinux_2_{newest}"

    @property
    def virtual_packages(self) -> tuple[tuple[str, str, str], ...]:
        """What conda's solver is told of the target: name, version, build.

        The processor counts as the plainest of its kind, so that what is built runs on every machine.
        """
        packages = [
            ("__unix", "0", "0"),
            ("__linux", LINUX, "0"),
            ("__glibc", self.glibc, "0"),
            ("__archspec", "1", self.architecture),
        ]
        return (*packages, ("__cuda", self.cuda, "0")) if self.cuda else tuple(packages)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    if not all(part.isdigit() for part in parts):
        raise _unknown(f"{version!r} is not a version of glibc", "such as 2.36")
    return tuple(int(part) for part in parts)


def _unknown(message: str, known: str) -> BuildFailed:
    return BuildFailed(message, code="target_unknown", hint=f"known: {known}")
