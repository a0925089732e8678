"""Find the user's object and construct it.

Each step that can fail raises ``DeploymentFailed`` with a code of its own and the traceback, cut at the user's
first frame: ``python_mismatch``, ``import_failed``, ``unpickle_failed``, ``constructor_failed``.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, Tuple

from fngw import protocol
from fngw.errors import DeploymentFailed
from fngw.protocol import ReplicaConfig
from fngw_runtime.reports import describe, user_traceback
from fngw_runtime.threads import Threads

__all__ = ["USER_ERRORS", "call_either", "construct", "failed", "load_code", "load_init"]

#: What user code may raise without ending the replica. ``sys.exit()`` in a function is its failure, not ours.
USER_ERRORS = (Exception, SystemExit)

Init = Tuple[Tuple[Any, ...], Dict[str, Any]]

_WHAT = {
    "import_failed": "its code cannot be imported: ",
    "unpickle_failed": "its code or arguments cannot be unpickled: ",
    "constructor_failed": "its constructor raised ",
    "reconfigure_failed": "its reconfigure raised ",
}


def failed(code: str, error: BaseException) -> DeploymentFailed:
    """Return the failure to start that ``error`` in user code means."""
    return DeploymentFailed(_WHAT.get(code, "") + describe(error), code=code, detail=user_traceback(error))


def load_code(config: ReplicaConfig) -> Any:
    """Return the user's class or function, imported or unpickled. Runs user code: call it in a thread.

    Raises:
        DeploymentFailed: with code ``python_mismatch``, ``unpickle_failed`` or ``import_failed``.
    """
    if config.pickle is None:
        return _guarded("import_failed", lambda: _original(_import(str(config.target))))
    check_python(config.python)
    path = Path(config.app_dir, config.pickle)
    return _guarded("unpickle_failed", lambda: _original(_unpickle(path)))


def load_init(config: ReplicaConfig, directory: Path) -> Init:
    """Return the constructor's ``(args, kwargs)``.

    Raises:
        DeploymentFailed: with code ``unpickle_failed``.
    """
    if not config.init:
        return (), {}
    args, kwargs = _guarded("unpickle_failed", lambda: _unpickle(directory / protocol.INIT_FILE))
    return tuple(args), dict(kwargs)


def check_python(wanted: str) -> None:
    """Refuse a by-value pickle of another Python before loading it: its byte-code could crash this one.

    Raises:
        DeploymentFailed: with code ``python_mismatch``.
    """
    here = "%d.%d" % sys.version_info[:2]
    if wanted != here:
        raise DeploymentFailed(
            f"the function was pickled by Python {wanted}, but this replica runs Python {here}",
            code="python_mismatch",
            hint=f"deploy from Python {here}, set python={wanted!r}, or move the function into a module",
        )


async def construct(code: Any, init: Init, threads: Threads) -> Any:
    """Return the instance of a class, or a function as it is.

    Raises:
        DeploymentFailed: with code ``constructor_failed``.
    """
    if not inspect.isclass(code):
        return code
    args, kwargs = init
    try:
        if not inspect.iscoroutinefunction(code.__init__):
            return await threads.call(code, *args, **kwargs)
        instance = code.__new__(code, *args, **kwargs)
        await code.__init__(instance, *args, **kwargs)
        return instance
    except USER_ERRORS as error:
        raise failed("constructor_failed", error) from error


async def call_either(function: Callable[..., Any], threads: Threads, *args: Any) -> Any:
    """Call a sync function in a thread, an async one on the loop."""
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    result = await threads.call(function, *args)
    return await _as_awaitable(result) if inspect.isawaitable(result) else result


async def _as_awaitable(result: Awaitable[Any]) -> Any:
    return await result


def _guarded(code: str, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except USER_ERRORS as error:
        raise failed(code, error) from error


def _import(target: str) -> Any:
    module, _, path = target.partition(":")
    value: Any = importlib.import_module(module)
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _unpickle(path: Path) -> Any:
    import cloudpickle  # noqa: F401  what it wrote may refer to it; imported here, its absence says so plainly

    with path.open("rb") as file:
        return pickle.load(file)


def _original(value: Any) -> Any:
    """Unwrap a ``Deployment``: importing a decorated name gives the wrapper. Known by its shape, not its type."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value
    return getattr(value, "func_or_class", value)
