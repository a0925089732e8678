"""The command line: ``fngw COMMAND …``.

``catalog``  the commands, as data, and the top help page
``run``      runs one command; turns errors into exit codes
``report``   how results and errors are shown
``options``  the options that commands share
``values``   text on the command line → Python values
``load``     imports a user's file and finds its deployments
``completion``, ``shapes``, ``shells``   completing in a shell: the command, what there is to complete, the scripts
``manifest``, ``difference``   the file of ``fngw apply``, and what it would change
``here``     what can be seen of this machine without a gateway
``up``, ``deploy``, ``apply``, ``build``, ``inspect``, ``doctor``, ``gpus``, ``change``, ``call``, ``calls``   the
commands themselves, a group each

Nothing but the catalog is imported for ``--version`` and the top ``--help``: they take less than 150 ms.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_HELP = ("--help", "-h", "help")
_VERSION = ("--version", "-V", "version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments after ``fngw``; None: this process's.

    Example:
        >>> main(["--version"])
        fngw 0.1.0
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else "--help"
    if first in _VERSION:
        from fngw import __version__

        print(f"fngw {__version__}")
        return 0
    if first in _HELP and len(arguments) < 2:
        from fngw.cli.catalog import overview

        print(overview())
        return 0
    if first == "help":  # as in `fngw help deploy`
        arguments = [arguments[1], "--help"]
    from fngw.cli.run import run

    return run(arguments[0], arguments[1:])
