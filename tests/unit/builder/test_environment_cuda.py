"""Telling packages that are made for a GPU."""

from __future__ import annotations

import pytest

from fngw_builder.environment import cuda
from fngw_builder.environment.lock import CondaPackage, Lock, PipPackage


def conda(name: str, build: str = "0", depends: tuple[str, ...] = ()) -> CondaPackage:
    return CondaPackage("c", "linux-64", f"{name}-1-{build}.conda", name, "1", build, 0, "0" * 64, depends=depends)


def lock(*packages: CondaPackage | PipPackage, has: str | None = None) -> Lock:
    split = {kind: tuple(p for p in packages if isinstance(p, kind)) for kind in (CondaPackage, PipPackage)}
    return Lock("3.11", "linux-64", "2.36", has, split[CondaPackage], split[PipPackage])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "package",
    [conda("pytorch", "cuda126_py311h1_0"), conda("pytorch", "py3.11_cuda12.1_cudnn8_0"), conda("x", "gpu_0"),
     conda("cuda-version"), conda("cudatoolkit"), conda("x", depends=("__cuda >=12",)),
     PipPackage("torch", "2.5.1+cu121", ()), PipPackage("nvidia-cublas-cu12", "12.4", ()),
     PipPackage("tensorflow-gpu", "2", ()), PipPackage("cupy-cuda12x", "13", ())],
)  # fmt: skip
def test_made_for_a_gpu(package: CondaPackage | PipPackage) -> None:
    assert cuda.packages(lock(package)) == [package.name]
    assert next(iter(cuda.warnings(lock(package)))).startswith(package.name)
    assert not list(cuda.warnings(lock(package, has="12.4")))


@pytest.mark.parametrize(
    "package",
    [conda("pytorch", "cpu_mkl_py311_0"), conda("numpy", "py311h64a7726_0"), conda("cucumber", "cucumber_0"),
     PipPackage("torch", "2.5.1+cpu", ()), PipPackage("cucumber-tag-expressions", "6", ()),
     PipPackage("nvidia-ml-py", "12", ())],
)  # fmt: skip
def test_made_for_any_machine(package: CondaPackage | PipPackage) -> None:
    assert cuda.packages(lock(package)) == []


def test_many_are_not_all_listed() -> None:
    (line,) = cuda.warnings(lock(*(PipPackage(f"nvidia-{i}-cu12", "1", ()) for i in range(9))))
    assert "and 6 more" in line
