"""The rules of the house: who imports whom and what, how long a file may be, what an installed wheel contains."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"tinyformer": "tinyformer", "backends": "tinyformer.backends", "cli": "tinyformer.cli"}

# Each may import what stands before it, and never what stands after; "" is the package itself, which hands out names.
ORDER = [
    *("errors", "files", "backends", "tensor", "ops", "functional", "operators", "gradcheck", "einops_backend"),
    *("fused", "nn", "models", "objectives", "text", "analysis", "generation", "tasks", "prompting"),
    *("training", "interop", "loading", "", "cli", "__main__"),
]

# Where each library from outside may be imported.
OUTSIDE = {
    "numpy": ("backends", "text", "analysis", "generation", "tasks", "prompting", "training", "loading", "interop"),
    "cupy": ("backends.cupy",),
    "cupy_backends": ("backends.cupy",),
    "cupyx": ("backends.cupy",),
    "ml_dtypes": ("backends.cupy",),
    "cuda": ("backends.cupy",),
    "einops": ("einops_backend", "nn", "models", "interop"),
    "click": ("cli",),
    "rich": ("cli.view",),
    "regex": ("text",),
    "safetensors": ("training", "interop"),
    "threadpoolctl": ("backends.numpy", "analysis", "training", "cli"),
    "tokenizers": ("text.huggingface",),
}
OPTIONAL = {"cuda", "cupy", "cupy_backends", "cupyx", "ml_dtypes", "tokenizers"}
LAZY = {"rich", "tokenizers"}  # imported inside the functions that need them

LINES = {"tinyformer/tensor.py": 200}  # of the others, at most 350
TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "backends",
    "cli",
    "examples",
    "pyproject.toml",
    "tests",
    "tinyformer",
}


def _modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


MODULES = _modules()


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module. `lazy`: inside a function; `relative`: written with leading dots."""

    importer: str
    target: str
    line: int
    lazy: bool
    relative: bool

    @property
    def ours(self) -> bool:
        return self.target.split(".")[0] == "tinyformer"

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def _imports(module: str, node: ast.AST, lazy: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, lazy, relative=False)
        elif isinstance(child, ast.ImportFrom):
            source = _source(module, child)
            for alias in child.names:
                inner = f"{source}.{alias.name}"
                yield Import(module, inner if inner in MODULES else source, child.lineno, lazy, bool(child.level))
        else:
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(module, child, inside)


def _source(module: str, node: ast.ImportFrom) -> str:
    """The module that a `from ... import` names, its leading dots resolved."""
    if not node.level:
        return node.module
    parts = module.split(".")
    if MODULES[module].name == "__init__.py":
        parts = [*parts, ""]
    return ".".join([*parts[: -node.level], *filter(None, [node.module])])


IMPORTS = [found for module, path in MODULES.items() for found in _imports(module, ast.parse(path.read_bytes()))]


def _within(module: str, places: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"tinyformer.{place}.") for place in places)


def _layer(module: str) -> int:
    _, *inner = module.split(".")
    return ORDER.index(inner[0] if inner else "")


def test_every_module_has_a_place_in_the_order():
    assert {module.partition(".")[2].partition(".")[0] for module in MODULES} <= set(ORDER)


def test_lower_layers_never_import_higher_ones():
    wrong = [i for i in IMPORTS if i.ours and _layer(i.target) > _layer(i.importer)]
    assert not wrong, "\n".join(map(str, wrong))


def test_there_is_no_circle_of_imports():
    graph = {module: {i.target for i in IMPORTS if i.importer == module and i.ours} for module in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle


def test_backends_import_only_each_other_and_relatively():
    ours = [i for i in IMPORTS if i.ours and _within(i.importer, ("backends",))]
    assert ours
    wrong = [i for i in ours if not (i.relative and _within(i.target, ("backends",)))]
    assert not wrong, "\n".join(map(str, wrong))


def test_libraries_from_outside_are_imported_only_where_they_belong():
    wrong = []
    for found in IMPORTS:
        library = found.target.split(".")[0]
        if found.ours or library in sys.stdlib_module_names:
            continue
        if not _within(found.importer, OUTSIDE.get(library, ())) or (library in LAZY and not found.lazy):
            wrong.append(found)
    assert not wrong, "\n".join(map(str, wrong))


def test_declared_dependencies_are_the_imported_ones():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert {re.match(r"[\w-]+", line)[0] for line in declared} == OUTSIDE.keys() - OPTIONAL
    imported = {found.target.split(".")[0] for found in IMPORTS}
    assert OUTSIDE.keys() - OPTIONAL <= imported, "a dependency that nothing imports"


def _sources() -> list[Path]:
    folders = [*FOLDERS, "examples", "tests"]
    kinds = (".py", ".cu", ".cuh", ".cpp", ".hpp")
    return [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]


def test_no_file_is_too_long():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_bytes().splitlines()) for path in _sources()}
    assert LINES.keys() <= lengths.keys()
    too_long = {name: length for name, length in lengths.items() if length > LINES.get(name, 350)}
    assert not too_long, "it has two jobs; give each its own file"


def test_sources_hold_no_left_over_marks():
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "# no" + "qa", "type: ig" + "nore"]))
    found = {str(path): marks.findall(path.read_text(encoding="utf-8")) for path in _sources()}
    assert not {path: marks for path, marks in found.items() if marks}


def test_every_module_says_what_it_is():
    trees = {module: ast.parse(path.read_bytes()) for module, path in MODULES.items()}
    assert not [module for module, tree in trees.items() if tree.body and not ast.get_docstring(tree)]


def test_top_level_of_the_repository():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listing.stdout.splitlines()} == TOP


def test_wheel_has_one_name_and_everything(tmp_path):
    tree = tmp_path / "tree"
    for name in [*FOLDERS, "pyproject.toml", "README.md", "LICENSE"]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, tree]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
        (scripts,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    installed = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in installed} == {"tinyformer"}
    expected = {
        f"{FOLDERS[folder].replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert installed == expected
    assert "tinyformer = tinyformer.cli:main" in scripts
    assert "License-Expression: MIT" in metadata


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import tinyformer", ("numpy", "rich", "cupy", "click", "safetensors", "regex")),
        ("from tinyformer.cli import main; main(['--help'], standalone_mode=False)", ("numpy", "rich", "cupy")),
        ("from tinyformer.cli import main; main(['train', '--help'])", ("numpy", "rich", "cupy")),
    ],
)
def test_what_an_import_pulls_in(code, unwanted):
    report = f"import sys, atexit; atexit.register(lambda: print('loaded', *sys.modules)); {code}"
    result = subprocess.run([sys.executable, "-W", "error", "-c", report], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (loaded,) = (set(line.split()) for line in result.stdout.splitlines() if line.startswith("loaded "))
    assert "tinyformer" in loaded
    assert not loaded & set(unwanted)
