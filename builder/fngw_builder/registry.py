"""A registry that keeps a copy of every image, for other machines. Only layers that it lacks travel.

The engine does the talking, with the credentials that ``docker login`` stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from docker.errors import APIError, NotFound

from fngw.errors import BuildFailed
from fngw_builder.plan import Plan
from fngw_builder.report import Report


class Registry:
    """The registry of ``FNGW_REGISTRY``.

    Args:
        repository: ``"HOST/REPOSITORY"``.
        client: a connected low-level client of the engine, which pulls and pushes.
    """

    def __init__(self, repository: str, client: Any) -> None:
        self._repository = repository
        self._client = client

    def pull(self, plan: Plan, report: Report) -> bool:
        """Have the engine take over the image of a plan as another machine made it; False if there is none.

        Raises:
            BuildFailed: ``registry_failed``.
        """
        name = self._name(plan)
        try:
            self._follow(
                "pull", self._client.pull(self._repository, tag=plan.key, stream=True, decode=True), report
            )
        except (NotFound, _Missing):
            return False
        except APIError as error:
            raise self._failed("pulled", str(error.explanation or error)) from error
        self._client.tag(name, plan.repository, plan.key)
        self._client.remove_image(name)  # the name alone: the image has another
        report.say(f"pulled {name}")
        return True

    def push(self, plan: Plan, report: Report) -> None:
        """Have the registry keep the image of a plan, unless it does already.

        Raises:
            BuildFailed: ``registry_failed``.
        """
        name = self._name(plan)
        if self._has(name):
            return
        self._client.tag(plan.tag, self._repository, plan.key)
        try:
            self._follow(
                "push", self._client.push(self._repository, tag=plan.key, stream=True, decode=True), report
            )
        except (APIError, _Missing) as error:
            raise self._failed("pushed", str(error)) from error
        finally:
            self._client.remove_image(name)
        report.say(f"pushed {name}")

    def _name(self, plan: Plan) -> str:
        return f"{self._repository}:{plan.key}"

    def _has(self, name: str) -> bool:
        try:
            self._client.inspect_distribution(name)
        except APIError:  # also when it cannot be asked: pushing then tells why
            return False
        return True

    def _follow(self, step: str, messages: Iterable[Mapping[str, Any]], report: Report) -> None:
        """Tell the progress of all layers together; an error in the stream comes with the status 200."""
        sizes: dict[str, tuple[int, int]] = {}
        for message in messages:
            if "error" in message:
                text = str(message["error"])
                if "not found" in text or "manifest unknown" in text:
                    raise _Missing(text)
                raise self._failed(f"{step}ed", text)
            detail = message.get("progressDetail") or {}
            if detail.get("total") and message.get("status") in ("Pushing", "Downloading"):
                sizes[message["id"]] = (min(detail.get("current", 0), detail["total"]), detail["total"])
                done, total = (sum(column) for column in zip(*sizes.values(), strict=True))
                report.progress(step, done, total, "bytes")

    def _failed(self, what: str, detail: str) -> BuildFailed:
        return BuildFailed(
            f"the image could not be {what}: {self._repository} refuses, or does not answer",
            code="registry_failed",
            hint="check FNGW_REGISTRY, and `docker login` as the user that runs the builder; "
            "a registry without TLS must be among the engine's insecure-registries",
            detail=detail,
        )


class _Missing(Exception):
    """The registry has no such image."""
