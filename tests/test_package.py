"""The package as a whole: what importing does, which room may import which, what is shipped."""

import ast
import re
import subprocess
import sys

import mask2former

# a room may import from lower floors and from itself
FLOORS = [
    {"utils", "config"},
    {"structures", "ops"},
    {"data", "modeling"},
    {"solver", "evaluation", "visualization", "checkpoint", "compat"},
    {"engine", "inference", "export"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# config tells its mistakes with utils' errors: the one step inside a floor
ALLOWED_BESIDE = {("config", "utils")}


def _rooms_imported(source: str):
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "mask2former" else [f"mask2former.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "mask2former" and len(parts) > 1:
                yield parts[1]


def test_rooms_import_only_from_lower_floors(repo_dir):
    wrong = []
    for path in sorted((repo_dir / "mask2former").glob("*/**/*.py")):
        room = path.relative_to(repo_dir / "mask2former").parts[0]
        assert room in FLOOR_OF, f"{room}: a new room needs a floor"
        for other in _rooms_imported(path.read_text()):
            if other in (room, "__version__") or (room, other) in ALLOWED_BESIDE:
                continue
            if FLOOR_OF[other] >= FLOOR_OF[room]:
                wrong.append(f"{path.relative_to(repo_dir)} imports {other}")
    assert wrong == []


def test_only_doors_open_the_config(repo_dir):
    doors = re.compile(r"(^config/|/build\.py$|^engine/(setup|run)\.py$|^inference/predictor\.py$)")
    opened = re.compile(r"\bcfg\.[A-Z]")
    root = repo_dir / "mask2former"
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*.py") if opened.search(path.read_text())]
    assert [path for path in paths if not doors.search(path)] == []


def test_importing_the_package_loads_no_room():
    code = "import sys, mask2former; print([m for m in sys.modules if m.startswith('mask2former.') or m == 'torch'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_version_is_said_in_one_place(repo_dir):
    assert 'version = { attr = "mask2former.__version__" }' in (repo_dir / "pyproject.toml").read_text()
    assert f"## {mask2former.__version__}" in (repo_dir / "CHANGELOG.md").read_text()
