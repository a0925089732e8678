"""This process and its gateway: which one it is, what runs there, and an end to all of it.

Standard library only (all of it with what replicas have, but for ``shutdown``), Python >= 3.7.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional
from urllib.parse import quote

from fngw import endpoint
from fngw.deployments import Deployment
from fngw.endpoint import Endpoint
from fngw.errors import DeploymentNotFound
from fngw.protocol import API_PREFIX
from fngw.sources import StoredSource, options_from_spec
from fngw.spec import DeploymentSpec

__all__ = ["connect", "get_deployment", "list_deployments", "shutdown"]


def connect(url: Optional[str] = None, token: Optional[str] = None) -> None:
    """Use this gateway in this process from now on, once it has answered.

    Args:
        url: its base, such as ``"http://localhost:8000"``; None: ``FNGW_URL``, else the user's
            file (``~/.config/fngw/config.toml``), else that.
        token: None: ``FNGW_TOKEN``, else the file's where the URL is the file's, too, else none.

    Raises:
        ValidationError: not a URL, or a file that makes no sense (code ``config_invalid``).
        Unreachable: no gateway answers there.
        Unauthorized: it wants a token, or another one.

    Example:
        >>> fngw.connect("https://gateway.example.com", token="…")
    """
    chosen = endpoint.resolve(url, token)
    _ask("/info", chosen)
    endpoint.choose(chosen)


def list_deployments() -> Dict[str, Deployment]:
    """Return what is deployed, by name.

    Example:
        >>> sorted(fngw.list_deployments())
        ['Greeter']
    """
    names = [s["name"] for s in _statuses() if s.get("status") != "DELETING"]
    found = ((name, _fetch(name)) for name in sorted(names))
    return {name: deployment for name, deployment in found if deployment is not None}


def get_deployment(name: str) -> Deployment:
    """Return what is deployed under ``name``: to call, change and redeploy it, or delete it. Its code and
    constructor arguments stay with the gateway; a redeploy uses them again unless new arguments are given.

    Raises:
        DeploymentNotFound: (a ``KeyError``) there is none of this name.

    Example:
        >>> fngw.get_deployment("Greeter").options(num_replicas=3).deploy()
    """
    found = _fetch(name)
    if found is None:
        names = sorted(s["name"] for s in _statuses())
        known = "deployed are: " + ", ".join(names) if names else "nothing is deployed"
        raise DeploymentNotFound(f"no deployment is named {name!r}", hint=known)
    return found


def shutdown() -> None:
    """Delete all deployments and wait until they are gone.

    The gateway goes on; ``fngw down`` stops it.
    """
    from fngw.deploying import delete_all

    delete_all()


# -- looking, without the client: inside a replica there is no httpx -------------------------------------------


def _statuses() -> List[Dict[str, Any]]:
    return list(_ask("/deployments")["deployments"])


def _fetch(name: str) -> Optional[Deployment]:
    try:
        found = _ask(f"/deployments/{quote(name, safe='')}/spec")
    except DeploymentNotFound:
        return None
    spec = DeploymentSpec.from_dict(found["spec"])
    return Deployment(StoredSource(name, spec.code.has_reconfigure, spec), options_from_spec(spec))


def _ask(path: str, where: Optional[Endpoint] = None) -> Dict[str, Any]:
    """Return what the control API answers, by the way that calls take."""
    from fngw import transport
    from fngw.refs import refusal

    where = where or endpoint.current()
    reply = transport.submit(transport.request(where, "GET", API_PREFIX + path, {})).result()
    if reply.status != 200:
        raise refusal(reply, f"the gateway at {where.where}")
    return dict(json.loads(reply.body.decode()))
