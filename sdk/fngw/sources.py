"""Where a deployment's code is: in this process (``LocalSource``), or with the gateway (``StoredSource``).

Both can prepare a deploy: a spec, and the blobs that the gateway needs for it.

Standard library only, Python >= 3.7: this module is copied into replica images. Packing and the control API's
client, which need more, are loaded on first use.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import io
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from fngw.errors import ValidationError
from fngw.options import Options
from fngw.spec import DeploymentSpec, digest_of, spec_from_options

if TYPE_CHECKING:
    from fngw.client import Client

__all__ = ["Blob", "LocalSource", "Prepared", "Source", "StoredSource", "caller_python", "options_from_spec"]


def caller_python() -> str:
    """Return this interpreter's ``"X.Y"``."""
    return "%d.%d" % sys.version_info[:2]


@dataclass(frozen=True)
class Blob:
    """A file's content with its name, ``"sha256:<hex>"``. ``what`` is for people, ``size`` in bytes."""

    what: str
    digest: str
    size: int
    file: IO[bytes] = dataclasses.field(repr=False, compare=False)

    @classmethod
    def of(cls, what: str, data: bytes) -> Blob:
        return cls(what, digest_of(data), len(data), io.BytesIO(data))


@dataclass(frozen=True)
class Prepared:
    """A deploy that is ready to be sent. Leaving it as a context closes the blobs' files."""

    spec: DeploymentSpec
    blobs: Tuple[Blob, ...]

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *error: Any) -> None:
        for blob in self.blobs:
            blob.file.close()


class Source(abc.ABC):
    """Where a deployment's code is."""

    is_class: bool
    has_reconfigure: bool

    @property
    @abc.abstractmethod
    def func_or_class(self) -> Callable[..., Any]:
        """The function or class in this process.

        Raises:
            ValidationError: it is not in this process.
        """

    @abc.abstractmethod
    def prepare(self, options: Options, args: Tuple[Any, ...], kwargs: Dict[str, Any], client: Client) -> Prepared:
        """Return the spec and blobs of a deploy with these options and constructor arguments."""

    def check(self, options: Options) -> None:
        """Refuse options that do not fit the code.

        Raises:
            ValidationError: a ``user_config`` that nothing takes, or constructor arguments for a function.
        """
        if options.user_config is not None and not self.has_reconfigure:
            what = f"{options.name} has no reconfigure method" if self.is_class else f"{options.name} is a function"
            raise ValidationError(
                f"user_config: {what}, so nothing would take it",
                hint="define reconfigure(self, config) in the class, or leave user_config out",
            )
        if not self.is_class:
            self.check_arguments(options.init_args, options.init_kwargs)

    def check_arguments(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        """Refuse constructor arguments that cannot fit, before anything is packed.

        Raises:
            TypeError: the constructor does not take them; names the argument.
            ValidationError: there is no constructor.
        """
        if not self.is_class and (args or kwargs):
            name = "init_args" if args else "init_kwargs"
            raise ValidationError(f"{name}: a function takes no constructor arguments")


class LocalSource(Source):
    """A function or class of this process.

    Raises:
        TypeError: neither a function nor a class.
    """

    def __init__(self, func_or_class: Callable[..., Any]) -> None:
        if not (inspect.isclass(func_or_class) or inspect.isroutine(func_or_class)):
            raise TypeError(f"fngw.deployment decorates a function or a class, not {func_or_class!r}")
        self._object = func_or_class
        self.is_class = inspect.isclass(func_or_class)
        self.has_reconfigure = self.is_class and callable(getattr(func_or_class, "reconfigure", None))

    @property
    def default_name(self) -> str:
        """The deployment's name unless one is given."""
        return str(self._object.__name__)

    @property
    def func_or_class(self) -> Callable[..., Any]:
        return self._object

    def check_arguments(self, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        super().check_arguments(args, kwargs)
        signature = _signature(self._object) if self.is_class else None
        if signature is None:
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            raise TypeError(f"{self._object.__name__}{inspect.Signature(plain)}: {error}") from None

    def prepare(self, options: Options, args: Tuple[Any, ...], kwargs: Dict[str, Any], client: Client) -> Prepared:
        from fngw.pack import pack

        packed = pack(self._object, options, args, kwargs, client.bundle_limit())
        code = dataclasses.replace(packed.code, is_class=self.is_class, has_reconfigure=self.has_reconfigure)
        init = packed.init.digest if packed.init else None
        spec = spec_from_options(packed.options, code, init, packed.python)
        return Prepared(spec, (packed.bundle, packed.init) if packed.init else (packed.bundle,))


def _signature(cls: Callable[..., Any]) -> Optional[inspect.Signature]:
    """Return what a class is constructed with, or None where that cannot be told before it is tried."""
    try:
        # Not that of what a decorator wraps: it may give some of the arguments itself.
        return inspect.signature(cls, follow_wrapped=False)
    except Exception:  # written in C; or the class's own code raised: a metaclass, an annotation (Python >= 3.14)
        return None


class StoredSource(Source):
    """Code that the gateway has, under a deployment's name.

    Args:
        name: of the deployment.
        has_reconfigure: whether its code takes a ``user_config``.
        spec: what is deployed; None: ask the gateway when it is needed.
    """

    def __init__(self, name: str, has_reconfigure: bool, spec: Optional[DeploymentSpec] = None) -> None:
        self._name = name
        self._spec = spec
        self.has_reconfigure = has_reconfigure
        self.is_class = spec.code.is_class if spec else True

    @property
    def func_or_class(self) -> Callable[..., Any]:
        raise ValidationError(
            f"func_or_class: the code of {self._name} is with the gateway, not in this process",
            code="code_not_here",
            hint="import the module that defines it",
        )

    def prepare(self, options: Options, args: Tuple[Any, ...], kwargs: Dict[str, Any], client: Client) -> Prepared:
        """As ``Source.prepare``: with the stored code, and constructor arguments unless new ones are given."""
        from fngw.environments import read_environment
        from fngw.pickles import pickle_arguments

        spec = self._spec or client.spec(self._name)[0]
        options = read_environment(options, None)
        python = self._checked_python(options.python or spec.python, spec)
        given = pickle_arguments(args, kwargs, python) if args or kwargs else None
        blobs = (Blob.of("constructor arguments", given.data),) if given else ()
        init = blobs[0].digest if blobs else spec.init
        return Prepared(spec_from_options(options, spec.code, init, python), blobs)

    def _checked_python(self, python: str, spec: DeploymentSpec) -> str:
        if spec.code.pickle and python != spec.python:
            raise ValidationError(
                f"python: {self._name} was pickled by Python {spec.python} and cannot run on {python}",
                code="python_mismatch",
            )
        return python


def options_from_spec(spec: DeploymentSpec) -> Options:
    """Return the options that ``spec`` came from; its constructor arguments stay with the gateway."""
    known = {f.name for f in dataclasses.fields(Options)}
    values = {k: v for k, v in spec.to_dict().items() if k in known}
    values["pip"] = spec.pip
    if spec.route_prefix == "/" + spec.name:
        del values["route_prefix"]  # the default, which follows the name
    return Options(**values)
