"""What readers of ONNX files get wrong: one test for each, unless another file has it.

Forms of old operator sets stand in test_opset_history, recurrent networks in test_recurrent, functions and
branches in test_structure, loops in test_control.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnlite import onnx as nx
from nnlite.errors import NnliteError
from nnlite.tensors import Tensor


def agree(model, feeds, run_ort, tolerance=1e-5):
    expected = run_ort(model, feeds)
    for a, e in zip(nx.load(model).run(feeds), expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)
    return expected


# ------------------------------------------------------------------- attributes that became inputs


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("opset", [7, 10, 11, 13, 21])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(onnx_model, run_ort, normal, axis, opset, largest):
    if opset < 11 and not largest:
        pytest.skip("only the largest were to be had")
    options = {"axis": axis} | ({"k": 2} if opset < 10 else {})
    options |= {"largest": largest, "sorted": 1} if opset >= 11 else {}
    inputs = ["x"] if opset < 10 else ["x", "k"]
    arrays = {} if opset < 10 else {"k": np.array([2])}
    outputs = {"values": None, "places": ([None, None], np.int64)}
    x = normal(4, 5)
    x[1] = x[2]  # of equal elements the first counts
    for constant in (True, False)[: 1 + (opset >= 10)]:
        feeds = {"x": x} if constant else {"x": x} | arrays
        declared = {n: ([*a.shape], a.dtype) for n, a in feeds.items()}
        node = ("TopK", inputs, ["values", "places"], options)
        model = onnx_model([node], declared, outputs, arrays if constant else {}, opset=opset)
        agree(model, feeds, run_ort)


REDUCTIONS = {
    "ReduceMin": 18, "ReduceProd": 18, "ReduceL1": 18, "ReduceL2": 18, "ReduceLogSum": 18,
    "ReduceLogSumExp": 18, "ReduceSumSquare": 18, "ReduceMean": 18, "ReduceMax": 18, "ReduceSum": 13,
}  # fmt: skip
"""Since which operator set their axes are an input."""


@pytest.mark.parametrize("operator", REDUCTIONS)
@pytest.mark.parametrize("opset", [7, 11, 13, 18, 21])
@pytest.mark.parametrize("axes", [[1], [0, 2], None])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes_of_reductions(onnx_model, run_ort, normal, operator, opset, axes, keepdims):
    options, arrays = {"keepdims": keepdims}, {}
    if axes is not None and opset >= REDUCTIONS[operator]:
        arrays["axes"] = np.array(axes)
    elif axes is not None:
        options["axes"] = axes if opset < 11 else [axis - 3 for axis in axes]
    model = onnx_model(
        [(operator, ["x", *arrays], ["y"], options)], {"x": [2, 3, 4]}, ["y"], arrays, opset=opset
    )
    agree(model, [np.abs(normal(2, 3, 4)) + np.float32(0.1)], run_ort)


# -------------------------------------------------------------------- one name, two meanings


@pytest.mark.parametrize(
    ("opset", "options"),
    [
        (10, {}),
        (16, {}),
        (16, {"coordinate_transformation_mode": "output_half_pixel"}),
        (16, {"mode": "max", "sampling_ratio": 2}),
        (10, {"sampling_ratio": 2}),
        (21, {"sampling_ratio": 3}),
    ],
)
def test_regions_moved_half_a_pixel_with_operator_set_16(onnx_model, run_ort, normal, opset, options):
    node = (
        "RoiAlign",
        ["x", "r", "i"],
        ["y"],
        dict(output_height=2, output_width=3, spatial_scale=0.5) | options,
    )
    feeds = {"x": normal(2, 3, 8, 9), "i": np.array([1, 0, 1]),
             "r": np.float32([[0, 0, 7, 7], [2.3, 3.1, 12.2, 13.9], [5, 1, 5.5, 9]])}  # fmt: skip
    declared = {n: ([*a.shape], a.dtype) for n, a in feeds.items()}
    (y,) = agree(onnx_model([node], declared, ["y"], opset=opset), feeds, run_ort)
    if not options:
        other = onnx_model([node], declared, ["y"], opset=26 - opset)
        assert not np.allclose(nx.load(other).run(feeds)[0], y)


@pytest.mark.parametrize(
    ("old", "new"), [("bilinear", "linear"), ("bicubic", "cubic"), ("nearest", "nearest")]
)
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_modes_of_grid_sample_have_other_names_since_operator_set_20(
    onnx_model, run_ort, normal, old, new, padding, align
):
    feeds = {"x": normal(1, 2, 5, 6), "g": normal(1, 3, 4, 2, seed=1)}
    declared = {n: [*a.shape] for n, a in feeds.items()}
    results = []
    for opset, mode in ((16, old), (20, new)):
        node = ("GridSample", ["x", "g"], ["y"], dict(mode=mode, padding_mode=padding, align_corners=align))
        results.append(agree(onnx_model([node], declared, ["y"], opset=opset), feeds, run_ort, 2e-5)[0])
    np.testing.assert_array_equal(*results)
    plain = onnx_model([("GridSample", ["x", "g"], ["y"])], declared, ["y"], opset=20)
    agree(plain, feeds, run_ort)


def test_batch_statistics_in_a_file_that_was_exported_in_training_mode(onnx_model, normal):
    """The batch's mean and biased variance normalise; the running variance takes the biased one in, too."""
    x, ones, zeros = normal(4, 3, 5, 5), np.ones(3, np.float32), np.zeros(3, np.float32)
    node = (
        "BatchNormalization",
        ["x", "s", "b", "m", "v"],
        ["y", "m2", "v2"],
        dict(training_mode=1, momentum=0.8),
    )
    arrays = {"s": 2 * ones, "b": ones, "m": zeros, "v": ones}
    module = nx.load(onnx_model([node], {"x": [4, 3, 5, 5]}, ["y", "m2", "v2"], arrays))
    y, m, v = module.run([x])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    normalised = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
    np.testing.assert_allclose(y, 2 * normalised + 1, atol=1e-5)
    np.testing.assert_allclose(m, 0.2 * mean, atol=1e-6)
    np.testing.assert_allclose(v, 0.8 + 0.2 * variance, atol=1e-6)


# ------------------------------------------------------------------------------- where weights are


def test_initializers_may_be_listed_as_inputs_before_the_real_one(onnx_model, run_ort, normal):
    model = onnx_model([("Conv", ["x", "w"], ["y"])], {"x": [1, 2, 4, 4]}, ["y"], {"w": normal(3, 2, 3, 3)},
                       opset=8, ir_version=3, listed=True)  # fmt: skip
    x, w = model.graph.input
    del model.graph.input[:]
    model.graph.input.extend([w, x])
    module = nx.load(model)
    assert module.inputs == ("x",)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    agree(model, {"x": normal(1, 2, 4, 4, seed=1)}, run_ort)


BEHIND = {
    "Identity": ([("Identity", ["w"], ["v"])], (3, 4)),
    "Transpose": ([("Transpose", ["w"], ["v"])], (4, 3)),
    "Reshape": ([("Reshape", ["w", "shape"], ["v"])], (2, 6)),
    "Cast": ([("Cast", ["w"], ["v"], dict(to=1))], (3, 4)),
    "all of them": (
        [("Identity", ["w"], ["a"]), ("Cast", ["a"], ["b"], dict(to=1)), ("Reshape", ["b", "turned"], ["c"]),
         ("Transpose", ["c"], ["v"])],
        (6, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BEHIND)
@pytest.mark.parametrize("half", [False, True])
def test_weights_behind_other_nodes_stay_the_files_own_parameters(
    onnx_model, run_ort, normal, tmp_path, what, half
):
    if half and what not in ("Cast", "all of them"):
        pytest.skip("half precision would be another type than that of x")
    nodes, sizes = BEHIND[what]
    arrays = {"w": normal(*sizes).astype(np.float16 if half else np.float32), "shape": np.array([3, 4])}
    arrays["turned"] = np.array([4, 3])
    if half and what == "all of them":
        nodes = [nodes[0], ("Cast", ["a"], ["b"], dict(to=1)), *nodes[2:]]
    model = onnx_model([*nodes, ("MatMul", ["x", "v"], ["y"])], {"x": [2, 3]}, ["y"], arrays)
    x = normal(2, 3, seed=1)
    agree(model, [x], run_ort, 1e-3 if half else 1e-5)
    module = nx.load(model)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    (w,) = module.parameters()
    module(Tensor(x)).sum().backward()
    w.writable()[...] -= w.grad.numpy()
    nx.save(module, tmp_path / "trained.onnx")
    trained = onnx.load(tmp_path / "trained.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in trained.graph.initializer}["w"]
    assert stored.dtype == arrays["w"].dtype
    assert not np.allclose(stored, arrays["w"], atol=1e-2)
    agree(trained, [x], run_ort, 1e-2 if half else 1e-5)


def test_domains_that_nothing_uses(onnx_model, run_ort, normal):
    model = onnx_model([("Relu", ["x"], ["y"])], {"x": [3]}, ["y"])
    model.opset_import.append(helper.make_opsetid("org.example.unknown", 7))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    agree(model, [normal(3)], run_ort)


# ------------------------------------------------------------------------------- how tensors lie

FIELDS = {
    # element type: (field, what stands in it for 1 and -2)
    "FLOAT": ("float_data", [1.0, -2.0]),
    "DOUBLE": ("double_data", [1.0, -2.0]),
    "INT64": ("int64_data", [1, -2]),
    "INT32": ("int32_data", [1, -2]),
    "INT16": ("int32_data", [1, -2]),
    "INT8": ("int32_data", [1, -2]),
    "UINT8": ("int32_data", [1, 254]),
    "UINT16": ("int32_data", [1, 65534]),
    "UINT32": ("uint64_data", [1, 2**32 - 2]),
    "UINT64": ("uint64_data", [1, 2**64 - 2]),
    "BOOL": ("int32_data", [1, 0]),
    "FLOAT16": ("int32_data", [0x3C00, 0xC000]),
    "BFLOAT16": ("int32_data", [0x3F80, 0xC000]),
}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_tensors_in_typed_fields_and_in_bytes_are_the_same(onnx_model, kind, where):
    field, numbers = FIELDS[kind]
    code = TensorProto.DataType.Value(kind)
    typed = TensorProto(name="w", data_type=code, dims=[2])
    getattr(typed, field).extend(numbers)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    expected = np.array([1, 0 if kind == "BOOL" else -2]).astype(np.int64).astype(dtype)
    raw = numpy_helper.from_array(expected, "w")
    for tensor in (typed, raw):
        nodes = [("Cast", ["w"], ["y"], dict(to=TensorProto.DOUBLE))]
        if where == "constant":
            nodes.insert(0, ("Constant", [], ["w"], dict(value=tensor)))
        model = onnx_model(nodes, {}, {"y": ([2], np.float64)}, {} if where == "constant" else {"w": tensor})
        (y,) = nx.load(model).run([])
        np.testing.assert_array_equal(y, expected.astype(np.float64))


def test_data_beyond_two_gigabytes_of_another_file(onnx_model, tmp_path, run_ort, normal):
    """The file has a hole: it takes a few kilobytes of the disk."""
    w, far = normal(3, 4), 3 << 30
    with (tmp_path / "weights.bin").open("wb") as file:
        file.seek(far)
        file.write(w.tobytes())
    if os.stat(tmp_path / "weights.bin").st_blocks * 512 > 1 << 20:
        pytest.skip("the file system knows no holes")
    model = onnx_model([("MatMul", ["x", "w"], ["y"])], {"x": [2, 3]}, ["y"], {"w": w})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": far, "length": w.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    onnx.save(model, tmp_path / "model.onnx")
    x = normal(2, 3, seed=1)
    np.testing.assert_allclose(nx.load(tmp_path / "model.onnx").run([x])[0], x @ w, rtol=1e-5)
    tensor.external_data[1].value = str(far + 8)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(NnliteError, match=r"weights.bin"):
        nx.load(tmp_path / "model.onnx")


# -------------------------------------------------------------------------- computed everything


def test_weights_that_come_when_the_model_runs(onnx_model, run_ort, normal):
    """A cross-correlation of two computed feature maps, as in trackers."""
    nodes = [("Conv", ["z", "w"], ["k"]), ("Conv", ["x", "w"], ["f"]), ("Conv", ["f", "k"], ["y"])]
    feeds = {"x": normal(1, 3, 8, 8), "z": normal(1, 3, 4, 4, seed=1)}
    model = onnx_model(
        nodes, {n: [*a.shape] for n, a in feeds.items()}, ["y"], {"w": normal(2, 3, 2, 2, seed=2)}
    )
    agree(model, feeds, run_ort)
    x, z = (Tensor(feeds[n], requires_grad=True) for n in "xz")
    module = nx.load(model)
    module(x, z).sum().backward()
    assert all(t.grad is not None and t.grad.numpy().any() for t in (x, z, *module.parameters()))
