"""Builds nnlite._cuda for a GPU that one thread of the CPU stands in for (tests/csrc/cuda).

    python tests/csrc/emulate.py     prints where the module lies

The sources are those of csrc/cuda and csrc/bind, unchanged, and the compiler an ordinary one; what is built
is kept under build/ until one of them changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FLAGS = [
    "-std=c++17", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off",
    "-Wall", "-Wextra", "-Werror",
    "-Wno-unknown-pragmas",  # unroll
    "-U_FORTIFY_SOURCE",  # which forbids longjmp from one stack to another
    '-DNNLITE_CUDA_ARCHITECTURES="emulated"',
    "-include", str(HERE / "cuda" / "ptx.h"), "-x", "c++",
]  # fmt: skip


def compiler() -> list[str] | None:
    """The C++ compiler's command, or None."""
    if command := os.environ.get("CXX"):
        return shlex.split(command)
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def build() -> Path:
    """Where the extension module lies; compiles it unless that was done before."""
    import pybind11

    words = compiler()
    assert words is not None, "no C++ compiler"
    sources = [*sorted(ROOT.glob("csrc/bind/cuda*.cpp")), *sorted(ROOT.glob("csrc/cuda/*.cu"))]
    read = [
        *sources,
        *sorted((HERE / "cuda").glob("*.h")),
        *sorted((ROOT / "csrc").glob("**/*.h")),
        Path(__file__),
    ]
    known = hashlib.sha256(b"".join(path.read_bytes() for path in read))
    known.update(shlex.join([*words, sys.version, pybind11.__version__]).encode())
    folder = ROOT / "build" / f"emulated-{known.hexdigest()[:16]}"
    target = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    if target.exists():
        return target
    for old in folder.parent.glob("emulated-*"):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    includes = [f"-I{HERE / 'cuda'}"]
    for path in (pybind11.get_include(), sysconfig.get_path("include")):
        includes += ["-isystem", path]

    def compile_one(source: Path) -> str:
        target = folder / f"{source.name}.o"
        command = [*words, *FLAGS, *includes, "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-6000:]}"
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    built = folder / "unfinished.so"
    subprocess.run([*words, "-shared", *objects, "-o", str(built)], check=True)
    built.rename(target)
    return target


def load() -> ModuleType:
    """The module itself."""
    spec = importlib.util.spec_from_file_location("_cuda", build())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(build())
