"""What several storeys share: the bundled model and drawings, larger models, ONNX models made by hand."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

COMPILERS = ("c++", "g++", "clang++")
BUNDLED = Path(__file__).parent.parent / "examples" / "assets"


@pytest.fixture(scope="session")
def mobilenet_path() -> Path:
    """The bundled MobileNetV2."""
    return BUNDLED / "mobilenet_v2.onnx"


@pytest.fixture(scope="session")
def clipart() -> Path:
    """The bundled drawings: train and val folders of eight classes."""
    return BUNDLED / "clipart8"


@pytest.fixture(scope="session")
def assets() -> Path:
    """A folder of larger models that are not part of the project; skips without it."""
    folder = os.environ.get("NNLITE_TEST_ASSETS")
    if not folder:
        pytest.skip("NNLITE_TEST_ASSETS is not set: name a folder with models/*.onnx to test larger models")
    return Path(folder)


@pytest.fixture(scope="session")
def run_ort() -> Callable[..., list[np.ndarray]]:
    """``run_ort(model, inputs)``: what ONNX Runtime computes, without its rewriting of the graph."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle here; install nnlite[oracle]")

    def run(model: Any, inputs: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 2, 4
        if hasattr(model, "SerializeToString"):
            model = model.SerializeToString()
        source = (
            model if isinstance(model, bytes) else str(model)
        )  # str() of a large ModelProto takes seconds
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        if not isinstance(inputs, Mapping):
            inputs = dict(zip([entry.name for entry in session.get_inputs()], inputs, strict=True))
        return list(session.run(None, inputs))

    return run


@pytest.fixture(scope="session")
def onnx_model() -> Callable[..., Any]:
    """``onnx_model(nodes, inputs, outputs, arrays)``: a ModelProto.

    A node is (operator, inputs, outputs) or, with attributes, (operator, inputs, outputs, attributes).
    Inputs and outputs are names with sizes, None for a type without sizes; float32 unless the sizes
    come as (sizes, dtype).
    """
    import onnx
    from onnx import helper, numpy_helper

    def info(name: str, sizes: Any) -> Any:
        dtype = np.float32
        if isinstance(sizes, tuple):
            sizes, dtype = sizes
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sizes)

    def make(
        nodes: Sequence[Any],
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | Sequence[str],
        arrays: Mapping[str, Any] = MappingProxyType({}),
        *,
        opset: int = 17,
        ir_version: int = 8,
        metadata: Mapping[str, str] | None = None,
        listed: bool = False,
    ) -> Any:
        protos = [
            helper.make_node(node[0], [*node[1]], [*node[2]], name=f"{node[0].lower()}{i}", **dict(*node[3:]))
            for i, node in enumerate(nodes)
        ]
        tensors = [
            item if isinstance(item, onnx.TensorProto) else numpy_helper.from_array(np.asarray(item), name)
            for name, item in arrays.items()
        ]
        entries = [info(name, sizes) for name, sizes in inputs.items()]
        if listed:  # as before IR version 4: initializers are inputs with a default
            entries += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
        named = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
        graph = helper.make_graph(protos, "test", entries, [info(n, s) for n, s in named.items()], tensors)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        return model

    return make


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in for CuPy where there is no GPU (``cuda/fake_cupy.py``); what it counts and limits."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "cuda")
    import fake_cupy

    with fake_cupy.installed(monkeypatch) as state:
        yield state


@pytest.fixture(scope="session")
def emulated_extension() -> Any:
    """nnlite._cuda for a GPU that one thread of the CPU stands in for; skips without a C++ compiler."""
    if sys.platform != "linux" or not (os.environ.get("CXX") or any(map(shutil.which, COMPILERS))):
        pytest.skip("the emulated GPU wants a C++ compiler and Linux")
    sys.path.append(str(Path(__file__).parent / "csrc"))
    from emulate import load

    return load()


@pytest.fixture
def emulated_gpu(monkeypatch: pytest.MonkeyPatch, emulated_extension: Any) -> Iterator[Any]:
    """As ``gpu``, with the kernels of csrc/cuda."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "cuda")
    import fake_cupy

    with fake_cupy.installed(monkeypatch, emulated_extension) as state:
        yield state


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def normal() -> Callable[..., np.ndarray]:
    """``normal(2, 3, seed=1)``: float32 normal numbers."""
    return _normal
