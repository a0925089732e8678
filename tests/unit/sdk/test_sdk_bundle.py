"""Which files travel, and the archive."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest

import fngw
from fngw.bundle import collect, write_tar

from .sdk_projects import write

LIMIT = 2**20


def names(root: Path) -> list[str]:
    return sorted(collect(root, LIMIT))


def digest(root: Path) -> str:
    blob = write_tar(collect(root, LIMIT))
    blob.file.close()
    return blob.digest


def test_what_is_never_shipped(project: Path) -> None:
    skipped = [
        ".git/x",
        ".venv/x",
        "env/pyvenv.cfg",
        "data/fngw.lock",
        "a/__pycache__/x",
        "node_modules/x",
        "x.egg-info/x",
        "fngw.toml",
    ]
    skipped += [".mypy_cache/x", ".pytest_cache/x", ".fngw/x", "env/bin/python"]
    write(project, dict.fromkeys([*skipped, "a/kept.py", ".env", "venv/kept"], ""))
    assert names(project) == [".env", "a/kept.py", "venv/kept"]


def test_ignore_files(project: Path) -> None:
    write(
        project,
        {
            ".gitignore": "*.log\n/data/\n!keep.log\n# comment\nbuild/\n",
            "a.log": "",
            "keep.log": "",
            "data/x": "",
            "sub/data/x": "",
            "sub/.gitignore": "*.tmp\n!a.log\n",
            "sub/a.log": "",
            "sub/x.tmp": "",
            "x.tmp": "",
            "sub/build/x": "",
        },
    )
    assert names(project) == [
        ".gitignore",
        "keep.log",
        "sub/.gitignore",
        "sub/a.log",
        "sub/data/x",
        "x.tmp",
    ]


def test_fngwignore_has_the_last_word(project: Path) -> None:
    write(project, {".gitignore": "*.bin\n", ".fngwignore": "!model.bin\ntests/\n"})
    write(project, {"model.bin": "", "b.bin": "", "tests/x.py": ""})
    assert names(project) == [".fngwignore", ".gitignore", "model.bin"]


def test_ignore_files_of_the_repository_above(project: Path) -> None:
    write(project, {".git/HEAD": "", ".gitignore": "*.log\n/app/secret\n", "app/a.log": "", "app/secret": ""})
    write(project, {"app/.x": "", "app/deep/secret": "", "ignored/.gitignore": "", "ignored/a.log": ""})
    assert names(project / "app") == [".x", "deep/secret"]
    write(project, {".gitignore": "ignored/\n*.log\n"})
    assert names(project / "ignored") == [".gitignore", "a.log"]


def test_without_a_repository_folders_above_do_not_count(project: Path) -> None:
    write(project, {".gitignore": "*", "app/x": ""})
    assert names(project / "app") == ["x"]


def test_links(project: Path, tmp_path: Path) -> None:
    write(project, {"a/file": "", "b/c/x": ""})
    (project / "b/relative").symlink_to("../a/file")
    (project / "b/absolute").symlink_to(project / "a")
    entries = collect(project, LIMIT)
    assert {n: e.link for n, e in entries.items() if e.link} == {"b/absolute": "../a", "b/relative": "../a/file"}
    (project / "out").symlink_to(tmp_path)
    with pytest.raises(fngw.ValidationError, match="out leads out of") as caught:
        collect(project, LIMIT)
    assert caught.value.code == "link_leaves_root"
    write(project, {".fngwignore": "/out\n"})
    assert "out" not in names(project)


def test_a_link_that_comes_back_is_rewritten(project: Path) -> None:
    write(project, {"a/file": ""})
    (project / "link").symlink_to(f"../{project.name}/a/file")
    assert collect(project, LIMIT)["link"].link == "a/file"


def test_sockets_and_pipes_stay(project: Path) -> None:
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(project / "s"))
        write(project, {"x": ""})
        assert names(project) == ["x"]


def test_the_archive_is_the_same_every_time(project: Path) -> None:
    write(project, {"b.py": "1", "a/x.sh": "2"})
    (project / "a/x.sh").chmod(0o700)
    first = digest(project)
    os.utime(project / "b.py", (1, 1))
    (project / "b.py").chmod(0o600)
    (project / "a/x.sh").chmod(0o755)
    (project / "empty").mkdir()
    assert digest(project) == first
    (project / "b.py").chmod(0o755)
    assert digest(project) != first


def test_what_the_archive_says_of_its_files(project: Path) -> None:
    long = "d" * 90 + "/" + "f" * 90
    write(project, {"b.py": "text", "a.sh": "", long: "", "ünïcode": ""})
    (project / "a.sh").chmod(0o711)
    (project / "link").symlink_to("b.py")
    blob = write_tar(collect(project, LIMIT))
    with blob.file, tarfile.open(fileobj=blob.file) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == ["a.sh", "b.py", long, "link", "ünïcode"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
        assert [oct(m.mode) for m in members[:2]] == ["0o755", "0o644"]
        assert members[3].linkname == "b.py"


def test_a_walk_that_is_hopeless_ends(project: Path) -> None:
    write(project, {f"{i:03}": "x" * 1000 for i in range(100)})
    with pytest.raises(fngw.ValidationError, match="working_dir"):
        collect(project, 1000)


def test_a_file_that_vanishes(project: Path) -> None:
    write(project, {"x": "1"})
    entries = collect(project, LIMIT)
    (project / "x").unlink()
    with pytest.raises(fngw.ValidationError, match="cannot read"):
        write_tar(entries)
