"""What conda's channels have, and which of it fits together: py-rattler, asked synchronously.

The repodata is loaded once, and kept for further questions: those for reasons, when there is no answer. py-rattler
is imported when it is used, as an idle builder has no need of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from fngw.errors import BuildFailed
from fngw_builder.environment.lock import CondaPackage
from fngw_builder.environment.sources import Channel, Sources, redact
from fngw_builder.environment.target import Target
from fngw_builder.environment.unsolvable import NoSolution

if TYPE_CHECKING:
    from rattler import Gateway, MatchSpec, RepoDataRecord

T = TypeVar("T")

#: A solve of conda's largest channels takes seconds; one that takes minutes goes nowhere.
TIMEOUT = timedelta(seconds=120)
_PREAMBLE = "Cannot solve the request because of: "
#: How the solver tells that its time was up.
_CANCELLED = "has been cancelled"


class Repodata:
    """The packages of some channels, for a target.

    Args:
        channels: by priority; a package comes from the first that has one of its name.
        secrets: what `redact` keeps out of errors.
    """

    def __init__(
        self, channels: Sequence[Channel], target: Target, sources: Sources, secrets: dict[str, str]
    ) -> None:
        self.channels = channels
        self._target = target
        self._sources = sources
        self._secrets = secrets

    @cached_property
    def names(self) -> set[str]:
        """The names of all packages.

        Raises:
            BuildFailed: ``channel_unreachable``.
        """
        found = self._ask(lambda: self._gateway.names(**self._where))
        return {name.normalized for name in found}

    def records(self, name: str) -> list[RepoDataRecord]:
        """Return every build of a package.

        Raises:
            BuildFailed: ``channel_unreachable``.
        """
        found = self._ask(lambda: self._gateway.query(**self._where, specs=[name], recursive=False))
        return [record for records in found for record in records]

    def solve(self, specs: Sequence[MatchSpec], constraints: Sequence[MatchSpec] = ()) -> list[RepoDataRecord]:
        """Return packages that satisfy ``specs``, and everything that they depend on.

        Args:
            constraints: what must hold for packages that get in for another reason.

        Raises:
            NoSolution: there are none.
            BuildFailed: ``channel_unreachable``.
        """
        from rattler import BuildString, ChannelPriority, GenericVirtualPackage, PackageName, Version, solve
        from rattler.exceptions import SolverError

        virtual = [
            GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
            for name, version, build in self._target.virtual_packages
        ]
        try:
            return self._ask(
                lambda: solve(
                    **self._where,
                    specs=specs,
                    constraints=constraints,
                    gateway=self._gateway,
                    virtual_packages=virtual,
                    channel_priority=ChannelPriority.Strict,
                    timeout=TIMEOUT,
                )
            )
        except SolverError as error:
            raise NoSolution(self._reason(str(error))) from None

    def package(self, record: RepoDataRecord) -> CondaPackage:
        """Return what a lock says of a record.

        Raises:
            BuildFailed: ``hash_missing``.
        """
        data = json.loads(record.to_json())
        channel = self._channel_of(record)
        if "sha256" not in data:
            raise BuildFailed(
                f"the channel {redact(channel.name)} gives no SHA-256 of {data['fn']}",
                code="hash_missing",
                hint="index the channel again, or ask for another build of the package",
            )
        same = "fn name version build build_number subdir sha256 md5 size python_site_packages_path".split()
        return CondaPackage(
            channel=channel.name,
            noarch=data.get("noarch") or None,
            depends=tuple(data.get("depends", ())),
            constrains=tuple(data.get("constrains", ())),
            **{key: data[key] for key in same if key in data},
        )

    @cached_property
    def _gateway(self) -> Gateway:
        from rattler import Client, Gateway, SourceConfig

        # Sharded repodata with a stale cache fails on "304 Not Modified", as of py-rattler 0.28.
        return Gateway(
            cache_dir=self._sources.repodata,
            default_config=SourceConfig(sharded_enabled=False),
            client=Client.default_client(max_retries=self._sources.retries, user_agent="fngw"),
        )

    @cached_property
    def _where(self) -> dict[str, Any]:
        from rattler import Channel as Address
        from rattler import Subdir

        addresses = [Address(channel.url) for channel in self.channels]
        return {"sources": addresses, "platforms": [Subdir(self._target.subdir), Subdir("noarch")]}

    def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        from rattler.exceptions import FetchRepoDataError, GatewayError

        async def answer() -> T:
            return await question()

        try:
            return asyncio.run(answer())
        except (GatewayError, FetchRepoDataError) as error:
            raise unreachable(str(error), self.channels, self._secrets) from None

    def _reason(self, text: str) -> str:
        if _CANCELLED in text:
            return f"the solver found no answer within {TIMEOUT.seconds} seconds; narrower versions help it"
        return redact(text.removeprefix(_PREAMBLE), self._secrets)

    def _channel_of(self, record: RepoDataRecord) -> Channel:
        """Find it by the package's URL: the record's own name of the channel lacks its password."""
        inside = [channel for channel in self.channels if record.url.startswith(channel.url + "/")]
        return max(inside, key=lambda channel: len(channel.url))


def unreachable(text: str, channels: Sequence[Channel], secrets: dict[str, str]) -> BuildFailed:
    """Return the error for a channel that could not be read: which one, by the address in what py-rattler says.

    Args:
        text: of py-rattler's exception.
    """
    named = [channel for channel in channels if _address(channel.url) + "/" in _without_login(text)]
    which = f"the channel {redact(named[0].name)}" if named else "a channel"
    if "could not find subdir" in text:
        what = f"{which} is not there"
        hint = "check its name: a channel is a folder with linux-64/ and noarch/, each with repodata.json"
    elif re.search(r"\((401|403) ", text):
        what = f"{which} wants another login"
        hint = "write https://user:${NAME}@host/…, and set the variable NAME where fngw is started"
    else:
        what = f"{which} cannot be reached"
        hint = "it was tried several times; see that the builder reaches it, then deploy again"
    return BuildFailed(what, code="channel_unreachable", hint=hint, detail=redact(text, secrets))


def _address(url: str) -> str:
    """As errors show it: paths of files without the scheme, addresses without the login."""
    return url.removeprefix("file://") if url.startswith("file:") else _without_login(url)


def _without_login(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
