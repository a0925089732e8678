"""This process and its gateway: which one it is, what runs there, and an end to all of it.

Standard library only (the control API's client on first use), Python >= 3.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Optional

from fngw import endpoint
from fngw.deployments import Deployment
from fngw.errors import DeploymentNotFound
from fngw.protocol import API_PREFIX
from fngw.sources import StoredSource, options_from_spec

if TYPE_CHECKING:
    from fngw.client import Client

__all__ = ["connect", "get_deployment", "list_deployments", "shutdown"]


def connect(url: Optional[str] = None, token: Optional[str] = None) -> None:
    """Use this gateway in this process from now on, once it has answered.

    Args:
        url: its base, such as ``"http://localhost:8000"``; None: ``FNGW_URL``, else that.
        token: None: ``FNGW_TOKEN``, else none.

    Raises:
        ValidationError: not a URL.
        Unreachable: no gateway answers there.
        Unauthorized: it wants a token, or another one.

    Example:
        >>> fngw.connect("https://gateway.example.com", token="…")
    """
    from fngw import transport  # not the client: inside a replica there may be no httpx
    from fngw.refs import refusal

    chosen = endpoint.resolve(url, token)
    reply = transport.submit(transport.request(chosen, "GET", API_PREFIX + "/info", {})).result()
    if reply.status != 200:
        raise refusal(reply, chosen.where)
    endpoint.choose(chosen)


def list_deployments() -> Dict[str, Deployment]:
    """Return what is deployed, by name.

    Example:
        >>> sorted(fngw.list_deployments())
        ['Greeter']
    """
    from fngw.client import Client

    with Client() as client:
        names = [s["name"] for s in client.deployments() if s.get("status") != "DELETING"]
        found = ((name, _fetch(client, name)) for name in sorted(names))
        return {name: deployment for name, deployment in found if deployment is not None}


def get_deployment(name: str) -> Deployment:
    """Return what is deployed under ``name``: to call, change and redeploy it, or delete it. Its code and
    constructor arguments stay with the gateway; a redeploy uses them again unless new arguments are given.

    Raises:
        DeploymentNotFound: (a ``KeyError``) there is none of this name.

    Example:
        >>> fngw.get_deployment("Greeter").options(num_replicas=3).deploy()
    """
    from fngw.client import Client

    with Client() as client:
        found = _fetch(client, name)
        if found is None:
            names = sorted(s["name"] for s in client.deployments())
            known = "deployed are: " + ", ".join(names) if names else "nothing is deployed"
            raise DeploymentNotFound(f"no deployment is named {name!r}", hint=known)
    return found


def shutdown() -> None:
    """Delete all deployments and wait until they are gone.

    The gateway goes on; ``fngw down`` stops it.
    """
    from fngw.deploying import delete_all

    delete_all()


def _fetch(client: Client, name: str) -> Optional[Deployment]:
    try:
        spec, _ = client.spec(name)
    except DeploymentNotFound:
        return None
    return Deployment(StoredSource(name, spec.code.has_reconfigure, spec), options_from_spec(spec))
