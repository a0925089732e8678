"""Plays the runtime in the engines' tests: tells what it sees, then obeys the file ``order`` in its directory.

say TEXT            print it
exit CODE           end
deaf                ignore SIGTERM from now on
child               start a process that sleeps, and print its id
hog MIB             take memory
listen PORT         accept TCP connections
connect HOST PORT   print whether that works within 2 s
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

kept = []


def obey(order, argument):
    if order == "say":
        print(argument, flush=True)
    elif order == "exit":
        sys.exit(int(argument))
    elif order == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
    elif order == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        kept.append(child)
        print("child", child.pid, flush=True)
    elif order == "hog":
        kept.append(bytearray(int(argument) << 20))
    elif order == "listen":
        kept.append(socket.create_server(("0.0.0.0", int(argument))))
        print("listening", flush=True)
    elif order == "connect":
        host, port = argument.split()
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            print("connected", flush=True)
        except OSError:
            print("not connected", flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    directory = pathlib.Path(os.environ["FNGW_REPLICA_DIR"])
    seen = {"env": dict(os.environ), "uid": os.getuid(), "cwd": str(pathlib.Path.cwd())}
    (directory / "seen.json").write_text(json.dumps(seen))
    print("hello", flush=True)
    print("from stderr", file=sys.stderr, flush=True)
    while True:
        path = directory / "order"
        if path.exists():
            order, _, argument = path.read_text().partition(" ")
            path.unlink()
            obey(order, argument)
        time.sleep(0.02)


main()
