"""``DeploymentHandle``: calling a deployment by its name, through the gateway.

It holds nothing but names, so it pickles, and works in any thread, event loop, process or replica; where the
gateway is, is looked up at each call. What a call needs is loaded with the first one.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from fngw.protocol import DEFAULT_METHOD

if TYPE_CHECKING:
    from fngw.refs import Ref

__all__ = ["DeploymentHandle"]


class DeploymentHandle:
    """A handle to a deployment, or to one of its methods.

    Args:
        deployment: its name.
        method: ``__call__``, or a method's name.
        pickle_protocol: of the arguments; 4 for replicas on Python 3.7. None: the best.

    Example:
        >>> handle = Greeter.get_handle()
        >>> handle.remote("Ada").result()
        >>> handle.other.remote(1, key=2).result()
    """

    def __init__(
        self, deployment: str, method: str = DEFAULT_METHOD, pickle_protocol: Optional[int] = None
    ) -> None:
        self._deployment = deployment
        self._method = method
        self._pickle_protocol = pickle_protocol

    @property
    def deployment_name(self) -> str:
        """The name of the deployment that it calls."""
        return self._deployment

    def remote(self, *args: Any, **kwargs: Any) -> Ref:
        """Begin a call and return its ``Ref`` at once.

        Functions and classes of ``__main__`` go by value. Arguments are taken as they are now: changing them
        afterwards changes nothing. A ``Ref`` among them arrives as its value.

        Raises:
            pickle.PicklingError, TypeError: an argument cannot be sent.
        """
        from fngw.calls import begin

        return begin(self._deployment, self._method, args, kwargs, self._pickle_protocol)

    def options(
        self, *, method_name: Optional[str] = None, pickle_protocol: Optional[int] = None
    ) -> DeploymentHandle:
        """Return a copy that calls another method, or writes its arguments by another pickle protocol."""
        return DeploymentHandle(
            self._deployment, method_name or self._method, pickle_protocol or self._pickle_protocol
        )

    def __getattr__(self, name: str) -> DeploymentHandle:
        if name.startswith("_"):  # not for callers; and pickle, copy and others look for their hooks this way
            raise AttributeError(name)
        return self.options(method_name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self!r} is called by .remote(…), which returns a Ref")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeploymentHandle):
            return NotImplemented
        ours = (self._deployment, self._method, self._pickle_protocol)
        return ours == (other._deployment, other._method, other._pickle_protocol)

    def __hash__(self) -> int:
        return hash((self._deployment, self._method))

    def __repr__(self) -> str:
        method = "" if self._method == DEFAULT_METHOD else f", method={self._method!r}"
        return f"DeploymentHandle({self._deployment!r}{method})"

    def __reduce__(self) -> Any:
        return (DeploymentHandle, (self._deployment, self._method, self._pickle_protocol))
