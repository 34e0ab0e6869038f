"""Graphs and plans on what seems to be a GPU: the bundled network, shapes that depend on data, keys."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite import device
from nnlite.graph import GraphModule, trace
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

SIZE = 64
PICTURES = (2, 3, SIZE, SIZE)


@pytest.fixture(scope="module")
def model(mobilenet_path):
    return nl.onnx.load(mobilenet_path, input_shapes={"input": (None, 3, SIZE, SIZE)})


@pytest.fixture
def pictures():
    return np.random.default_rng(1).standard_normal(PICTURES).astype(np.float32)


def _close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_a_plan_computes_there_what_it_computes_here(gpu, model, pictures):
    expected = model.compile()(pictures)
    plan = model.compile(device="cuda")
    assert plan.device == "cuda:0"
    first = plan(pictures)
    assert type(first) is np.ndarray, "results come back to where the inputs are"
    _close(first, expected)
    before = gpu.to_host
    there = plan(device.moved(pictures, "cuda:0"))
    assert device.device_of(there) == "cuda:0"
    assert gpu.to_host == before, "a run copies nothing to the host"
    _close(device.to_host(there), expected)
    assert all(leaf.device == "cpu" for leaf in model.parameters()), "the model itself stays where it was"


def test_every_step_runs_on_the_gpu(gpu, model, pictures):
    with nl.use_backend("cupy"):
        rows = model.compile(device="cuda").profile(pictures, repeats=1)
    assert {row["variant"].partition(":")[0] for row in rows} <= {"cupy", "no copy", "numpy.add"}


def test_a_plan_is_where_its_model_is(gpu, mobilenet_path, pictures):
    model = nl.onnx.load(mobilenet_path, input_shapes={"input": (None, 3, SIZE, SIZE)})
    expected = model.compile()(pictures)
    model.to("cuda")
    plan = model.compile()
    assert plan.device == "cuda:0"
    _close(plan(pictures), expected)
    model.eval()
    with nl.no_grad():
        _close(model(nl.tensor(pictures, device="cuda")).to("cpu").numpy(), expected)
    model.to("cpu")
    with pytest.raises(nl.errors.ModelError, match="compile the module again"):
        plan(pictures)


def test_fingerprints_tell_devices_apart(gpu, model):
    types = [ArrayType(PICTURES, np.dtype(np.float32))]
    assert model.compile().fingerprint(types) != model.compile(device="cuda").fingerprint(types)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_reduced_precision_runs_there_too(gpu, precision):
    nl.manual_seed(0)
    net = nl.nn.Sequential(
        nl.nn.Conv2d(3, 8, 3), nl.nn.ReLU(), nl.nn.Conv2d(8, 8, 3, groups=2), nl.nn.Flatten(),
        nl.nn.Linear(8 * 16, 4),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    graph, leaves = trace(net, [Tensor(x)])
    module = GraphModule(graph, leaves=leaves)
    with nl.use_backend("reference"):
        expected = module.compile(precision, [x])(x)
    _close(module.compile(precision, [x], device="cuda")(x), expected)


def test_shapes_that_depend_on_data(gpu, onnx_model):
    model = onnx_model(
        [("NonZero", ["x"], ["places"]), ("Shape", ["places"], ["shape"]), ("Gather", ["x", "row"], ["y"]),
         ("ConstantOfShape", ["shape"], ["zeros"]), ("Transpose", ["places"], ["pairs"]),
         ("GatherND", ["x", "pairs"], ["picked"])],
        {"x": [2, 3]}, ["picked", "y", "zeros"], {"row": np.array([1])},
    )  # fmt: skip
    module = nl.onnx.load(model.SerializeToString())
    x = np.array([[0, 1, 2], [3, 0, 0]], np.float32)
    for here, there in zip(module.compile().run(x), module.compile(device="cuda").run(x), strict=True):
        assert type(there) is np.ndarray
        np.testing.assert_array_equal(there, here)


def test_a_plan_that_does_not_fit_says_so(gpu, model, pictures):
    plan = model.compile(device="cuda")
    plan(pictures)
    gpu.limit = 100_000
    with pytest.raises(nl.errors.OutOfMemoryError, match="the plan: out of memory"):
        plan(np.repeat(pictures, 4, 0))
