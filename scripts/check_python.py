"""Says what is missing before an environment is made: a new enough Python, with the venv module."""

import importlib.util
import sys

if sys.version_info < (3, 11):
    sys.exit("fngw needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON3=python3.12" % sys.version_info[:2])
if importlib.util.find_spec("ensurepip") is None:
    sys.exit("this Python has no venv module. On Debian and Ubuntu: apt-get install python3-venv")
