"""Which layers an image consists of, and under which key it is known. Pure.

An image is base, environment, the runtime's code, the user's code, in this order: what changes most comes last, so
that a change leaves all below it as it is. An image with an environment is made in two steps, an image of base and
environment, and one of that and the code; one without stands on a base that has all that the runtime imports.
An environment is two layers, so that an engine can take the packages in while their byte-code is still being made.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fngw import protocol
from fngw.errors import BuildFailed
from fngw_state.records import BuildRequest

#: Counts changes of how images are made, so that none made the old way is taken for one made the new way.
RECIPE = 2
APP, ENVIRONMENT = "fngw/app", "fngw/env"
#: Of images that are there only while a build makes what stands on them.
DRAFT = "fngw/draft"
ROLE_LABEL = "org.fngw.role"
KEY_LABEL = "org.fngw.key"
#: Of base images: where their Python lies, and the version of their C library.
INTERPRETER_LABEL = "org.fngw.interpreter"
GLIBC_LABEL = "org.fngw.glibc"
ENGINES = ("docker", "process")


@dataclass(frozen=True)
class EnvironmentPart:
    """Of the packages of a lock under ``target``, their ``byte-code`` or all else (``what``)."""

    what: str
    lock: str
    target: str = protocol.CONTAINER_ENV_DIR

    def __str__(self) -> str:
        return f"{self.what} of {self.lock} at {self.target}"


@dataclass(frozen=True)
class RuntimePart:
    """The code that serves a replica; ``digest`` is its layer's."""

    digest: str
    target: str = protocol.CONTAINER_RUNTIME_DIR

    def __str__(self) -> str:
        return f"runtime {self.digest} at {self.target}"


@dataclass(frozen=True)
class CodePart:
    """The sources of ``bundle`` under ``target``."""

    bundle: str
    target: str = protocol.CONTAINER_APP_DIR

    def __str__(self) -> str:
        return f"code {self.bundle} at {self.target}"


Part = EnvironmentPart | RuntimePart | CodePart


@dataclass(frozen=True)
class Plan:
    """One image: ``parts``, a layer each, in order on top of the image ``base``, whose id is ``base_id``."""

    repository: str
    base: str
    base_id: str
    parts: tuple[Part, ...]

    @property
    def key(self) -> str:
        """32 hex digits that depend on what the image is made of, and on nothing else."""
        return hash_of("image", self.base_id, *map(str, self.parts))

    @property
    def tag(self) -> str:
        return f"{self.repository}:{self.key}"

    @property
    def labels(self) -> dict[str, str]:
        """What tells this image from others of the same tag."""
        return {ROLE_LABEL: self.repository.rpartition("/")[2], KEY_LABEL: self.key}

    def draft(self, word: str) -> Plan:
        """Return the image of all parts but the last, under a name of its own: nobody else removes it.

        Args:
            word: this build's own.
        """
        return replace(self, repository=f"{DRAFT}-{word}", parts=self.parts[:-1])

    def __str__(self) -> str:
        return "\n".join([f"image {self.tag}", f"base {self.base} {self.base_id}", *map(str, self.parts)])


def environment(base: str, base_id: str, lock: str) -> Plan:
    """Return the image of a base and an environment.

    Args:
        base: the tag of the image below.
        base_id: its id.
        lock: the lock's digest.
    """
    return Plan(ENVIRONMENT, base, base_id, (EnvironmentPart("packages", lock), EnvironmentPart("byte-code", lock)))


def app(bundle: str, base: str, base_id: str, runtime: str | None = None) -> Plan:
    """Return the image that a replica runs from.

    Args:
        bundle: the digest of the user's sources.
        base: the tag of the image below.
        base_id: its id.
        runtime: the digest of the runtime's layer; None: the base has it.
    """
    below = () if runtime is None else (RuntimePart(runtime),)
    return Plan(APP, base, base_id, (*below, CodePart(bundle)))


def hash_of(*parts: str | None) -> str:
    """Return 32 hex digits that name what is made of ``parts`` by the present recipe."""
    text = json.dumps([RECIPE, *parts], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check(request: BuildRequest) -> None:
    """Refuse what cannot be built by anyone.

    Raises:
        BuildFailed: ``python_invalid``, ``bundle_invalid`` or ``engine_unknown``.
    """
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


def in_order(versions: Iterable[str]) -> list[str]:
    """Return Python versions, ``"X.Y"``, each once, the oldest first."""
    return sorted(set(versions), key=lambda version: [int(n) for n in version.split(".")])


def base_missing(python: str, image: str, present: Sequence[str]) -> BuildFailed:
    """Return the error for a Python version that has no base image.

    Args:
        python: ``"X.Y"``.
        image: the tag that was looked for.
        present: the versions that have one.
    """
    others = [version for version in in_order(present) if version != python]
    instead = f', or deploy with python="{others[-1]}"' if others else ""
    return BuildFailed(
        f"no base image for Python {python}: the engine has no {image}",
        code="base_image_missing",
        hint=f"make images PYTHON={python}{instead}",
    )
