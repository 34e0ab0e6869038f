"""Every CUDA file compiles with nvcc without a warning, and what ptxas says of the kernels' resources."""

from __future__ import annotations

import hashlib
import re
import runpy
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = runpy.run_path(str(ROOT / "csrc/cuda/build.py"))
FILES = [source for source in BUILD["SOURCES"] if source.endswith(".cu")]

MOST_STATIC_SHARED = 48 * 1024


def most_registers(kernel: str) -> int:
    """65536 registers for blocks of 256 threads: two on a processor, or one with tiles of 256 x 128."""
    return 255 if "Li256ELi128E" in kernel else 128


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
    for old in folder.parent.glob("cuda-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
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
        if used["registers"] > most_registers(name) or used["shared"] > MOST_STATIC_SHARED
    }
    assert not large


# File -> the products that its tensor-core kernels are made of, in PTX and as the processor knows them.
PRODUCTS = {
    "conv2d_tf32.cu": ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "HMMA.1688.F32.TF32"),
    "conv2d_rounded16.cu": ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "HMMA.16816.F32.BF16"),
    "conv2d_half.cu": ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "HMMA.16816.F32"),
    "conv2d_bfloat16.cu": ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "HMMA.16816.F32.BF16"),
}


def functions(text: str, begin: str) -> dict[str, str]:
    """Name -> body of what stands behind ``begin`` in PTX or in a disassembly."""
    parts = re.split(begin, text)[1:]
    return {re.match(r"\w+", part)[0]: part for part in parts}


@pytest.mark.parametrize("file", PRODUCTS)
def test_products_are_those_of_tensor_cores(compiled, file):
    target = compiled / f"{file}.ptx"
    if not target.exists():
        command = [BUILD["nvcc"](), "-std=c++17", "-O3", "-ptx", "-arch=compute_90"]
        subprocess.run([*command, f"csrc/cuda/{file}", "-o", str(target)], cwd=ROOT, check=True, timeout=300)
    found = functions(target.read_text(), r"\.entry ")
    products = {name: body for name, body in found.items() if "product_" in name}
    assert len(products) >= 4
    for name, body in products.items():
        assert PRODUCTS[file][0] in body, name
        assert "cp.async" in body, name  # of 16 bytes, or of weights and sums where elements come singly
        assert "fma.rn.f32" not in body, f"{name} multiplies outside the tensor cores"


def cuobjdump() -> str | None:
    """NVIDIA's disassembler: on the path, beside nvcc, or from the package nvidia-cuda-cuobjdump."""
    places = [Path(BUILD["nvcc"]() or ".").resolve().parent]
    places += Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin")
    found = [shutil.which("cuobjdump"), *(shutil.which("cuobjdump", path=str(place)) for place in places)]
    return next((path for path in found if path), None)


@pytest.mark.parametrize("file", [*PRODUCTS, "conv2d_exact.cu"])
def test_the_disassembly_shows_them(compiled, file):
    if (tool := cuobjdump()) is None:
        pytest.skip("cuobjdump is not on this machine (CUDA's toolkit, or the package nvidia-cuda-cuobjdump)")
    command = [tool, "-sass", str(compiled / f"{file}.o")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    products = {name: body for name, body in functions(text, "Function : ").items() if "product_" in name}
    assert len(products) >= 4
    for name, body in products.items():
        if file in PRODUCTS:
            assert re.search(rf"{re.escape(PRODUCTS[file][1])}\b(?!\.)", body), name
        else:
            assert body.count("FFMA") >= 64 and "LDS.128" in body and "HMMA" not in body, name
        assert not re.search(r"\b(LDL|STL)\b", body), f"{name} keeps something in local memory"


@pytest.mark.parametrize(
    ("wanted", "nvcc", "driver", "reason"),
    [
        ("off", "/bin/nvcc", True, "NNLITE_CUDA=off"),
        ("", None, True, "no nvcc was found"),
        (
            "auto",
            "/bin/nvcc",
            False,
            "this machine has no NVIDIA driver; NNLITE_CUDA=on builds it all the same",
        ),
        ("auto", "/bin/nvcc", True, None),
        ("on", "/bin/nvcc", False, None),
    ],
)
def test_when_it_is_built(monkeypatch, wanted, nvcc, driver, reason):
    monkeypatch.setenv("NNLITE_CUDA", wanted)
    names = BUILD["missing"].__globals__
    monkeypatch.setitem(names, "nvcc", lambda: nvcc)
    monkeypatch.setitem(names, "has_driver", lambda: driver)
    assert BUILD["missing"]() == reason


def test_wishes_that_cannot_be_fulfilled(monkeypatch):
    monkeypatch.setitem(BUILD["missing"].__globals__, "nvcc", lambda: None)
    for wanted, message in (("on", "there is no nvcc"), ("yes", "must be auto, on or off")):
        monkeypatch.setenv("NNLITE_CUDA", wanted)
        with pytest.raises(SystemExit, match=message):
            BUILD["missing"]()
    monkeypatch.setenv("NNLITE_CUDA_ARCH", "hopper")
    with pytest.raises(SystemExit, match="must be compute capabilities, such as 90"):
        BUILD["architectures"]("nvcc")
    monkeypatch.setenv("NNLITE_CUDA_ARCH", "90, 80")
    assert BUILD["architectures"]("nvcc") == [80, 90]


def test_the_extension_links(compiled):
    objects = [str(compiled / f"{Path(source).name}.o") for source in BUILD["SOURCES"]]
    module = compiled / "_cuda.so"
    command = [BUILD["nvcc"](), "-shared", "-cudart", "static", *objects, "-o", str(module)]
    subprocess.run(command, check=True, timeout=300)
    symbols = subprocess.run(["ldd", str(module)], capture_output=True, text=True).stdout
    assert module.stat().st_size > 0 and "libcudart" not in symbols
