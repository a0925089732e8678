"""Small parts of making environments: skeletons, merging, records, shebangs, errors of a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fngw.errors import BuildFailed
from fngw_builder.environment import disk, merge, relocate, skeleton, wheel_files
from fngw_builder.environment.wheel_files import Row


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


# -- skeletons ---------------------------------------------------------------------------------------------


def test_a_skeleton_is_a_virtual_environment_of_its_interpreter(tmp_path: Path) -> None:
    base = os.path.realpath(sys.executable)
    skeleton.write(tmp_path, "%d.%d" % sys.version_info[:2], base)
    code = "import sys, site; print(sys.prefix, sys.base_prefix, site.getsitepackages()[0])"
    for name in ("python", "python3", "python%d.%d" % sys.version_info[:2]):
        line = [tmp_path / "bin" / name, "-c", code]
        done = subprocess.run(line, env={}, capture_output=True, text=True, check=True)
        packages = tmp_path / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"
        assert done.stdout.split() == [str(tmp_path), sys.base_prefix, str(packages)]


def test_a_skeleton_needs_no_interpreter_to_be_made(tmp_path: Path) -> None:
    skeleton.write(tmp_path, "3.12", "/usr/local/bin/python3.12")
    assert (tmp_path / "bin" / "python").readlink() == Path("/usr/local/bin/python3.12")
    assert (tmp_path / "pyvenv.cfg").read_text() == (
        "home = /usr/local/bin\ninclude-system-site-packages = false\nversion = 3.12\n"
    )


# -- merging -----------------------------------------------------------------------------------------------


def test_folders_are_merged_and_the_moved_file_stays(tmp_path: Path) -> None:
    source = write(tmp_path / "new", a="new", d__x="new", e__y="new")
    target = write(tmp_path / "old", a="old", b="old", d__z="old")
    merge.merge(source, target, target)
    assert texts(target) == {"a": "new", "b": "old", "d/x": "new", "d/z": "old", "e/y": "new"}
    assert not source.exists()


def test_a_replaced_hard_link_leaves_the_other_alone(tmp_path: Path) -> None:
    cached = write(tmp_path / "cache", a="cached") / "a"
    target = tmp_path / "old"
    target.mkdir()
    (target / "a").hardlink_to(cached)
    merge.merge(write(tmp_path / "new", a="new"), target, target)
    assert cached.read_text() == "cached"


@pytest.mark.parametrize(("new", "old"), [({"x": ""}, {"x__y": ""}), ({"x__y": ""}, {"x": ""})])
def test_a_file_and_a_folder_of_the_same_name_do_not_merge(
    tmp_path: Path, new: dict[str, str], old: dict[str, str]
) -> None:
    target = write(tmp_path / "old", **old)
    with pytest.raises(BuildFailed, match="x of another package") as failed:
        merge.merge(write(tmp_path / "new", **new), target, target)
    assert failed.value.code == "bad_package"


def test_links_inside_are_followed_and_links_to_the_outside_are_not(tmp_path: Path) -> None:
    target, outside = write(tmp_path / "old", lib__x="old"), tmp_path / "outside"
    outside.mkdir()
    (target / "lib64").symlink_to("lib")
    merge.merge(write(tmp_path / "new", lib64__y="new"), target, target)
    assert texts(target / "lib") == {"x": "old", "y": "new"}
    (target / "bad").symlink_to(outside)
    with pytest.raises(BuildFailed):
        merge.merge(write(tmp_path / "newer", bad__y="new"), target, target)
    assert list(outside.iterdir()) == []


def test_a_link_is_replaced_by_a_file_not_written_through(tmp_path: Path) -> None:
    target, outside = tmp_path / "old", write(tmp_path / "outside", f="safe")
    target.mkdir()
    (target / "f").symlink_to(outside / "f")
    merge.merge(write(tmp_path / "new", f="new"), target, target)
    assert (outside / "f").read_text() == "safe"
    assert (target / "f").read_text() == "new"


# -- records -----------------------------------------------------------------------------------------------


def test_a_record_is_written_sorted_and_read_back(tmp_path: Path) -> None:
    info = tmp_path / "x-1.0.dist-info"
    info.mkdir()
    rows = [Row("x/b.py", "sha256=abc", "3"), Row('x/a "quoted", name.py', "", ""), Row("../../../bin/x")]
    wheel_files.write(info, rows)
    assert (info / "RECORD").read_text() == (
        '../../../bin/x,,\nx-1.0.dist-info/RECORD,,\n"x/a ""quoted"", name.py",,\nx/b.py,sha256=abc,3\n'
    )
    assert sorted(wheel_files.read(info)) == sorted(rows)


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ("Jinja2-3.1.2.dist-info", "jinja2"),
        ("zope.interface-6.0.dist-info", "zope-interface"),
        ("ruamel_yaml-1.0.egg-info", "ruamel-yaml"),
        ("old-1.0-py3.11.egg-info", "old"),
        ("plain.egg-info", "plain"),
    ],
)
def test_names_are_normalised(info: str, name: str) -> None:
    assert wheel_files.name_of(Path(info)) == name


def test_damage_is_seen_by_size_hash_and_absence(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole", "changed", "longer", "absent", "unhashed"):
        package = write(library / name, file="text")
        info = library / f"{name}-1.0.dist-info"
        info.mkdir()
        row = wheel_files.row_of(library, package / "file")
        wheel_files.write(info, [Row(row.path) if name == "unhashed" else row])
    (library / "changed" / "file").write_text("TEXT")
    (library / "longer" / "file").write_text("longer")
    (library / "absent" / "file").unlink()
    assert wheel_files.damaged(tmp_path) == ["absent", "changed", "longer"]


# -- shebangs ----------------------------------------------------------------------------------------------


def test_short_paths_are_plain_shebangs() -> None:
    assert relocate.shebang("/opt/fngw/env/bin/python") == "#!/opt/fngw/env/bin/python\n"


@pytest.mark.parametrize("folder", ["with blank", "l" * 130])
def test_other_paths_go_through_a_shell(tmp_path: Path, folder: str) -> None:
    python = tmp_path / folder / "python"
    python.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))
    script = tmp_path / "script"
    script.write_text(relocate.shebang(str(python)) + "import sys\nprint(sys.argv[1:])\n")
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', 'c']\n"


# -- disks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(tmp_path: Path, number: int) -> None:
    with pytest.raises(BuildFailed, match="no space") as failed, disk.watched(tmp_path):
        raise OSError(number, os.strerror(number))
    assert failed.value.code == "disk_full"
    assert disk.is_full(os.strerror(number))


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk.watched(tmp_path):
        raise PermissionError(errno.EACCES, "no")
