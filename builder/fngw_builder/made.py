"""What a build comes to, and what it stands on."""

from __future__ import annotations

from dataclasses import dataclass

from fngw_builder.image_archive import Image
from fngw_state.records import Artifact, BuiltLayer


@dataclass(frozen=True)
class Below:
    """The image that the code is put on.

    Args:
        tag, image: that of ``base`` and an environment, or ``base`` itself.
        base: the image at the bottom.
        lock: the environment's digest; None without one.
        reused: whether it was there already.
    """

    tag: str
    image: Image
    base: Image
    lock: str | None = None
    reused: bool = True


@dataclass(frozen=True)
class Made:
    """The outcome of a build that went well; ``layers`` the lowest first."""

    artifact: Artifact
    reused: bool
    layers: tuple[BuiltLayer, ...] = ()
