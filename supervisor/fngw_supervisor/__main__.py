"""``python -m fngw_supervisor up|down``: what ``fngw up`` and ``fngw down`` run. Settings are ``FNGW_*``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from fngw.errors import FngwError, to_problem
from fngw_supervisor.say import Say, complain, say, say_json, say_nothing, show_json

if TYPE_CHECKING:
    from fngw_supervisor.settings import UpSettings

_INTERRUPTED = 130  # as shells count: 128 + SIGINT


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _parse(argv)
    return reporting(lambda: _run(arguments), arguments.json)


def reporting(work: Callable[[], int], as_json: bool = False) -> int:
    """Return the exit code of ``work``; print its error, if it is one of ours."""
    try:
        return work()
    except FngwError as error:
        complain(error, as_json)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fngw_supervisor", description=__doc__)
    parser.add_argument("command", choices=("up", "down"), nargs="?", default="up")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--ready-fd", type=int, help="file descriptor to tell that it is healthy")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    # Each command needs its own few modules, and none of them is needed for --help.
    if arguments.command == "down":
        _down(arguments.json)
    elif arguments.detach:
        _detach(arguments.json)
    else:
        from fngw_supervisor.up import up

        steps = say_json if arguments.json else say
        up_with(lambda settings, ready: up(settings, ready, say=steps), arguments.ready_fd)
    return 0


def _down(as_json: bool) -> None:
    from fngw_supervisor.down import down
    from fngw_supervisor.settings import load_settings

    stopped = down(load_settings().layout.data, _quiet(as_json))
    if as_json:
        show_json({"stopped": stopped})


def _detach(as_json: bool) -> None:
    from fngw_supervisor.detach import detach
    from fngw_supervisor.settings import load_settings

    running = detach(load_settings().layout, _quiet(as_json))
    if as_json:
        show_json(asdict(running))


def _quiet(as_json: bool) -> Say:
    return say_nothing if as_json else say


def up_with(up: Callable[[UpSettings, Callable[[], None]], None], ready_fd: int | None) -> None:
    """Run ``up`` with the settings from the environment.

    Args:
        up: takes the settings, and what to call when it is healthy.
        ready_fd: file descriptor of the one who detached us, to be told.
    """
    from fngw_supervisor.detach import READY
    from fngw_supervisor.settings import load_settings

    def tell(word: bytes) -> None:
        nonlocal ready_fd
        if ready_fd is not None:
            os.write(ready_fd, word)
            os.close(ready_fd)
            ready_fd = None

    try:
        up(load_settings(), lambda: tell(READY))
    except FngwError as error:
        tell(json.dumps(to_problem(error)).encode())
        raise


if __name__ == "__main__":
    sys.exit(main())
