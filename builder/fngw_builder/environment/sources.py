"""Where packages come from and are kept: channels, indexes, the caches, and the credentials for them.

Requirements name channels and indexes; what that means on the wire is decided here and nowhere else, so that locks
need no addresses. Credentials are written as ``${VAR}`` and filled in from the builder's environment at the last
moment; `redact` keeps them out of everything that is stored or shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fngw.errors import BuildFailed

if TYPE_CHECKING:
    from fngw_builder.environment.requirements import Requirements

#: What conda means by the channel ``defaults``, on Linux.
DEFAULTS = ("pkgs/main", "pkgs/r")
DEFAULTS_ROOT = "https://repo.anaconda.com"
#: Variables that would change what a lock holds; the rest of ``UV_*`` is the operator's.
IGNORED_VARIABLES = re.compile(
    r"FNGW_.*|VIRTUAL_ENV|CONDA_.*|PYTHON.*|UV_(PYTHON.*|CONSTRAINT|OVERRIDE|EXCLUDE.*|BUILD_CONSTRAINT|"
    r"RESOLUTION|PRERELEASE|NO_BINARY.*|NO_BUILD.*|CACHE_DIR|NO_CACHE|OFFLINE|CONFIG_FILE|TARGET|SYSTEM_PYTHON|"
    r"LINK_MODE|COMPILE_BYTECODE|CUSTOM_COMPILE_COMMAND|REQUIRE_HASHES|NO_VERIFY_HASHES|PROJECT.*|WORKING_DIR.*)"
)
VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
#: Options of `Requirements.pip_options` that may stand in a requirements file, where no other process sees them.
_LINE_OPTIONS = ("--index-url", "--extra-index-url", "--find-links")
#: Those of uv's that have a value.
_VALUED = (*_LINE_OPTIONS, "--allow-insecure-host", "--prerelease")


@dataclass(frozen=True)
class Channel:
    """A conda channel: ``name`` as the lock has it, ``url`` as it is asked, without a slash at its end."""

    name: str
    url: str


@dataclass(frozen=True)
class Sources:
    """Where packages come from and are kept.

    Args:
        cache: the folder of the caches, ``<data>/cache``.
        uv: the path of uv.
        channel_alias: the address under which a channel that is named by a word lies.
        environ: the builder's environment variables; those of fngw itself reach no index.
        pip_options: of the requirements that are served; see `serving`.
        retries: how often something unreachable is asked for again, after ever longer waits.
    """

    cache: Path
    uv: Path
    channel_alias: str = "https://conda.anaconda.org"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    pip_options: tuple[str, ...] = ()
    retries: int = 3

    def serving(self, requirements: Requirements) -> Sources:
        """Return these with what the requirements say of indexes."""
        return replace(self, pip_options=requirements.pip_options)

    # The caches.

    @property
    def repodata(self) -> Path:
        """What the channels have."""
        return self.cache / "repodata"

    @property
    def packages(self) -> Path:
        """Conda packages, unpacked."""
        return self.cache / "packages"

    @property
    def uv_cache(self) -> Path:
        """Wheels, and what the indexes have."""
        return self.cache / "uv"

    # Conda.

    def channels(self, written: Iterable[str]) -> tuple[Channel, ...]:
        """Return the channels in their order of priority.

        Args:
            written: names, ``defaults``, or addresses, as in an ``environment.yml``.

        Raises:
            BuildFailed: ``environment_invalid``: a variable in an address is not set.
        """
        names = [name for text in written for name in (DEFAULTS if text == "defaults" else (text,))]
        return tuple(self.channel(name) for name in dict.fromkeys(name.rstrip("/") for name in names))

    def channel(self, name: str) -> Channel:
        """Return the channel of a name or address, as locks have it.

        Raises:
            BuildFailed: as for `channels`.
        """
        if "://" in name:
            return Channel(name, self.expand(name))
        root = DEFAULTS_ROOT if name.startswith("pkgs/") else self.channel_alias.rstrip("/")
        return Channel(name, f"{root}/{name}")

    # pip.

    def index_lines(self, *, local: bool = True) -> list[str]:
        """The options that say where to look, as lines of a requirements file; variables are left to uv.

        Args:
            local: whether with folders of the bundle, which are relative to the file.
        """
        options = [option for option in _pairs(self.pip_options) if option[0] in _LINE_OPTIONS]
        return [" ".join(option) for option in options if local or not option[1].startswith("./")]

    def uv_arguments(self) -> list[str]:
        """The other options, for uv's command line."""
        return [text for option in _pairs(self.pip_options) if option[0] not in _LINE_OPTIONS for text in option]

    def uv_environment(self) -> dict[str, str]:
        """The environment variables for uv: the operator's, with this cache, without fngw's own."""
        kept = {key: value for key, value in self.environ.items() if not IGNORED_VARIABLES.fullmatch(key)}
        fixed = {"UV_CACHE_DIR": str(self.uv_cache), "UV_HTTP_RETRIES": str(self.retries), "NO_COLOR": "1"}
        return {**kept, **fixed, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}

    # Credentials.

    def expand(self, text: str) -> str:
        """Return ``text`` with each ``${VAR}`` replaced by the variable's value.

        Raises:
            BuildFailed: ``environment_invalid``: one is not set.
        """
        return VARIABLE.sub(lambda match: self._value(match.group(1)), text)

    def check_variables(self, texts: Iterable[str]) -> None:
        """Refuse variables that are not set.

        Raises:
            BuildFailed: ``environment_invalid``.
        """
        for text in texts:
            self.expand(text)

    def secrets(self, texts: Iterable[str]) -> dict[str, str]:
        """Return the variables that ``texts`` name, with their values."""
        names = {name for text in texts for name in VARIABLE.findall(text)}
        return {name: self.environ[name] for name in sorted(names) if self._usable(name)}

    def _value(self, name: str) -> str:
        if not self._usable(name):
            reason = "is fngw's own" if name.startswith("FNGW_") else "is not set where the builder runs"
            raise BuildFailed(
                f"an address names the variable ${{{name}}}, which {reason}",
                code="environment_invalid",
                hint="set it in the environment in which fngw is started, not as FNGW_…",
            )
        return self.environ[name]

    def _usable(self, name: str) -> bool:
        return name in self.environ and not name.startswith("FNGW_")


def redact(text: str, secrets: Mapping[str, str] | None = None) -> str:
    """Return ``text`` without credentials: those in addresses, and the values of ``secrets``.

    Values of less than four characters stay: what is replaced by them would be anything.

    Example:
        >>> redact("GET https://me:pw@example.org/simple")
        'GET https://****@example.org/simple'
    """
    for name, value in sorted((secrets or {}).items(), key=lambda item: -len(item[1])):
        if len(value) > 3:
            text = text.replace(value, f"${{{name}}}")
    text = re.sub(r"(?<=://)[^/@\s'\"]+(?=@)", "****", text)
    return re.sub(r"(?<=/t/)[^/\s'\"$]{4,}(?=/)", "****", text)


def _pairs(options: Sequence[str]) -> Iterator[tuple[str, ...]]:
    left = list(options)
    while left:
        size = 2 if left[0] in _VALUED else 1
        yield tuple(left[:size])
        del left[:size]
