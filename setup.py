"""Builds ``nnlite._native`` and ``nnlite._cuda``. Everything else about the package is in pyproject.toml.

A build_ext of our own for three reasons: setuptools has no flags per file, and each instruction set's
file needs its own; it compiles one file at a time; and a machine without a compiler must still be able
to install the package (nnlite then runs on its other backends).

``NNLITE_NATIVE=off`` builds no ``_native``. ``NNLITE_WERROR=1`` turns warnings into errors. Whether ``_cuda``
is built, and for which GPUs, says ``csrc/cuda/build.py``.
"""

from __future__ import annotations

import os
import platform
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CUDA = runpy.run_path(str(ROOT / "csrc/cuda/build.py"))
CPU = "csrc/cpu"
BINDINGS = ["csrc/bind/native.cpp", "csrc/bind/reduced.cpp", "csrc/bind/rows.cpp"]
SOURCES = BINDINGS + [
    f"{CPU}/{name}.cpp"
    for name in [
        "dispatch",
        "parallel",
        "gemm",
        "conv2d",
        "conv2d_depthwise",
        "conv2d_grad_input",
        "conv2d_grad_weight",
        "conv2d_grad_weight_stem",
        "conv2d_reduced",
        "conv2d_winograd",
        "conv2d_winograd_grad",
        "eltwise",
        "lines",
        "norm",
        "pool2d",
        "resize",
        "winograd_gather",
    ]
]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA_FLAGS = {
    "x86": {
        "baseline": [],
        "avx2": AVX2,
        "avx512": AVX512,
        "avx512_vnni": [*AVX512, "-mavx512vnni"],
        "avx512_bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
        "amx": [*AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
        "amx_emulated": AVX512,
    },
    "arm": {"neon": []},
    "other": {"baseline": []},
}
# Instructions that compilers know since a few years only: an instruction set of one without them is left out.
PROBES = {
    "avx512_bf16": "vdpbf16ps %zmm0, %zmm0, %zmm0",  # GCC 10, Clang 9
    "amx": "tdpbf16ps %tmm2, %tmm1, %tmm0",  # GCC 11, Clang 12
}
FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",  # Python's own flags ask for debug symbols, ten megabytes of them
    "-fvisibility=hidden",
    "-ffp-contract=off",  # a product and a sum fuse where the source says so, on every compiler alike
    "-fno-math-errno",  # sqrt is an instruction, not a call
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wno-pass-failed",  # Clang: a loop it did not unroll is slower, not wrong
]


def machine() -> str:
    """The architecture that is compiled for: x86, arm or other."""
    target = os.environ.get("ARCHFLAGS", "") or platform.machine()
    if "x86_64" in target or "AMD64" in target:
        return "x86"
    return "arm" if "arm64" in target or "aarch64" in target else "other"


def buildable(compiler: str, target: str) -> dict[str, list[str]]:
    """The instruction sets of ``target`` that ``compiler`` can build, with their flags."""
    found = dict(ISA_FLAGS[target])
    for isa in found.keys() & PROBES.keys():
        command = [*compiler.split(), *found[isa], "-x", "c++", "-c", "-", "-o", os.devnull]
        probe = f'void probe() {{ asm volatile("{PROBES[isa]}"); }}'
        if subprocess.run(command, input=probe, text=True, capture_output=True).returncode:
            print(f"nnlite: {compiler} knows no {isa}; the native backend does without it", file=sys.stderr)
            del found[isa]
    return found


def has(isas: Iterable[str]) -> list[str]:
    """Flags that tell the sources which of the instruction sets that may be left out there are."""
    return [f"-DNNLITE_HAS_{isa.upper()}" for isa in isas if isa in PROBES]


class BuildNative(build_ext):
    """Compiles the sources two at a time, each with its flags, and skips what is up to date."""

    def run(self) -> None:
        """Build what can be built, and say in one line each why the rest is not."""
        for name, reason in (("nnlite._native", self._no_native()), ("nnlite._cuda", CUDA["missing"]())):
            if reason:
                print(f"nnlite: {reason}; installing without {name}", file=sys.stderr)
                self.extensions = [ext for ext in self.extensions if ext.name != name]
                self.distribution.ext_modules = self.extensions
        if self.editable_mode:
            # pip compiles in a new folder every time; while working, what has not changed is kept.
            self.build_temp = str(ROOT / "build" / f"editable-{sys.implementation.cache_tag}")
        super().run()

    def _no_native(self) -> str | None:
        if os.environ.get("NNLITE_NATIVE", "").lower() in ("off", "0"):
            return "NNLITE_NATIVE=off"
        if sys.platform == "win32":
            return "the native backend does not build on Windows"
        return None if self._has_compiler() else "no C++ compiler was found"

    @staticmethod
    def _has_compiler() -> bool:
        command = os.environ.get("CXX") or os.environ.get("CC")
        candidates = [command.split()[0]] if command else ["c++", "g++", "clang++"]
        return any(shutil.which(name) for name in candidates)

    def build_extension(self, ext: Extension) -> None:
        """Compile what is out of date and link."""
        if ext.name == "nnlite._cuda":
            self._build_cuda(ext)
        else:
            self._build_native(ext)

    def _build_cuda(self, ext: Extension) -> None:
        """Everything by nvcc, which knows where its own headers and libraries lie."""
        import pybind11

        compiler = CUDA["nvcc"]()
        flags = CUDA["flags"](compiler, werror=os.environ.get("NNLITE_WERROR") == "1")
        for path in (pybind11.get_include(), sysconfig.get_path("include")):
            flags += ["-isystem", path]
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        headers = max(path.stat().st_mtime for path in ROOT.glob("csrc/**/*.h"))

        def compile_one(source: str) -> str:
            target, stamp = folder / f"{Path(source).name}.o", folder / f"{Path(source).name}.flags"
            wanted = shlex.join([compiler, *flags])
            new = target.exists() and target.stat().st_mtime > max(headers, Path(source).stat().st_mtime)
            if self.force or not new or not stamp.exists() or stamp.read_text() != wanted:
                print(shlex.join([compiler, "-c", source]))
                subprocess.run([compiler, *flags, "-c", source, "-o", str(target)], check=True)
                stamp.write_text(wanted)
            return str(target)

        with ThreadPoolExecutor(int(os.environ.get("NNLITE_BUILD_JOBS", "2"))) as pool:
            objects = list(pool.map(compile_one, ext.sources))
        module = Path(self.get_ext_fullpath(ext.name))
        module.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-shared", "-cudart", "static", *objects, "-o", str(module)], check=True)

    def _build_native(self, ext: Extension) -> None:
        import pybind11

        self.include_dirs.append(pybind11.get_include())
        compiler = os.environ.get("CXX") or next(n for n in ("c++", "g++", "clang++") if shutil.which(n))
        # distutils knows CC's flags for C; the sources are C++ and so is the link.
        self.compiler.set_executable("compiler_so_cxx", self._cxx(compiler, self.compiler.compiler_so))
        self.compiler.set_executable("compiler_so", self._cxx(compiler, self.compiler.compiler_so))
        self.compiler.set_executable("linker_so_cxx", self._cxx(compiler, self.compiler.linker_so))
        self.compiler.set_executable("linker_so", self._cxx(compiler, self.compiler.linker_so))

        isas = buildable(compiler, machine())
        flags = FLAGS + has(isas) + (["-Werror"] if os.environ.get("NNLITE_WERROR") == "1" else [])
        tasks = [(source, flags) for source in SOURCES]
        # pybind11's own headers do not compile cleanly under -Wconversion; ours must.
        ours = slice(len(BINDINGS), None)
        tasks[ours] = [(source, [*flags, "-Wconversion"]) for source, flags in tasks[ours]]
        for isa, isa_flags in isas.items():
            tasks.append((f"{CPU}/isa/{isa}.cpp", [*flags, "-Wconversion", *isa_flags]))
        read = [*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.inl")]
        newest = max(p.stat().st_mtime for p in read if "cuda" not in f"{p.parent.name} {p.name}")
        newest = max(newest, Path(__file__).stat().st_mtime)
        with ThreadPoolExecutor(int(os.environ.get("NNLITE_BUILD_JOBS", "2"))) as pool:
            objects = list(pool.map(lambda task: self._compile(*task, newest=newest), tasks))
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, target, extra_postargs=["-pthread"], target_lang="c++")

    @staticmethod
    def _cxx(compiler: str, command: list[str]) -> list[str]:
        # ["ccache", "gcc", "-flag", ...] -> [compiler, "-flag", ...]; options that only C knows go
        start = next((i for i, word in enumerate(command) if word.startswith("-")), len(command))
        return [*compiler.split(), *(word for word in command[start:] if word != "-Wstrict-prototypes")]

    def _compile(self, source: str, flags: list[str], newest: float) -> str:
        import pybind11

        stamp = Path(self.build_temp, source).with_suffix(".flags")
        wanted = " ".join([*self.compiler.compiler_so, *flags, f"pybind11 {pybind11.__version__}"])
        [expected] = self.compiler.object_filenames([source], output_dir=self.build_temp)
        built = Path(expected)
        if (
            not self.force
            and built.exists()
            and stamp.exists()
            and stamp.read_text() == wanted
            and built.stat().st_mtime > max(newest, Path(source).stat().st_mtime)
        ):
            return expected
        includes = [*self.compiler.include_dirs, *self.include_dirs]
        system = [flag for include in includes for flag in ("-isystem", include)]
        options = [*flags, *system, "-pthread"]
        self.compiler.compile([source], output_dir=self.build_temp, extra_postargs=options)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(wanted)
        return expected


ISA_SOURCES = [f"{CPU}/isa/{isa}.cpp" for isa in ISA_FLAGS[machine()]]
setup(
    ext_modules=[
        Extension("nnlite._native", sources=[*SOURCES, *ISA_SOURCES]),
        Extension("nnlite._cuda", sources=CUDA["SOURCES"]),
    ],
    cmdclass={"build_ext": BuildNative},
)
