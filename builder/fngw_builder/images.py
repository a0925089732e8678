"""The Docker engine: what images it has, and adding a layer to one. All that goes wrong there becomes a
``BuildFailed``.
"""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import docker
import requests
import urllib3
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env

from fngw.errors import BuildFailed
from fngw_builder.image_archive import Image, archive, configuration
from fngw_builder.plan import KEY_LABEL, Plan
from fngw_builder.registry import Registry
from fngw_builder.report import Report
from fngw_builder.tar_layer import Layer

log = logging.getLogger(__name__)

GONE = (
    DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)

Note = Callable[[str], None]


class Refused(Exception):
    """The engine does not take an archive without the base's layers (containerd's image store does not)."""


@contextmanager
def engine(timeout_s: float, note: Note = lambda tag: None, registry: str = "") -> Iterator[Images]:
    """Connect to the engine that ``DOCKER_HOST`` names, or the local one.

    Args:
        timeout_s: how long it may keep silent.
        note: told the tag of each image that is made, or found made.
        registry: ``"HOST/REPOSITORY"`` that keeps copies; empty: none.

    Raises:
        BuildFailed: ``engine_unreachable``; within the block also ``disk_full`` and ``engine_error``.
    """
    with translated():
        client = _connect(timeout=timeout_s, **kwargs_from_env())
        try:
            yield Images(client, note, Registry(registry, client) if registry else None)
        finally:
            client.close()


def _connect(**options: Any) -> Any:
    """Return a client that speaks the engine's version: docker-py's own way to ask for it takes 10 ms."""
    asking = docker.APIClient(version=DEFAULT_DOCKER_API_VERSION, **options)
    try:
        version = asking.get(f"{asking.base_url}/_ping").headers.get("API-Version", "auto")
    finally:
        asking.close()
    client = docker.APIClient(version=version, **options)
    if client.base_url.startswith("http+docker"):  # a socket: the environment's proxies are not for it
        client.trust_env = False  # looking for them anew takes 1 ms of each request
    return client


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise _engine_error(str(error.explanation or error)) from error
    except GONE as error:
        raise BuildFailed(
            "the Docker engine does not answer",
            code="engine_unreachable",
            hint="start it, or set DOCKER_HOST to where it listens; `docker info` must answer",
            detail=str(error),
        ) from error


def _engine_error(text: str) -> BuildFailed:
    if disk_full(text):
        return no_space(text)
    return BuildFailed(
        "the Docker engine could not make the image",
        code="engine_error",
        hint="the engine's own log says more",
        detail=text,
    )


def disk_full(text: str) -> bool:
    """Whether an engine's message says so; it has no code of its own for that."""
    return "no space left" in text.lower()


def no_space(detail: str) -> BuildFailed:
    """Return the error for a full disk."""
    return BuildFailed(
        "no space is left on the disk for the image",
        code="disk_full",
        hint="free some: `docker system df` shows what images take, `docker image prune` removes unused ones",
        detail=detail,
    )


class Images:
    """The images of one engine.

    Args:
        client: a connected low-level client.
        note: told the tag of each image that is made, or found made.
        registry: keeps copies; None: there is none.
    """

    def __init__(self, client: Any, note: Note, registry: Registry | None = None) -> None:
        self.client = client
        self._note = note
        self._registry = registry

    def find(self, name: str) -> Image | None:
        """Return the image of a tag or an id, or None."""
        try:
            return Image.from_inspect(self.client.inspect_image(name))
        except ImageNotFound:
            return None

    def made(self, plan: Plan, report: Report) -> Image | None:
        """Return the image that a plan describes, if it was made before, here or where the registry has it from.

        Raises:
            BuildFailed: ``registry_failed``.
        """
        image = self._labelled(plan)
        if image is None and self._registry and self._registry.pull(plan, report):
            image = self._labelled(plan)
        if image is not None:
            self._note(plan.tag)
            self._push(plan, report)
        return image

    def _labelled(self, plan: Plan) -> Image | None:
        image = self.find(plan.tag)
        return image if image is not None and image.labels.get(KEY_LABEL) == plan.key else None

    def _push(self, plan: Plan, report: Report) -> None:
        if self._registry:
            self._registry.push(plan, report)

    def tags(self, repository: str) -> list[str]:
        """Return the tags, without the repository, of all its images."""
        found = [ref for image in self.client.images(repository) for ref in image.get("RepoTags") or ()]
        return [ref.rpartition(":")[2] for ref in found]

    def add(self, base: Image, layers: Sequence[Layer], plan: Plan, report: Report) -> Image:
        """Make the image of ``base`` with more layers, here and in the registry; return it as the engine has it.

        Args:
            base: the image below, present in the engine.
            layers: the new layers, the lowest first.
            plan: names the image.
            report: told of it.

        Raises:
            BuildFailed: ``disk_full``, ``engine_error`` or ``registry_failed``.
        """
        image = self.put(base, layers, plan, report)
        self._push(plan, report)
        return image

    def put(self, base: Image, layers: Sequence[Layer], plan: Plan, report: Report) -> Image:
        """As ``add``, but for the registry.

        Raises:
            BuildFailed: ``disk_full`` or ``engine_error``.
        """
        self._note(plan.tag)  # first: what is left of a build that is killed is cleared away
        try:
            return self.load(base, layers, plan, report)
        except Refused as refused:
            log.info("the engine takes no partial archive (%s)", refused)
            report.say("the engine takes no partial archive; committing a container instead")
            return self.commit(base, layers, plan)

    @contextmanager
    def for_a_while(self, plan: Plan) -> Iterator[None]:
        """Have the image of a plan, if it is made in the block, go at its end: its name, that is. Its layers stay
        where an image stands on them."""
        try:
            yield
        except GONE:
            raise  # the engine cannot be asked: it goes later, as an image that nothing needs
        except BaseException:
            self._forget(plan)
            raise
        self._forget(plan)

    def _forget(self, plan: Plan) -> None:
        with suppress(ImageNotFound):
            self.client.remove_image(plan.tag)

    def load(self, base: Image, layers: Sequence[Layer], plan: Plan, report: Report) -> Image:
        """Add the layers by an archive that holds nothing else: the fast way, and the same id each time.

        Raises:
            Refused: the engine wants the other layers, too.
        """
        config = configuration(base, [layer.diff_id for layer in layers], plan.labels)
        parts = archive(config, layers, len(base.layers), plan.tag)
        try:
            messages = list(self.client.load_image(_sending(parts, layers, report), quiet=True))
        except APIError as error:
            messages = [{"error": str(error.explanation or error)}]
        # An error in the stream comes with the status 200.
        errors = [str(message["error"]) for message in messages if "error" in message]
        if any(map(disk_full, errors)):
            raise no_space("; ".join(errors))
        image = None if errors else self.find(plan.tag)
        if image is None:
            raise Refused("; ".join(errors) or "no error, and no image")
        return image

    def commit(self, base: Image, layers: Sequence[Layer], plan: Plan) -> Image:
        """Add the layers, as one, by unpacking them into a container that is never started. Works with any engine,
        but the engine writes the time into the image, so that each has an id of its own."""
        client = self.client
        host = client.create_host_config(network_mode="none")
        container = client.create_container(base.id, command=["-"], host_config=host)["Id"]
        try:
            for layer in layers:
                layer.file.seek(0)
                client.put_archive(container, "/", layer.file)
            changes = [f"LABEL {k}={v}" for k, v in plan.labels.items()]
            changes.append("CMD " + json.dumps(base.config.get("Cmd") or []))
            client.commit(container, plan.repository, plan.key, changes=changes)
        finally:
            self._remove_container(container)
        image = self.find(plan.tag)
        if image is None:
            raise _engine_error(f"it said nothing of an error, but has no {plan.tag}")
        return image

    def _remove_container(self, container: str) -> None:
        try:
            self.client.remove_container(container, force=True)
        except NotFound:
            log.debug("container %s was gone already", container)


def _sending(parts: Iterable[bytes], layers: Sequence[Layer], report: Report) -> Iterator[bytes]:
    """Pass an archive on, telling how much of the layers is sent."""
    total, sent = sum(layer.size for layer in layers), 0
    for part in parts:
        yield part
        sent = min(sent + len(part), total)
        report.progress("load", sent, total, "bytes")
