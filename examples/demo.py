"""``make demo``: a throw-away installation, the examples deployed on it, called over HTTP and by handle.

Replicas are containers where a Docker engine answers, else local processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
FNGW = Path(sys.executable).with_name("fngw")


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*words: str) -> None:
    """Run one fngw command, shown as a person would type it."""
    say("$ fngw " + " ".join(words))
    subprocess.run([FNGW, *words], check=True, cwd=HERE.parent)


def choose_engine() -> str:
    """Return ``docker`` where an engine answers and base images can be had, else ``process``; say why."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        say("No Docker engine answers: the replicas will be local processes, without isolation.")
        return "process"
    say("A Docker engine answers: the replicas will be containers. Base images first (a minute, once).")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    settings = {**os.environ, "PYTHON": version, "UV": str(FNGW.with_name("uv"))}
    built = subprocess.run([HERE.parent / "runtime-image" / "build.sh"], env=settings)
    if built.returncode == 0:
        return "docker"
    say("The base images cannot be made here (see above): the replicas will be local processes instead.")
    return "process"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def installation(engine: str) -> Iterator[str]:
    """Run fngw on an empty data directory; yield its URL; leave nothing behind."""
    port, data = free_port(), tempfile.mkdtemp(prefix="fngw-demo-")
    try:
        run("up", "--detach", "--engine", engine, "--port", str(port), "--data-dir", data)
        yield f"http://localhost:{port}"
    finally:
        run("down", "--data-dir", data)
        shutil.rmtree(data)


def show(client: httpx.Client, method: str, path: str, body: str | None = None) -> None:
    answer = client.request(method, path, content=body)
    sent = f" -d {body!r}" if body else ""
    url = str(client.base_url).rstrip("/") + path
    print(f"curl{sent} '{url}'\n    {answer.status_code} {answer.text.rstrip()!r}")
    answer.raise_for_status()


def call_by_handle(url: str) -> None:
    import fngw

    fngw.connect(url)
    handle = fngw.get_deployment("Greeter").get_handle()
    print("handle.greet.remote('Ada').result()\n    ", repr(handle.greet.remote("Ada").result(timeout=30)), sep="")
    refs = [handle.greet.remote(name) for name in ("Grace", "Alan", "Barbara")]
    print("fngw.get([…])\n    ", fngw.get(refs, timeout=30), sep="")


def main() -> int:
    with installation(choose_engine()) as url:
        for example in ("greeter", "square", "files", "compose"):
            run("deploy", f"examples/{example}.py", "--url", url)
        say("Over HTTP:")
        with httpx.Client(base_url=url, timeout=30) as client:
            show(client, "GET", "/Greeter?name=Ada")
            show(client, "GET", "/square?x=7")
            show(client, "GET", "/files/2024/report.txt")
            show(client, "POST", "/summary", "the quick brown fox")
        say("By handle:")
        call_by_handle(url)
        run("list", "--url", url)
    say("That was fngw. Try `fngw up` and your own file next.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
