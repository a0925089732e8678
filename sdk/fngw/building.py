"""What `fngw build` does, as a story: pack, send what the gateway lacks, have it built, follow that to its end."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from fngw.deploying import upgraded, upload
from fngw.errors import BuildFailed, from_problem
from fngw.progress import Progress
from fngw.rollout import Rollout

if TYPE_CHECKING:
    from fngw.client import Client, Event
    from fngw.deployments import Deployment
    from fngw.spec import DeploymentSpec

__all__ = ["build"]


def build(deployment: Deployment, client: Client, progress: Progress, *, upgrade: bool = False) -> dict[str, Any]:
    """Build what a deployment runs from, as a deploy of it does, without deploying it.

    Args:
        client: for the gateway that has it built.
        progress: told how it goes.
        upgrade: solve what it depends on anew.

    Returns:
        ``image`` and ``ref``, or ``python``, ``app_dir`` and ``environment`` for local processes; ``lock``;
        ``layers`` of ``what``, ``digest``, ``size`` (bytes) and ``reused``; ``reused``; ``seconds``.

    Raises:
        BuildFailed: it could not be built.
        KeyboardInterrupt: the build is stopped, too.
        FngwError: as for ``deploying.deploy``.
    """
    try:
        progress.working(f"packing {deployment.name}", brief=True)
        options = deployment._options
        # Arguments count only where they alone use a local module; there may be none yet, so they are not checked.
        prepared = deployment._source.prepare(options, options.init_args, options.init_kwargs, client)
        with prepared:
            for blob in prepared.blobs:
                upload(client, blob, progress)
        spec = upgraded(prepared).spec if upgrade else prepared.spec
        return _follow(client, spec, progress)
    except KeyboardInterrupt:
        progress.trouble(f"stopped, and the build of {deployment.name} with it")
        raise
    finally:
        progress.rest()


def _follow(client: Client, spec: DeploymentSpec, progress: Progress) -> dict[str, Any]:
    rollout = Rollout(progress)
    with closing(client.build(spec)) as events:  # type: ignore[type-var]  # a generator
        for event in events:
            if event.terminal:
                return _result(event)
            rollout.hear(event)
    raise AssertionError("client.build ends with a terminal event")


def _result(event: Event) -> dict[str, Any]:
    if event.kind == "done":
        return dict(event.fields["result"])
    problem = event.fields.get("problem")
    raise from_problem(problem) if problem else BuildFailed(f"the build failed: {event.message}")
