"""Where a run took place, and what it took of the machine."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from nnlite import __version__, threads
from nnlite.kernels import describe_backends, processor_name

PACKAGES = ("onnx", "Pillow", "safetensors", "numba")


def describe_environment() -> dict[str, Any]:
    """Versions, processor, threads and kernels as plain JSON types; no names of people or machines."""
    from importlib import metadata  # brings the parsers of e-mail with it

    known = describe_backends()
    serving = next((row for row in known["backends"] if row["reason"] is None), None)
    versions = {"nnlite": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "threads": threads.get_num_threads(),
        "kernels": None if serving is None else f"{serving['name']}: {serving['detail']}",
    }
