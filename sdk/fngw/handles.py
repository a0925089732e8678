"""``DeploymentHandle``: calling a deployment by its name, through the gateway.

It holds nothing but names, so it pickles, and works in any thread, event loop, process or replica; where the
gateway is, is looked up at each call. What a call needs is loaded with the first one.

Standard library only (cloudpickle on first use), Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Tuple

from fngw.protocol import DEFAULT_METHOD

if TYPE_CHECKING:
    from fngw.refs import Ref
    from fngw.submitting import Call

__all__ = ["DeploymentHandle"]


class DeploymentHandle:
    """A handle to a deployment, or to one of its methods.

    Args:
        deployment: its name.
        method: ``__call__``, or a method's name.
        pickle_protocol: of the arguments; 4 for replicas on Python 3.7. None: the best.
        wishes: headers of the calls that it submits.

    Example:
        >>> handle = Greeter.get_handle()
        >>> handle.remote("Ada").result()
        >>> handle.other.remote(1, key=2).result()
    """

    def __init__(
        self,
        deployment: str,
        method: str = DEFAULT_METHOD,
        pickle_protocol: Optional[int] = None,
        wishes: Tuple[Tuple[str, str], ...] = (),
    ) -> None:
        self._deployment = deployment
        self._method = method
        self._pickle_protocol = pickle_protocol
        self._wishes = wishes

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

    def submit(self, *args: Any, **kwargs: Any) -> Call:
        """Put a call into the gateway's queue and return it once it is stored there; see ``fngw.Call``.

        It is made at least once, whatever is restarted meanwhile, and tried again when it fails. Arguments are as
        for ``remote``. This blocks until the gateway has answered: in async code, use a thread.

        Raises:
            pickle.PicklingError, TypeError: an argument cannot be sent.
            DeploymentNotFound, Overloaded, Unreachable, Unauthorized, ValidationError: it was not taken in.

        Example:
            >>> call = handle.options(retries=5, delay_s=60).submit("film.mp4")
            >>> call.id, call.status()
            ('01KAQ7V2M4ZJ0C3S9W8X5T6RNE', 'delayed')
        """
        from fngw.submitting import submit

        return submit(self._deployment, self._method, args, kwargs, self._pickle_protocol, self._wishes)

    def options(
        self,
        *,
        method_name: Optional[str] = None,
        pickle_protocol: Optional[int] = None,
        retries: Optional[int] = None,
        delay_s: Optional[float] = None,
        priority: Optional[str] = None,
        callback_url: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> DeploymentHandle:
        """Return a copy that calls otherwise. What is None stays as it is.

        Args:
            method_name: another method.
            pickle_protocol: for the arguments.
            retries: how often it is tried again, 0 to 20. This and the next four are for ``submit`` alone.
            delay_s: seconds before its first attempt.
            priority: ``high``, ``default`` or ``low``.
            callback_url: told of its end by a signed POST.
            idempotency_key: the same key and arguments give the same call; other arguments are refused.
        """
        wishes = dict(self._wishes)
        if any(wish is not None for wish in (retries, delay_s, priority, callback_url, idempotency_key)):
            from fngw.submitting import wish_headers

            wishes.update(wish_headers(retries, delay_s, priority, callback_url, idempotency_key))
        method, protocol = method_name or self._method, pickle_protocol or self._pickle_protocol
        return DeploymentHandle(self._deployment, method, protocol, tuple(wishes.items()))

    def __getattr__(self, name: str) -> DeploymentHandle:
        if name.startswith("_"):  # not for callers; and pickle, copy and others look for their hooks this way
            raise AttributeError(name)
        return self.options(method_name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self!r} is called by .remote(…), which returns a Ref")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeploymentHandle):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((self._deployment, self._method))

    def __repr__(self) -> str:
        method = "" if self._method == DEFAULT_METHOD else f", method={self._method!r}"
        return f"DeploymentHandle({self._deployment!r}{method})"

    def __reduce__(self) -> Any:
        return (DeploymentHandle, self._fields())

    def _fields(self) -> Tuple[Any, ...]:
        return (self._deployment, self._method, self._pickle_protocol, self._wishes)
