"""Every error fngw raises on purpose, as one tree.

::

    FngwError
    ├── ValidationError (ValueError)        a value that cannot work
    ├── DeploymentNotFound (KeyError)
    ├── DeploymentFailed (RuntimeError)     the replica's traceback, or the build's log tail
    │   └── BuildFailed
    ├── RouteConflict (ValueError)
    ├── VersionConflict (ValueError)
    ├── RemoteError                         user code raised on the other side
    ├── CallNotFound (KeyError)
    ├── Overloaded
    ├── Unreachable (ConnectionError)
    └── Unauthorized

Each carries ``code`` (stable, for programs), the message (what happened, to what) and ``hint`` (what to do
next). The same three travel as ``application/problem+json`` (RFC 9457): see ``to_problem`` and ``from_problem``.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Optional, Type

__all__ = [
    "BuildFailed",
    "CallNotFound",
    "DeploymentFailed",
    "DeploymentNotFound",
    "FngwError",
    "Overloaded",
    "RemoteError",
    "RouteConflict",
    "Unauthorized",
    "Unreachable",
    "ValidationError",
    "VersionConflict",
    "from_problem",
    "to_problem",
]


class FngwError(Exception):
    """Base of all errors that fngw raises on purpose.

    Args:
        message: what happened, and to what.
        code: a stable identifier for programs; each class has a default.
        hint: what to do next.
        status: the HTTP status under which the gateway answers it.
        detail: longer text such as a traceback or a log tail; shown after the message.
    """

    code: str = "error"
    hint: str = ""
    status: int = 500
    default_code: ClassVar[str] = "error"
    default_status: ClassVar[int] = 500
    #: Seconds after which to try again, where that is known; told as ``Retry-After``.
    retry_after_s: Optional[int] = None

    def __init__(
        self,
        message: str,
        *,
        code: Optional[str] = None,
        hint: str = "",
        status: Optional[int] = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.status = status or self.default_status
        self.detail = detail

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append(self.detail.rstrip())
        if self.hint:
            parts.append("Hint: " + self.hint)
        return "\n".join(parts)

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.message, self.code, self.hint, self.status, self.detail))


def _rebuild(cls: Type[FngwError], message: str, code: str, hint: str, status: int, detail: str) -> FngwError:
    return cls(message, code=code, hint=hint, status=status, detail=detail)


class ValidationError(FngwError, ValueError):
    """A value that cannot work; the message names the option."""

    default_code = "validation_error"
    default_status = 422


class DeploymentNotFound(FngwError, KeyError):
    """No deployment has this name."""

    default_code = "deployment_not_found"
    default_status = 404


class DeploymentFailed(FngwError, RuntimeError):
    """A deploy did not succeed; ``detail`` has the replica's traceback or the build's log tail."""

    default_code = "deployment_failed"
    default_status = 500


class BuildFailed(DeploymentFailed):
    """The image could not be built."""

    default_code = "build_failed"


class RouteConflict(FngwError, ValueError):
    """Another deployment serves this route prefix."""

    default_code = "route_conflict"
    default_status = 409


class VersionConflict(FngwError, ValueError):
    """``prev_version`` is not what runs now."""

    default_code = "version_conflict"
    default_status = 409


class RemoteError(FngwError):
    """User code raised in a replica.

    ``detail`` is the remote traceback; ``cause`` the innermost original exception where it can be loaded here.
    """

    default_code = "user_exception"
    default_status = 500
    cause: Optional[BaseException] = None


class CallNotFound(FngwError, KeyError):
    """No queued call has this id."""

    default_code = "call_not_found"
    default_status = 404


class Overloaded(FngwError):
    """The deployment's queue is full, or no replica came in time; try again later."""

    default_code = "overloaded"
    default_status = 503


class Unreachable(FngwError, ConnectionError):
    """No gateway answers at this URL."""

    default_code = "unreachable"
    default_status = 503


class Unauthorized(FngwError):
    """The gateway wants a token, or another one."""

    default_code = "unauthorized"
    default_status = 401


_BY_CODE: Dict[str, Type[FngwError]] = {
    cls.default_code: cls
    for cls in (
        ValidationError,
        DeploymentNotFound,
        DeploymentFailed,
        BuildFailed,
        RouteConflict,
        VersionConflict,
        RemoteError,
        CallNotFound,
        Overloaded,
        Unreachable,
        Unauthorized,
    )
}
_BY_NAME = {cls.__name__: cls for cls in _BY_CODE.values()}


def to_problem(error: FngwError) -> Dict[str, Any]:
    """Return ``error`` as a problem document (RFC 9457) with fngw's ``code``, ``hint`` and ``error`` members."""
    problem: Dict[str, Any] = {
        "type": "about:blank",
        "title": error.message,
        "status": error.status,
        "code": error.code,
        "error": type(error).__name__,
    }
    if error.hint:
        problem["hint"] = error.hint
    if error.detail:
        problem["detail"] = error.detail
    return problem


def from_problem(problem: Dict[str, Any]) -> FngwError:
    """Return the exception that ``to_problem`` described; unknown kinds become plain ``FngwError``."""
    code = str(problem.get("code", "error"))
    cls = _BY_NAME.get(str(problem.get("error", ""))) or _BY_CODE.get(code) or FngwError
    return cls(
        str(problem.get("title") or problem.get("detail") or code),
        code=code,
        hint=str(problem.get("hint", "")),
        status=int(problem.get("status", cls.default_status)),
        detail=str(problem.get("detail", "")),
    )
