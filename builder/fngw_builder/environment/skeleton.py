"""A virtual environment without packages, over a Python that lies elsewhere: the prefix of pip-only environments.

Written, not made by `venv`: the Python need not run here, and what its own version of `venv` would add differs from
machine to machine.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def write(stage: Path, python: str, interpreter: str) -> None:
    """Write the environment into ``stage``.

    Args:
        stage: an empty folder.
        python: ``"X.Y"``.
        interpreter: the absolute path of the Python that it is for, itself no virtual environment's.
    """
    site_packages(stage, python).mkdir(parents=True)
    # Where distributions keep compiled packages in lib64, Python looks there.
    (stage / "lib64").symlink_to("lib")
    (stage / "bin").mkdir()
    (stage / "bin" / "python").symlink_to(interpreter)
    for name in ("python3", f"python{python}"):
        (stage / "bin" / name).symlink_to("python")
    home = PurePosixPath(interpreter).parent
    (stage / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n")


def site_packages(prefix: Path, python: str) -> Path:
    """Return the folder of a prefix that packages are installed into, unless its Python says otherwise."""
    return prefix / "lib" / f"python{python}" / "site-packages"
