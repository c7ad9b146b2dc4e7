"""The package's imports run one way, from a folder to those below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gradleak"
FLOORS = [
    {"version", "names", "scales", "randomness", "identity", "files"},
    {"device"},
    {"data", "models", "metrics", "gradients"},
    {"defenses", "priors"},
    {"look"},
    {"client"},
    {"attacks", "train"},
    {"experiment"},
    {"figures", "bench"},
    {"book"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room(parts):
    """The folder, or the single file, that a module path leads to."""
    return parts[1] if len(parts) > 1 else None


def imported(path):
    """What a file imports of the package when it runs: (module, name) of each."""
    found, tree = [], ast.parse(path.read_text())
    typing = [node for node in tree.body if ast.unparse(node).startswith("if TYPE_CHECKING:")]
    tree.body = [node for node in tree.body if node not in typing]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports say where from: gradleak.{node.module}"
            if node.module and node.module.split(".")[0] == "gradleak":
                found += [(node.module, name.name) for name in node.names]
        elif isinstance(node, ast.Import):
            found += [(a.name, "") for a in node.names if a.name.split(".")[0] == "gradleak"]
    return found


def test_every_room_has_a_floor():
    parts = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in MODULES}
    assert parts == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_back(path):
    own = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for module, name in imported(path):
        there = room(module.split(".")) or name
        assert there in FLOOR, f"{module} import {name}: take it from its folder"
        if there == room(own):
            continue
        assert FLOOR[there] < FLOOR[room(own)], f"{room(own)} imports {there}, which lies above it"
        outside = module.split(".")
        assert len(outside) <= 2 or FLOOR[room(own)] >= FLOOR["book"], (
            f"{module}: outside of a folder use its face, the names in its __init__.pyi"
        )


@pytest.mark.parametrize("folder", sorted({p.parent for p in MODULES}), ids=lambda p: p.name)
def test_no_circle_inside_of_a_folder(folder):
    arrows = {}
    for path in folder.glob("*.py"):
        here = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        near = here.rpartition(".")[0]
        each = [m if m != near else f"{m}.{name}" for m, name in imported(path)]
        arrows[here] = {m for m in each if m.startswith(f"{near}.") and m != here}
    left = dict(arrows)
    while left:
        free = [m for m, targets in left.items() if not targets & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for m in free:
            del left[m]
