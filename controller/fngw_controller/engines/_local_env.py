"""The environment of a replica that is a local process: clean, and with the runtime importable."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fngw import protocol
from fngw_controller.engines import _mps
from fngw_controller.engines.base import ReplicaSpec

#: What a replica keeps of the controller's own variables: how to find programs, the network, its language.
KEPT = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH CUDA_HOME CUDA_PATH "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE "
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy".split()
)
KEPT_PREFIXES = ("LC_",)

#: The packages that a replica's interpreter has to find.
RUNTIME_PACKAGES = ("fngw", "fngw_runtime")


def environment(spec: ReplicaSpec, own: Mapping[str, str], runtime: Path) -> dict[str, str]:
    """Return the variables of a replica's process.

    Args:
        spec: the replica.
        own: this process' variables.
        runtime: the folder made by ``link_runtime``.
    """
    env = {k: v for k, v in own.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    env["PYTHONUNBUFFERED"] = "1"
    env["PATH"] = os.pathsep.join([str(Path(spec.artifact.python).parent), env.get("PATH", os.defpath)])
    env |= spec.user_env
    if not is_own(spec.artifact.python):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(runtime)]))
    elif "VIRTUAL_ENV" in own:
        env.setdefault("VIRTUAL_ENV", own["VIRTUAL_ENV"])
    env[protocol.REPLICA_DIR_VARIABLE] = str(spec.directory)
    env["CUDA_VISIBLE_DEVICES"] = ",".join(spec.gpus)  # empty: none, where unset would mean all
    env |= _mps.variables(spec)
    return env


def is_own(python: str) -> bool:
    """Tell whether it is the very interpreter that runs this. Unresolved: the link *is* the virtual environment."""
    return Path(python).absolute() == Path(sys.executable).absolute()


def link_runtime(folder: Path) -> None:
    """Fill ``folder`` with links to the runtime's packages.

    Not simply their parent folder: that may be this environment's site-packages, whose other packages, built for
    another Python, would then hide the replica's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUNTIME_PACKAGES:
        link, target = folder / name, _package_dir(name)
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _package_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {name} is not installed beside this one", name=name)
    return Path(spec.submodule_search_locations[0])
