"""Reading what ``pip=`` holds: lines of a requirements file. Pure.

What a build can answer for is let through: requirements, wheels of the bundle, wheels at an address, and the
options that say where to look. What would run foreign code in the builder (sources, version control) is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from posixpath import normpath
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from fngw.errors import BuildFailed
from fngw_builder.environment.environment_file import Entry, invalid, nearest
from fngw_builder.environment.sources import VARIABLE

HASH = re.compile(r"sha256:[0-9a-f]{64}")
ARCHIVES = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar")
WHEEL_HINT = "build a wheel with `pip wheel`, put it into the working_dir and list it as ./wheels/NAME.whl"
#: By their long names; with what they are called in short.
SHORT = {"-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-c": "--constraint", "-e": "--editable"}
#: An environment is made of wheels and of nothing else, so that these say nothing new.
ALREADY_SO = {"--prefer-binary": False, "--only-binary": True}
REFUSED = {
    "--requirement": "give the file as pip='requirements.txt', or put its lines here",
    "--constraint": "put the versions into the requirements themselves",
    "--editable": "what lies in the working_dir is on the path already; else " + WHEEL_HINT,
    "--index": "pip calls it --extra-index-url",
    "--default-index": "pip calls it --index-url",
    "--no-binary": "environments are made of wheels; " + WHEEL_HINT,
}
_OPTIONS = [
    *("--index-url", "--extra-index-url", "--find-links", "--pre", "--no-index", "--trusted-host"),
    *("--require-hashes", *ALREADY_SO),
]


@dataclass
class PipPart:
    """What pip is asked for.

    Args:
        lines: requirements, each with its hashes (``--hash=sha256:…``).
        options: what is left of the options, in uv's words: ``("--index-url", "https://…", …)``.
        wheels: the paths of those lines that name wheels of the bundle.
    """

    lines: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    wheels: list[str] = field(default_factory=list)
    hashes_required: bool = False


def read_pip(entries: Iterable[Entry]) -> PipPart:
    """Return what the lines ask for.

    Raises:
        BuildFailed: ``environment_invalid`` or ``path_outside``.
    """
    part = PipPart()
    for entry in entries:
        text = _without_comment(entry.text)
        if text.startswith("-"):
            _read_options(part, text, entry.where)
        elif text:
            _read_requirement(part, text, entry.where)
    if part.hashes_required:
        _check_hashes(part.lines)
    return part


def inside(path: str, what: str, where: str = "") -> str:
    """Return a path of the bundle, relative to its root and normal.

    Raises:
        BuildFailed: ``path_outside``.
    """
    normal = normpath(path)
    if path.startswith(("/", "~", "file:")) or normal == ".." or normal.startswith("../"):
        raise BuildFailed(
            f"pip: {what} {path!r} is not in the working_dir{where}",
            code="path_outside",
            hint="only the working_dir travels: put it there and write its path from there, such as ./wheels/x.whl",
        )
    return normal


def wheel_name(path: str, where: str = "") -> tuple[str, str]:
    """Return the name and version that a wheel's file name says.

    Raises:
        BuildFailed: ``environment_invalid``.
    """
    file = unquote(path.rpartition("/")[2])
    try:
        name, version, _build, _tags = parse_wheel_filename(file)
    except InvalidWheelFilename:
        hint = "a wheel is called NAME-VERSION-PYTHON-ABI-PLATFORM.whl; do not rename it"
        raise invalid(f"pip: {file!r} is not the name of a wheel", hint, where=where) from None
    return str(name), str(version)


def _without_comment(text: str) -> str:
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


# -- options ----------------------------------------------------------------------------------------------


def _read_options(part: PipPart, text: str, where: str) -> None:
    try:
        left = shlex.split(text)
    except ValueError as error:
        raise invalid(f"pip: {text!r} cannot be read: {error}", where=where) from None
    while left:
        word = left.pop(0)
        name, given, value = word.partition("=") if word.startswith("--") else _short(word)
        name = SHORT.get(name, name)

        def argument(name: str = name, given: str = given, value: str = value) -> str:
            if given or left:
                return value if given else left.pop(0)
            raise invalid(f"pip: {name} needs a value", where=where)

        _read_option(part, name, argument, where)


def _short(word: str) -> tuple[str, str, str]:
    """Split ``-iURL`` as ``-i URL``."""
    return word[:2], word[2:], word[2:].removeprefix("=")


def _read_option(part: PipPart, name: str, argument: Callable[[], str], where: str) -> None:
    if name in REFUSED:
        raise invalid(f"pip: {name} is not supported", REFUSED[name], where=where)
    if name in ("--index-url", "--extra-index-url"):
        part.options += [name, _address(argument(), where)]
    elif name == "--find-links":
        part.options += [name, _links(argument(), where)]
    elif name == "--trusted-host":
        part.options += ["--allow-insecure-host", argument()]
    elif name == "--pre":
        part.options += ["--prerelease", "allow"]
    elif name == "--no-index":
        part.options += [name]
    elif name == "--require-hashes":
        part.hashes_required = True
    elif name in ALREADY_SO:
        _ = ALREADY_SO[name] and argument()
    else:
        raise invalid(f"pip: unknown option {name}", nearest(name, _OPTIONS), where=where)


def _links(text: str, where: str) -> str:
    return _address(text, where) if "://" in text else "./" + inside(text, "the folder of --find-links", where)


def _address(text: str, where: str) -> str:
    """Refuse what is no address, and passwords: what is written here is stored."""
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in ("https", "http", "file"):
        raise invalid(f"pip: {text!r} is not an address", "such as https://index.example.com/simple", where=where)
    check_credentials(text, where)
    return text


def check_credentials(address: str, where: str = "") -> None:
    """Refuse an address that holds a password or a token in clear.

    Raises:
        BuildFailed: ``environment_invalid``.
    """
    userinfo, at, host = urlsplit(address).netloc.rpartition("@")
    secret = userinfo.rpartition(":")[2]
    if at and not VARIABLE.fullmatch(secret):
        raise invalid(
            f"the address of {host} holds a password or a token in clear",
            "write ${NAME} in its place, and set the variable NAME where fngw is started: "
            f"https://user:${{NAME}}@{host}",
            where=where,
        )


# -- requirements -----------------------------------------------------------------------------------------


def _read_requirement(part: PipPart, text: str, where: str) -> None:
    what, hashes = _split_hashes(text, where)
    wheel = re.match(r"(?P<path>[^\s;@]+\.whl)(?P<rest>(\[[^\]]*\])?\s*(;.*)?)$", what)
    if wheel and "://" not in wheel["path"]:
        path = inside(wheel["path"], "the wheel", where)
        wheel_name(path, where)
        part.wheels.append("./" + path)
        what = f"./{path}{wheel['rest']}"
    else:
        _refuse_sources(what, where)
        what = _requirement(what, where)
    part.lines.append(" ".join([what, *(f"--hash={value}" for value in hashes)]))


def _split_hashes(text: str, where: str) -> tuple[str, list[str]]:
    what, *options = re.split(r"\s+(?=--)", text)
    hashes = []
    for option in options:
        name, _, value = option.replace("=", " ", 1).partition(" ")
        if name != "--hash":
            raise invalid(
                f"pip: {name} is not supported behind a requirement", nearest(name, ("--hash",)), where=where
            )
        hashes.append(_hash(value.strip(), where))
    return what.strip(), hashes


def _hash(value: str, where: str) -> str:
    if not HASH.fullmatch(value):
        raise invalid(f"pip: {value!r} is not a hash", "write --hash=sha256:<64 hex digits>", where=where)
    return value


def _refuse_sources(what: str, where: str) -> None:
    target = what.partition("@")[2].strip() or what
    path = target.partition(";")[0].strip()
    if re.match(r"(git|hg|svn|bzr)\+", target):
        hint = "fngw runs no foreign code to build: " + WHEEL_HINT
        raise invalid(f"pip: {what!r} comes from version control", hint, where=where)
    if path.partition("#")[0].endswith(ARCHIVES):
        raise invalid(f"pip: {what!r} is a source archive", WHEEL_HINT, where=where)
    if path.startswith(("./", "../", "/", "~", "file:")):
        if not path.startswith("./"):
            inside(path, "the path", where)
        raise invalid(f"pip: {what!r} is a folder", REFUSED["--editable"], where=where)


def _requirement(what: str, where: str) -> str:
    if re.match(r"https?://", what):
        address = what.partition(";")[0].strip()
        what = f"{wheel_name(urlsplit(address).path, where)[0]} @ {what}"
    try:
        requirement = Requirement(what)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise invalid(f"pip: {what!r} is not a requirement: {reason}", _REQUIREMENT_HINT, where=where) from None
    if requirement.url:
        _check_url(requirement.url, what, where)
    return str(requirement)


_REQUIREMENT_HINT = "such as numpy, numpy==1.26.4 or 'requests[socks]>=2; python_version < \"3.12\"'"


def _check_url(url: str, what: str, where: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise invalid(f"pip: {what!r} is not at an address of the web", WHEEL_HINT, where=where)
    if not parts.path.endswith(".whl"):
        raise invalid(f"pip: {what!r} is not a wheel", WHEEL_HINT, where=where)
    check_credentials(url, where)
    name = wheel_name(parts.path, where)[0]
    if name != canonicalize_name(what.partition("@")[0].partition("[")[0].strip()):
        raise invalid(f"pip: {what!r} names another package than its wheel, {name}", where=where)
    algorithm, _, value = parts.fragment.partition("=")
    if parts.fragment and algorithm != "egg":
        _hash(f"{algorithm}:{value}", where)


def _check_hashes(lines: Iterable[str]) -> None:
    bare = [line for line in lines if "--hash=" not in line and "#sha256=" not in line]
    if bare:
        raise invalid(
            f"pip: --require-hashes is given, and there is no hash for {', '.join(bare)}",
            "`pip-compile --generate-hashes` or `uv pip compile --generate-hashes` write them",
        )
