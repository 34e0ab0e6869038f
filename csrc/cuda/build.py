"""How nnlite._cuda is compiled, for setup.py and for the tests; a script that setup.py reads, not a module.

``NNLITE_CUDA``       auto (the default): built where nvcc and an NVIDIA driver are; on: wherever nvcc is, and
                      an error without; off: never.
``NNLITE_CUDA_ARCH``  compute capabilities, such as ``90`` or ``80,86``: code for each, and PTX of the last,
                      which drivers translate for newer GPUs. Without it all of ARCHITECTURES that nvcc knows.
``NVCC``              the compiler, where it is not on the path and not under CUDA_HOME.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SOURCES = [
    "csrc/bind/cuda.cpp",
    *sorted(f"csrc/cuda/{path.name}" for path in Path(__file__).parent.glob("*.cu")),
]


def nvcc() -> str | None:
    """The CUDA compiler, or None."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    for candidate in (os.environ.get("NVCC"), "nvcc", f"{home}/bin/nvcc"):
        if candidate and (found := shutil.which(candidate)):
            return found
    return None


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def missing() -> str | None:
    """None when the extension is to be built, else why not; SystemExit where it must be and cannot."""
    wanted = os.environ.get("NNLITE_CUDA", "").strip().lower() or "auto"
    if wanted in ("off", "0"):
        return "NNLITE_CUDA=off"
    if wanted not in ("auto", "on", "1"):
        raise SystemExit(f"NNLITE_CUDA={wanted} must be auto, on or off")
    if nvcc() is None:
        if wanted != "auto":
            raise SystemExit("NNLITE_CUDA=on, but there is no nvcc on the path, under CUDA_HOME or in NVCC")
        return "no nvcc was found"
    if wanted == "auto" and not has_driver():
        return "this machine has no NVIDIA driver; NNLITE_CUDA=on builds it all the same"
    return None


def architectures(compiler: str) -> list[int]:
    """The compute capabilities that are compiled for, ascending."""
    if text := os.environ.get("NNLITE_CUDA_ARCH", "").strip():
        if not re.fullmatch(r"\d+([ ,;]+\d+)*", text):
            raise SystemExit(f"NNLITE_CUDA_ARCH={text} must be compute capabilities, such as 90 or 80,86")
        return sorted(map(int, re.findall(r"\d+", text)))
    listed = subprocess.run([compiler, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
    known = set(map(int, re.findall(r"compute_(\d+)", listed)))
    return [architecture for architecture in ARCHITECTURES if architecture in known]


def flags(compiler: str, werror: bool = False) -> list[str]:
    """What every file is compiled with."""
    chosen = architectures(compiler)
    words = ["-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wshadow"]
    for architecture in chosen:
        words += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    words += ["-gencode", f"arch=compute_{chosen[-1]},code=compute_{chosen[-1]}"]
    words += ["--threads", "0" if len(chosen) > 1 else "1"]
    words.append(f'-DNNLITE_CUDA_ARCHITECTURES="{", ".join(f"sm_{a}" for a in chosen)}"')
    if werror:
        words += ["-Werror", "all-warnings", "-Xcompiler", "-Werror"]
    return words
