"""Every module has a test file of its name, with at least one test that `make test` runs."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "gradleak"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.stem != "__init__")
# Modules (or folders) whose mathematics is that of another one, and the file that tests both.
WITH = {
    "attacks/_learnt": "attacks/test_unrolled",
    "attacks/adam": "attacks/test_adversary",
    "attacks/attack": "attacks/test_verb",
    "attacks/latents": "attacks/test_precode",
    "attacks/maximise": "attacks/test_adversary",
    "attacks/posterior": "attacks/test_batch",
    "attacks/presets": "attacks/test_adversary",
    "defenses/noise": "defenses/test_defenses",
    "defenses/precode": "attacks/test_precode",
    "experiment/_database": "experiment/test_records",
    "experiment/batches": "experiment/test_trials",
    "experiment/exported": "experiment/test_records",
    "experiment/runs": "experiment/test_trials",
    "identity": "test_identity",
    "version": "test_cli",
}
LEFT_OUT = {"slow", "book", "browser"}  # by `make test`


def speeds(path: Path) -> list[tuple[str, bool]]:
    """Name and speed of each test in a file; marks of the file count for all."""
    tree = ast.parse(path.read_text())
    whole = [n.value for n in tree.body if isinstance(n, ast.Assign)
             and getattr(n.targets[0], "id", "") == "pytestmark"]  # fmt: skip
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    return [(f.name, not marks([*whole, *f.decorator_list]) & LEFT_OUT)
            for f in functions if f.name.startswith("test_")]  # fmt: skip


def marks(nodes: list[ast.expr]) -> set[str]:
    return {n.attr for node in nodes for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def own_file(module: Path) -> Path:
    name = str(module.relative_to(PACKAGE).with_suffix(""))
    own = Path(name).with_name(f"test_{module.stem.lstrip('_')}")
    return TESTS / f"{WITH.get(name) or WITH.get(module.parent.name, own)}.py"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_has_a_test_that_is_fast(module):
    path = own_file(module)
    assert path.is_file(), f"{module.name} wants tests in {path.relative_to(TESTS)}"
    assert any(fast for _, fast in speeds(path)), f"{path.name} has slow tests only"


def test_the_table_names_what_exists_and_has_no_file_of_its_own():
    for name, file in WITH.items():
        assert (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name).is_dir()
        assert (TESTS / f"{file}.py").is_file()
        own = TESTS / Path(name).with_name(f"test_{Path(name).name}.py")
        assert file == str(own.relative_to(TESTS).with_suffix("")) or not own.exists()


def test_most_tests_are_fast():
    found = [fast for path in TESTS.rglob("test_*.py") for _, fast in speeds(path)]
    assert sum(found) >= 0.6 * len(found)
