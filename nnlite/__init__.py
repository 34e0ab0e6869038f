"""nnlite: a small CNN engine with its own kernels.

Names are loaded when they are first used, so that ``import nnlite`` costs little more than NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Tensor": "tensors",
    "tensor": "tensors",
    "asarray": "tensors",
    "grad": "tensors",
    "no_grad": "autograd",
    "set_grad_enabled": "autograd",
    "grad_enabled": "autograd",
    "use_backend": "kernels",
    "explain": "kernels",
    "set_num_threads": "threads",
    "get_num_threads": "threads",
    "manual_seed": "random",
    "checkpoint": "functional.recompute",
    "NnliteError": "errors",
    "save": "saving",
    "load": "saving",
    "summary": "summarise",
}
_MODULES = (
    "autograd", "data", "device", "errors", "functional", "geometry", "graph", "kernels", "layout", "memory",
    "metrics", "nn", "onnx", "ops", "optim", "testing", "transfer", "zoo",
)  # fmt: skip

if TYPE_CHECKING:
    from nnlite import (
        autograd,
        data,
        device,
        errors,
        functional,
        geometry,
        graph,
        kernels,
        layout,
        memory,
        metrics,
        nn,
        onnx,
        ops,
        optim,
        testing,
        transfer,
        zoo,
    )
    from nnlite.autograd import grad_enabled, no_grad, set_grad_enabled
    from nnlite.errors import NnliteError
    from nnlite.functional.recompute import checkpoint
    from nnlite.kernels import explain, use_backend
    from nnlite.random import manual_seed
    from nnlite.saving import load, save
    from nnlite.summarise import summary
    from nnlite.tensors import Tensor, asarray, grad, tensor
    from nnlite.threads import get_num_threads, set_num_threads

__all__ = sorted([*_HOME, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"nnlite.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"nnlite.{name}")
    else:
        raise AttributeError(f"module 'nnlite' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
