"""An image's configuration, and the archive that adds layers to an engine that has the others. Pure.

``docker load`` reads each layer's file only when the engine does not have that layer yet. So an archive may name
the layers of the base image and hold only the new ones: a change of some sources takes kilobytes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fngw_builder.code_layer import Layer

EPOCH = "1970-01-01T00:00:00Z"
CHUNK = 1 << 20
#: Of an engine's description of an image, what belongs to its configuration and is not about its making.
KEPT = "Cmd Entrypoint Env ExposedPorts Healthcheck Labels OnBuild Shell StopSignal User Volumes WorkingDir".split()


@dataclass(frozen=True)
class Image:
    """An image as the engine describes it; ``config`` is what its containers start from."""

    id: str
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    platform: Mapping[str, str]
    size: int = 0  # bytes, with all layers

    @property
    def labels(self) -> Mapping[str, str]:
        return self.config.get("Labels") or {}

    @classmethod
    def from_inspect(cls, data: Mapping[str, Any]) -> Image:
        """Return what ``GET /images/<name>/json`` describes."""
        platform = {"architecture": data["Architecture"], "os": data["Os"], "variant": data.get("Variant") or ""}
        return cls(
            id=data["Id"],
            config={k: v for k, v in (data.get("Config") or {}).items() if k in KEPT and v},
            layers=tuple(data["RootFS"].get("Layers") or ()),
            platform={k: v for k, v in platform.items() if v},
            size=data.get("Size", 0),
        )


def configuration(base: Image, diff_ids: Sequence[str], labels: Mapping[str, str]) -> bytes:
    """Return the configuration of ``base`` with more layers. Its digest is the image's id, so it holds nothing
    that differs between two builds of the same: no time, no machine's name.

    Args:
        base: the image below.
        diff_ids: the new layers' digests, the lowest first.
        labels: added to those of the base.
    """
    layers = [*base.layers, *diff_ids]
    config: dict[str, Any] = {
        **base.platform,
        "created": EPOCH,
        "config": {**base.config, "Labels": {**base.labels, **labels}},
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [{"created": EPOCH, "created_by": "fngw"} for _ in layers],
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":")).encode()


def image_id(config: bytes) -> str:
    """Return the id that engines give an image of this configuration (those with the classic image store)."""
    return "sha256:" + hashlib.sha256(config).hexdigest()


def archive(config: bytes, layers: Sequence[Layer], below: int, tag: str) -> Iterator[bytes]:
    """Yield an image archive that holds some layers and names ``below`` others, absent from it.

    Args:
        config: from ``configuration``.
        layers: the new layers, the lowest first.
        below: how many layers the base has.
        tag: ``"repository:tag"`` to give the image.
    """
    name = image_id(config).partition(":")[2] + ".json"
    absent = [f"absent-{n}/layer.tar" for n in range(below)]
    present = [f"new-{n}/layer.tar" for n in range(len(layers))]
    for path, layer in zip(present, layers, strict=True):
        yield _header(path, layer.size)
        layer.file.seek(0)
        while chunk := layer.file.read(CHUNK):
            yield chunk
        yield _padding(layer.size)
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": [*absent, *present]}]).encode()
    for path, data in ((name, config), ("manifest.json", manifest)):
        yield _header(path, len(data)) + data + _padding(len(data))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(path: str, size: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
