"""``python -m fngw_supervisor up|down``: what ``fngw up`` and ``fngw down`` run. Settings are ``FNGW_*``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from fngw.errors import FngwError

from fngw_supervisor.say import complain, say

_INTERRUPTED = 130  # as shells count: 128 + SIGINT


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parse(argv)
    try:
        return _run(arguments)
    except FngwError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fngw_supervisor", description=__doc__)
    parser.add_argument("command", choices=("up", "down"), nargs="?", default="up")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--ready-fd", type=int, help="file descriptor to tell that it is healthy")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    from fngw_supervisor.settings import load_settings  # pydantic: not needed for --help

    settings = load_settings()
    if arguments.command == "down":
        from fngw_supervisor.down import down

        down(settings.layout.data, say)
    elif arguments.detach:
        from fngw_supervisor.detach import detach

        detach(settings.layout, say)
    else:
        from fngw_supervisor.up import up

        up(settings, _teller(arguments.ready_fd))
    return 0


def _teller(fd: int | None) -> Callable[[], None]:
    """Return what tells the one who detached us that we are healthy."""
    from fngw_supervisor.detach import READY

    def tell() -> None:
        if fd is not None:
            os.write(fd, READY)
            os.close(fd)

    return tell


if __name__ == "__main__":
    sys.exit(main())
