"""Builds check_kernels from csrc/cpu, with the files and flags of setup.py, for this processor or another.

    python tests/csrc/export_cases.py FOLDER
    python tests/csrc/build.py FOLDER/plain --functions FOLDER
    FOLDER/plain/check_kernels FOLDER/cases.bin

Objects lie under the output folder as their sources do in the repository, for inspect_objects.py.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def recipe() -> dict:
    """The names that setup.py defines; nothing is set up."""
    import setuptools

    setup, setuptools.setup = setuptools.setup, lambda **kwargs: None
    try:
        return runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = setup


def tasks(compiler: str, target: str | None) -> list[tuple[str, list[str]]]:
    """(source, its own flags) for everything but the bindings."""
    setup = recipe()
    isas = setup["buildable"](compiler, target or setup["machine"]())
    flags = [*setup["FLAGS"], *setup["has"](isas)]
    cpu = [s for s in setup["SOURCES"] if s.startswith(setup["CPU"] + "/")]
    shared = ["-include", str(HERE / "own_grain.h")]
    return [
        *((source, [*flags, "-Wconversion", *shared]) for source in cpu),
        *((f"{setup['CPU']}/isa/{n}.cpp", [*flags, "-Wconversion", *f]) for n, f in isas.items()),
        ("tests/csrc/check_kernels.cpp", flags),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--functions", type=Path, required=True, help="the folder of functions.inc")
    parser.add_argument("--cxx", default="g++")
    parser.add_argument("--target", help="x86, arm or other; this machine's by default")
    parser.add_argument("--flags", default="", help="further flags for every file and the link")
    options = parser.parse_args()
    further = shlex.split(options.flags)

    def build(task: tuple[str, list[str]]) -> str:
        source, flags = task
        target = (options.out / source).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        words = [options.cxx, *flags, f"-I{options.functions}", *further, "-pthread"]
        subprocess.run([*words, "-c", source, "-o", str(target)], cwd=ROOT, check=True)
        return str(target)

    options.out, options.functions = options.out.resolve(), options.functions.resolve()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(build, tasks(options.cxx, options.target)))
    program = options.out / "check_kernels"
    subprocess.run([options.cxx, *objects, *further, "-pthread", "-o", str(program)], check=True)
    print(program)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {shlex.join(error.cmd)}")
