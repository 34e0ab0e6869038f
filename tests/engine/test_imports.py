"""Imports point down the storeys of the architecture, and importing costs nothing but NumPy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nnlite

STOREYS = [
    {"errors", "__version__"},
    {"device", "geometry", "layout", "memory", "memory_pool", "threads", "random", "files", "_native"},
    {"kernels"},
    {"node", "ops"},
    {"autograd"},
    {"tensors"},
    {"functional", "testing"},
    {"nn", "optim", "data", "metrics", "saving"},
    {"graph"},
    {"onnx", "transfer", "summarise"},
    {"zoo"},
    {"bench"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(STOREYS) for name in names}
ROOT = Path(nnlite.__file__).parent
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def part_of(path: Path) -> str:
    """The module or package directly below nnlite that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _runtime_nodes(child)


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports when it runs, wherever the statement stands."""
    package = ("nnlite", *path.relative_to(ROOT).with_suffix("").parts)[:-1]
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == "nnlite":
                yield from (f"nnlite.{alias.name}" for alias in node.names)
            else:
                yield module


def own_imports(path: Path) -> set[str]:
    """The parts of nnlite that a file imports, its own excepted."""
    names = (name.split(".") for name in imported_modules(path))
    parts = {"nnlite" if len(name) == 1 else name[1] for name in names if name[0] == "nnlite"}
    return parts - {part_of(path)}


def test_the_analysis_sees_every_form_of_import(monkeypatch, tmp_path):
    source = tmp_path / "ops" / "sample.py"
    source.parent.mkdir()
    source.write_text(
        "from typing import TYPE_CHECKING\nimport numpy as np\nimport nnlite.layout\n"
        "from nnlite import memory, errors\nfrom nnlite.nn.module import Module\nfrom . import record\n"
        "from .. import graph\nif TYPE_CHECKING:\n    from nnlite import zoo\n"
        "def late():\n    from nnlite.optim import SGD\n    import onnx\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert own_imports(source) == {"layout", "memory", "errors", "nn", "graph", "optim"}
    assert {"numpy", "onnx"} <= set(imported_modules(source))


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_imports_point_down(path):
    level = LEVEL[part_of(path)]  # a new part of the package needs a storey
    upwards = {name for name in own_imports(path) if LEVEL.get(name, len(STOREYS)) > level}
    assert not upwards, f"{path.relative_to(ROOT)} imports {upwards} from above"


def test_parts_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(part_of(path), set()).update(own_imports(path))
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("errors") < order.index("tensors") < order.index("nn")


@pytest.mark.parametrize(
    "statement",
    ["import nnlite", "import nnlite as nl; nl.nn, nl.optim, nl.functional, nl.metrics, nl.tensor"],
)
def test_importing_loads_no_third_party_package_but_numpy(statement):
    heavy = {
        "onnx",
        "safetensors",
        "PIL",
        "numba",
        "cupy",
        "torch",
        "click",
        "tqdm",
        "sklearn",
        "onnxruntime",
    }
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & {name.split(".")[0] for name in result.stdout.split()}


def test_the_public_names_exist():
    listed = dir(nnlite)
    assert listed == sorted(set(listed))
    for name in nnlite._HOME:
        assert getattr(nnlite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nnlite.nonsense
