"""Every CUDA file compiles with nvcc without a warning, and what ptxas says of the kernels' resources."""

from __future__ import annotations

import hashlib
import re
import runpy
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = runpy.run_path(str(ROOT / "csrc/cuda/build.py"))
FILES = [source for source in BUILD["SOURCES"] if source.endswith(".cu")]

# Kernels of 256 threads, two blocks on a processor: 65536 registers / 512.
MOST_REGISTERS = 128
MOST_STATIC_SHARED = 48 * 1024


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A folder with NAME.cu.o and NAME.cu.txt, ptxas's report, of every file; kept until a source changes."""
    if (nvcc := BUILD["nvcc"]()) is None:
        pytest.skip("nvcc is not on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNLITE_CUDA_ARCH", "90")  # one architecture: it takes a minute as it is
        flags = [*BUILD["flags"](nvcc, werror=True), "-Xptxas", "-v"]
    read = [*sorted((ROOT / "csrc").glob("**/*.h")), *(ROOT / file for file in BUILD["SOURCES"])]
    known = hashlib.sha256(b"".join(path.read_bytes() for path in read) + " ".join([nvcc, *flags]).encode())
    folder = ROOT / "build" / f"cuda-{known.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source):
        import pybind11

        target, report = folder / f"{Path(source).name}.o", folder / f"{Path(source).name}.txt"
        if report.exists():
            return
        includes = []
        for path in (pybind11.get_include(), sysconfig.get_path("include")):
            includes += ["-isystem", path]
        command = [nvcc, *flags, *includes, "-c", source, "-o", str(target)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-6000:]
        report.write_text(done.stderr)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, BUILD["SOURCES"]))
    return folder


def kernels(report: str) -> dict[str, dict[str, int]]:
    """Kernel -> what ptxas found that it uses."""
    found = {}
    for part in re.split(r"Compiling entry function '", report)[1:]:
        used = {"spilled": sum(map(int, re.findall(r"(\d+) bytes spill", part)))}
        used["registers"] = int(re.search(r"Used (\d+) registers", part)[1])
        shared = re.search(r"(\d+) bytes smem", part)
        used["shared"] = int(shared[1]) if shared else 0
        found[part.partition("'")[0]] = used
    return found


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_spilled_and_two_blocks_fit(compiled, file):
    found = kernels((compiled / f"{Path(file).name}.txt").read_text())
    assert found, "ptxas reported no kernel"
    spilled = {name: used for name, used in found.items() if used["spilled"]}
    assert not spilled
    large = {
        name: used
        for name, used in found.items()
        if used["registers"] > MOST_REGISTERS or used["shared"] > MOST_STATIC_SHARED
    }
    assert not large


def test_the_extension_links(compiled):
    objects = [str(compiled / f"{Path(source).name}.o") for source in BUILD["SOURCES"]]
    module = compiled / "_cuda.so"
    command = [BUILD["nvcc"](), "-shared", "-cudart", "static", *objects, "-o", str(module)]
    subprocess.run(command, check=True, timeout=300)
    symbols = subprocess.run(["ldd", str(module)], capture_output=True, text=True).stdout
    assert module.stat().st_size > 0 and "libcudart" not in symbols
