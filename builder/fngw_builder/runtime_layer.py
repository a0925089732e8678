"""The image layer of fngw's own code in replicas: the packages that the builder itself runs from, as sources.

It lies above the environment, so that environments outlive an update of fngw. Without byte-code: `.pyc` files would
tie it to one Python, and reading the sources costs a replica 15 ms at its start.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

from fngw_builder.tar_layer import File, Layer, Writer

#: What a replica imports, and the one part of it that no replica can use: it needs typer.
PACKAGES = ("fngw", "fngw_runtime")
OMITTED = ("fngw/cli",)


def write(target: str, file: File) -> Layer:
    """Write the layer that puts the runtime's packages under ``target``.

    Args:
        target: the absolute path in the image; to be on PYTHONPATH there.
        file: an empty file, open for writing and reading; it must outlive the layer.

    Raises:
        ModuleNotFoundError: fngw is not installed completely.
    """
    root, layer = target.strip("/"), Writer(file)
    for path, source in sorted(sources()):
        with source.open("rb") as content:
            layer.regular(f"{root}/{path}", 0o644, source.stat().st_size, content)
    return layer.finish()


@functools.cache
def kept(target: str) -> Layer:
    """Return what ``write`` does, in memory, once in a process' life: a builder makes it before it forks."""
    return write(target, io.BytesIO())


def sources() -> Iterator[tuple[str, Path]]:
    """Yield what the layer holds: paths relative to its root, and the files they are copied from."""
    for package in PACKAGES:
        folder = package_folder(package)
        for source in folder.rglob("*.py"):
            path = f"{package}/{source.relative_to(folder).as_posix()}"
            if not path.startswith(tuple(f"{omitted}/" for omitted in OMITTED)):
                yield path, source


def package_folder(name: str) -> Path:
    """Return the folder of an installed package.

    Raises:
        ModuleNotFoundError: it is not installed beside this one.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {name} is not installed beside this one", name=name)
    return Path(spec.submodule_search_locations[0])
