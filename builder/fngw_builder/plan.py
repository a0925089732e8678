"""Which layers an image consists of, and under which key it is known. Pure.

An image is base, environment, code, in this order: what changes most comes last, so that a change of the code
leaves all below it as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fngw import protocol
from fngw.errors import BuildFailed
from fngw_state.builds import canonical
from fngw_state.records import BuildRequest

#: Counts changes of how images are made, so that none made the old way is taken for one made the new way.
RECIPE = 1
REPOSITORY = "fngw/app"
ROLE_LABEL = "org.fngw.role"
KEY_LABEL = "org.fngw.key"
ENGINES = ("docker", "process")


@dataclass(frozen=True)
class CodeLayer:
    """The sources of ``bundle`` under ``target``."""

    bundle: str
    target: str = protocol.CONTAINER_APP_DIR

    def __str__(self) -> str:
        return f"code {self.bundle} at {self.target}"


@dataclass(frozen=True)
class LayerPlan:
    """One image: ``layers`` in order on top of ``base``, whose id is ``base_id``."""

    key: str
    base: str
    base_id: str
    layers: tuple[CodeLayer, ...]

    @property
    def tag(self) -> str:
        return f"{REPOSITORY}:{self.key}"

    @property
    def labels(self) -> dict[str, str]:
        """What tells this image from others of the same tag."""
        return {ROLE_LABEL: "app", KEY_LABEL: self.key}

    def __str__(self) -> str:
        return "\n".join([f"image {self.tag}", f"base {self.base} {self.base_id}", *map(str, self.layers)])


def check(request: BuildRequest) -> None:
    """Refuse what cannot be built by anyone.

    Raises:
        BuildFailed: ``environments_not_supported``, ``python_invalid``, ``bundle_invalid`` or ``engine_unknown``.
    """
    asked = [name for name in ("conda", "pip") if getattr(request, name)]
    if asked:
        raise BuildFailed(
            f"this fngw builds no environments yet, and the deployment asks for {' and '.join(asked)}",
            code="environments_not_supported",
            hint=f"deploy without {' and '.join(asked)}; what the function imports must lie in its working_dir",
        )
    if not re.fullmatch(r"3\.\d{1,2}", request.python):
        raise BuildFailed(
            f"{request.python!r} is not a Python version",
            code="python_invalid",
            hint='give it as "X.Y", such as python="3.11"',
        )
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", request.bundle):
        raise BuildFailed(
            f"{request.bundle!r} does not name a source archive",
            code="bundle_invalid",
            hint="give the digest under which it was uploaded: sha256:<64 hex digits>",
        )
    if request.engine not in ENGINES:
        raise BuildFailed(
            f"no build is known for the engine {request.engine!r}",
            code="engine_unknown",
            hint="the engines are: " + ", ".join(ENGINES),
        )


def build_key(request: BuildRequest, base_id: str) -> str:
    """Return the name of an image: 32 hex digits that depend on the request, the base image and the recipe.

    Args:
        request: what to build.
        base_id: the id of the image below.
    """
    return hashlib.sha256(canonical(request, base=base_id, recipe=RECIPE)).hexdigest()[:32]


def plan(request: BuildRequest, base: str, base_id: str) -> LayerPlan:
    """Return the image that answers a request.

    Args:
        request: what to build; ``check`` has passed it.
        base: the tag of the image below.
        base_id: its id.
    """
    return LayerPlan(build_key(request, base_id), base, base_id, (CodeLayer(request.bundle),))


def base_missing(python: str, image: str, present: Sequence[str]) -> BuildFailed:
    """Return the error for a Python version that has no base image.

    Args:
        python: ``"X.Y"``.
        image: the tag that was looked for.
        present: the versions that have one.
    """
    others = sorted(set(present) - {python}, key=lambda v: [int(n) for n in v.split(".")])
    instead = f', or deploy with python="{others[-1]}"' if others else ""
    return BuildFailed(
        f"no base image for Python {python}: the engine has no {image}",
        code="base_image_missing",
        hint=f"make images PYTHON={python}{instead}",
    )
