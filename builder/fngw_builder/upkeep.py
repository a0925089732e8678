"""Errands that a builder runs for people: what its caches and its engine are like, and emptying the caches.

The queue calls these by their names (``fngw_state.errands``), in a process of their own.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fngw.errors import FngwError
from fngw_builder import image_build, images, local
from fngw_builder import plan as planning
from fngw_builder.environment.cache import Cache, size_of
from fngw_builder.settings import BuilderSettings

log = logging.getLogger(__name__)

#: Seconds that the engine may keep silent before it counts as one that does not answer.
ENGINE_S = 5.0


def survey(engine: str, python: str) -> dict[str, Any]:
    """Look at what only a builder sees.

    Args:
        engine: what runs replicas, ``docker`` or ``process``.
        python: the ``"X.Y"`` for which to look whether something is there to build on.

    Returns:
        ``cache`` (bytes by kind) and ``cache_limit``; ``stored`` (bytes by kind) and ``locks`` (how many);
        ``docker`` (see ``docker_engine``); ``base``: why nothing can be built for ``python``, as ``problem`` and
        ``hint``, or None.
    """
    settings = BuilderSettings()
    docker, base = docker_engine(settings, python)
    if engine == "process":
        base = why_not(partial(local.interpreter, python))
    return {
        "cache": _cache(settings).sizes(),
        "cache_limit": settings.cache_bytes,
        "stored": stored(settings),
        "locks": len(list(settings.layout.locks.glob("*.json"))),
        "docker": docker,
        "base": base,
    }


def prune() -> dict[str, Any]:
    """Empty the caches, but for what builds under way use.

    Returns:
        ``freed``: the bytes that went; ``left``: bytes by kind.
    """
    cache = _cache(BuilderSettings())
    freed = cache.prune()
    log.info("pruned the caches: %d bytes", freed)
    return {"freed": freed, "left": cache.sizes()}


def _cache(settings: BuilderSettings) -> Cache:
    return Cache(settings.layout.cache, settings.cache_bytes)


def stored(settings: BuilderSettings) -> dict[str, int]:
    """Return the bytes of what deployments need: ``sources``, ``environments``, ``locks``."""
    layout = settings.layout
    kinds = {"sources": (layout.blobs, layout.code), "environments": (layout.envs,), "locks": (layout.locks,)}
    return {kind: sum(map(size_of, folders)) for kind, folders in kinds.items()}


def docker_engine(settings: BuilderSettings, python: str) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Return what there is to tell of the Docker engine, and why it has nothing for ``python`` to build on.

    The former is ``problem``, when none answers; else ``version``, ``nvidia`` (whether it knows of NVIDIA's
    runtime), ``images`` (how many of ours, by kind) and ``disk`` (free and total bytes, where they can be seen).
    """
    try:
        with images.engine(ENGINE_S) as engine:
            info: dict[str, Any] = engine.client.info()
            there = {
                "version": info.get("ServerVersion", ""),
                "nvidia": knows_nvidia(info),
                "images": {
                    "functions": len(engine.tags(planning.APP)),
                    "environments": len(engine.tags(planning.ENVIRONMENT)),
                },
                "disk": disk(Path(info.get("DockerRootDir", ""))),
            }
            patterns = (settings.runtime_image, settings.base_image)
            looks = (partial(image_build.find_base, engine, pattern, python) for pattern in patterns)
            return there, next(filter(None, map(why_not, looks)), None)
    except FngwError as error:
        return {"problem": error.detail or error.message}, None


def why_not(look: Callable[[], object]) -> dict[str, str] | None:
    """Return the error that ``look`` raises, for people, or None."""
    try:
        look()
    except FngwError as error:
        return {"problem": error.message, "hint": error.hint}
    return None


def knows_nvidia(info: dict[str, Any]) -> bool:
    """Whether an engine's account of itself names NVIDIA's runtime, or devices of theirs (CDI)."""
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or ()]
    return "nvidia" in (info.get("Runtimes") or {}) or any(name.startswith("nvidia.com/") for name in devices)


def disk(path: Path) -> dict[str, Any] | None:
    """Return the free and total bytes of the disk of a folder; None where it cannot be seen from here."""
    if not path.is_absolute() or not path.is_dir():
        return None
    found = shutil.disk_usage(path)
    return {"path": str(path), "free": found.free, "total": found.total}
