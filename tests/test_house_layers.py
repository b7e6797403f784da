"""The two lists of what is pure agree: what is compiled, and what the import contracts keep free of I/O."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 600


def compiled() -> set[str]:
    """Dotted names of what tools/native.py compiles."""
    tree = ast.parse((ROOT / "tools" / "native.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "COMPILED":
            return {"isthmus." + name.removesuffix(".py").replace("/", ".") for name in ast.literal_eval(node.value)}
    raise AssertionError("no list of compiled modules")


def test_what_is_compiled_is_held_pure() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [pure] = [each for each in settings["contracts"] if "pure" in each["name"]]
    # `errors` is pure too; exceptions gain nothing from being compiled.
    assert compiled() == set(pure["source_modules"]) - {"isthmus.errors"}


def test_what_is_compiled_exists() -> None:
    for name in compiled():
        path = ROOT / "src" / Path(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists(), name


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "src").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert long == {}
