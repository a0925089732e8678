"""The documentation names all that a person can meet, is up to date where it is generated, and leads somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from fngw.cli.catalog import COMMANDS
from fngw.options import LIVE_OPTIONS, OPTION_NAMES
from fngw_state import keys

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = (
    "sdk/fngw",
    "state/fngw_state",
    "gateway/fngw_gateway",
    "controller/fngw_controller",
    "builder/fngw_builder",
    "runtime-image/fngw_runtime",
    "dispatcher/fngw_dispatcher",
    "supervisor/fngw_supervisor",
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Calls whose first argument is an error's code.
TAKES_CODE_FIRST = {"failed", "_guarded", "CallFailed"}
#: Constants that hold one.
CODE_CONSTANTS = {"USAGE_CODE", "FAILED"}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def texts(node: ast.AST) -> set[str]:
    """The string constants in an expression, but for what it only compares with or looks up."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    if isinstance(node, ast.BoolOp):
        return set().union(*map(texts, node.values))
    return set()


def codes_in(node: ast.AST) -> set[str]:
    """The error codes that one node of a syntax tree gives."""
    if isinstance(node, ast.keyword) and node.arg == "code":
        return texts(node.value)
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        names = {"default_code", *CODE_CONSTANTS}
        return texts(node.value) if isinstance(target, ast.Name) and target.id in names else set()
    if isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return texts(node.args[0]) if name in TAKES_CODE_FIRST else set()
    return set()


def known_codes() -> set[str]:
    found: set[str] = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            codes = codes_in(node)
            states = path.name == "lifecycle.py" and codes == {"failed"}  # the name of a state, not an error's
            found |= set() if states else codes
    return {code for code in found if re.fullmatch(r"[a-z_]+", code)}


def settings_in_code() -> set[str]:
    found: set[str] = set()
    for folder in (*PACKAGES, "runtime-image", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".sh"):
                found |= set(re.findall(r"\bFNGW_[A-Z_]*[A-Z]\b", path.read_text()))
    return found


def test_every_setting_is_documented() -> None:
    page = (REFERENCE / "settings.md").read_text()
    missing = {name for name in settings_in_code() if f"`{name}`" not in page}
    assert not missing


@pytest.mark.parametrize("script", ["gen_settings.py", "gen_cli.py"])
def test_generated_page_is_up_to_date(script: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("FNGW_")}
    done = subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr.decode()


def test_every_command_is_documented() -> None:
    page = (REFERENCE / "cli.md").read_text()
    assert not [c.name for c in COMMANDS if f"## fngw {c.name}\n" not in page]


def test_every_option_is_documented() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no|–) \|$", (REFERENCE / "options.md").read_text(), re.M))
    assert set(rows) == set(OPTION_NAMES)
    assert {name for name, live in rows.items() if live == "yes"} == LIVE_OPTIONS


def test_every_error_code_is_documented() -> None:
    page = (REFERENCE / "errors.md").read_text()
    codes = known_codes()
    assert len(codes) > 80  # the search finds them
    assert not {code for code in codes if f"`{code}`" not in page}


def test_every_documented_error_code_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (REFERENCE / "errors.md").read_text(), re.M)
    code = "\n".join(path.read_text() for path, _ in sources())
    assert not [name for name in rows if f'"{name}"' not in code]


def test_every_redis_key_is_documented() -> None:
    page = (ROOT / "docs" / "architecture" / "state.md").read_text()
    named = {n: v for n, v in vars(keys).items() if n.isupper() and isinstance(v, str) and n != "PREFIX"}
    missing = [v for v in named.values() if f"`{v.removeprefix(keys.PREFIX)}" not in page]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:", t)]
    broken = [t for t in targets if not leads_somewhere(page, t)]
    assert not broken


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    place = (page.parent / unquote(path)).resolve() if path else page
    if not place.exists():
        return False
    return not anchor or anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", place.read_text(), re.M)}


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_python_examples_compile(name: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.M | re.S)
    assert blocks
    for number, block in enumerate(blocks, 1):
        compile(block, f"{name}, example {number}", "exec")


#: A row of a table of code references: a path, more files beside it, and what is in them.
REFERENCE_ROW = re.compile(r"\| `([\w/.-]+\.\w+)`((?:, `[\w.-]+`)*)(?: \||: )(.*)\|$", re.M)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent.name in ("architecture", "docs")], ids=lambda p: p.name
)
def test_code_references_exist(page: Path) -> None:
    for path, more, names in REFERENCE_ROW.findall(page.read_text()):
        files = [ROOT / path, *((ROOT / path).parent / m for m in re.findall(r"`([\w.-]+)`", more))]
        assert all(f.exists() for f in files), f"{path}{more}"
        text = "".join(f.read_text() for f in files)
        wanted = {part for name in re.findall(r"`([\w.]+)`", names) for part in name.split(".")}
        assert not [w for w in wanted if w not in text], f"{path}: {names}"
