"""What a replica in a container runs from: an image of a base, an environment, the runtime and the user's code."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack

from fngw import protocol
from fngw_builder import bundle, code_layer, runtime_layer
from fngw_builder import plan as planning
from fngw_builder.environments import Environments
from fngw_builder.image_archive import Image
from fngw_builder.images import Images
from fngw_builder.made import Below, Made
from fngw_builder.report import Report
from fngw_builder.settings import BuilderSettings
from fngw_builder.tar_layer import Layer
from fngw_state.records import Artifact, BuildRequest, BuiltLayer


def make(request: BuildRequest, settings: BuilderSettings, engine: Images, report: Report) -> Made:
    """Return the image that answers a request, made of what is below and the code, or found made.

    Raises:
        BuildFailed: see the codes of ``plan``, ``bundle``, ``images`` and ``environments``.
    """
    if request.has_environment:
        environments = Environments(request, settings, report)
        tag, base = find_base(engine, settings.base_image, request.python, environments.brings_python)
        below = environments.image(tag, base, engine)
    else:
        tag, base = find_base(engine, settings.runtime_image, request.python)
        below = Below(tag, base, base)
    with ExitStack() as files:
        layers = [runtime()] if below.lock else []
        plan = planning.app(request.bundle, below.tag, below.image.id, *(layer.diff_id for layer in layers))
        image = engine.made(plan, report)
        if image is not None:
            return _made(below, image, plan.tag, reused=True)
        report.say(str(plan))
        blob = bundle.locate(settings.layout, request.bundle)
        file = files.enter_context(tempfile.TemporaryFile(prefix="fngw-layer-"))
        layers.append(code_layer.write(blob, protocol.CONTAINER_APP_DIR, file))
        image = engine.add(below.image, layers, plan, report)
    return _made(below, image, plan.tag, reused=False)


def runtime() -> Layer:
    """Return the runtime's layer, made with the first call; a base without environment has it already."""
    return runtime_layer.kept(protocol.CONTAINER_RUNTIME_DIR)


def _made(below: Below, image: Image, tag: str, *, reused: bool) -> Made:
    """The outcome, with the image's parts for people: the base, the environment if there is one, the code."""
    parts = [BuiltLayer("base", below.base.id, below.base.size, reused=True)]
    if below.lock:
        size = below.image.size - below.base.size
        parts.append(BuiltLayer("environment", below.image.id, size, below.reused))
    parts.append(BuiltLayer("code", image.layers[-1], image.size - below.image.size, reused))
    environment = below.tag if below.lock else ""
    return Made(Artifact(image=image.id, ref=tag, lock=below.lock, environment=environment), reused, tuple(parts))


def find_base(engine: Images, pattern: str, python: str, any_python: bool = False) -> tuple[str, Image]:
    """Return the tag and the image of a base.

    Args:
        engine: has it.
        pattern: the tag with ``{python}`` in it.
        python: ``"X.Y"``.
        any_python: whether one of another Python will do if there is none of this: nothing uses it.

    Raises:
        BuildFailed: ``base_image_missing``.
    """
    name = pattern.format(python=python)
    base = engine.find(name)
    if base is not None:
        return name, base
    present = planning.in_order(tag[2:] for tag in engine.tags(name.rpartition(":")[0]) if tag.startswith("py"))
    if any_python and present:
        return find_base(engine, pattern, present[-1])
    raise planning.base_missing(python, name, present)
