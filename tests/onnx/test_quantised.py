"""Quantised models: integer layers and types of storage, as ONNX Runtime computes them."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import nnlite.onnx as nx
from nnlite.errors import ModelError
from nnlite.tensors import Tensor

ml_dtypes = pytest.importorskip("ml_dtypes", reason="types of storage come with onnx 1.18")


def integers(shape, dtype, seed=0):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


@cache
def saturates():
    """Whether ONNX Runtime adds pairs of products in 16 bits here, as it does on processors without VNNI."""
    import onnxruntime

    model, feeds = single(
        "MatMulInteger", [np.full((4, 4), 255, np.uint8), np.full((4, 4), 127, np.int8)], np.int32
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0].max() < 4 * 255 * 127


def weights(shape, dtype, seed=1):
    """Of all 8 bits, or of 7 where ONNX Runtime is no oracle for more."""
    signed = integers(shape, np.int8, seed)
    if saturates():
        signed //= 2
    return signed if dtype is np.int8 else (signed.astype(np.int16) + 128).astype(dtype)


def single(operator, arrays, dtype, attributes=None, opset=13, constant=()):
    """A model of one node; inputs that are None are absent, those numbered in ``constant`` initializers."""
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(arrays)]
    node = helper.make_node(operator, names, ["y"], **(attributes or {}))
    entries, tensors, feeds = [], [], {}
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if array is None:
            continue
        if i in constant:
            tensors.append(onnx.numpy_helper.from_array(array, name))
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        entries.append(helper.make_tensor_value_info(name, kind, array.shape))
        feeds[name] = array
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
    graph = helper.make_graph([node], "test", entries, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), feeds


def same(model, feeds, run_ort, off_by=0):
    (expected,) = run_ort(model, feeds)
    (actual,) = nx.load(model).run(feeds)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert np.abs(actual.astype(np.int64) - expected.astype(np.int64)).max() <= off_by


WINDOWS = {
    "plain": dict(),
    "padded": dict(pads=[1, 0, 1, 2], strides=[2, 1]),
    "dilated": dict(dilations=[2, 1], pads=[2, 1, 2, 1]),
    "same": dict(strides=[2, 2], auto_pad="SAME_UPPER"),
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("zero", [(None, None), (7, None), (7, -3)])
def test_conv_integer(run_ort, window, groups, zero):
    x, w = integers((2, 4, 7, 6), np.uint8), weights((6, 4 // groups, 3, 3), np.int8)
    points = [None if z is None else np.array(z, d) for z, d in zip(zero, (np.uint8, np.int8), strict=True)]
    model, feeds = single("ConvInteger", [x, w, *points], np.int32, WINDOWS[window] | dict(group=groups))
    same(model, feeds, run_ort)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv(run_ort, window, groups, bias, per_channel):
    x, w = integers((2, 4, 7, 6), np.uint8), weights((6, 4 // groups, 3, 3), np.int8)
    scale = np.linspace(0.01, 0.04, 6, dtype=np.float32) if per_channel else np.float32(0.02)
    point = np.zeros(6, np.int8) if per_channel else np.array(0, np.int8)
    offset = integers(6, np.int8, 2).astype(np.int32) * 40 if bias else None
    arrays = [x, np.float32(0.03), np.array(120, np.uint8), w, np.asarray(scale), point,
              np.float32(0.5), np.array(100, np.uint8), offset]  # fmt: skip
    arrays = [a if a is None else np.asarray(a) for a in arrays]
    attributes = WINDOWS[window] | dict(group=groups)
    model, feeds = single("QLinearConv", arrays, np.uint8, attributes, constant=(3, 4, 5, 8))
    same(model, feeds, run_ort, off_by=1)  # float32 products rounded in another order, at halves


def test_a_quantised_convolution_over_one_axis_and_over_three(run_ort):
    for axes in (1, 3):
        x, w = integers((1, 2, *(5,) * axes), np.uint8), weights((3, 2, *(2,) * axes), np.uint8)
        model, feeds = single("ConvInteger", [x, w, np.array(5, np.uint8)], np.int32)
        same(model, feeds, run_ort)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5))])
def test_matmul_integer(run_ort, shapes):
    a, b = integers(shapes[0], np.uint8), weights(shapes[1], np.int8)
    choices = [[], [np.array(9, np.uint8)]]
    if b.ndim == 2:
        choices.append([np.array(9, np.uint8), integers(5, np.int8, 2)])
    for points in choices:
        model, feeds = single("MatMulInteger", [a, b, *points], np.int32)
        same(model, feeds, run_ort)


@pytest.mark.parametrize("zero", [(0, 0), (9, -3)])
def test_all_bits_count_in_products_of_integers(zero):
    """Against NumPy's integers: on no processor may a sum saturate."""
    a, b = integers((5, 40), np.uint8), integers((40, 6), np.int8, 1)
    points = [np.array(zero[0], np.uint8), np.array(zero[1], np.int8)]
    model, feeds = single("MatMulInteger", [a, b, *points], np.int32)
    expected = (a.astype(np.int64) - zero[0]) @ (b.astype(np.int64) - zero[1])
    np.testing.assert_array_equal(nx.load(model).run(feeds)[0], expected)

    x, w = a.reshape(1, 8, 5, 5), integers((6, 8, 1, 1), np.int8, 2)
    model, feeds = single("ConvInteger", [x, w, *points], np.int32)
    expected = np.einsum("nchw,kcrs->nkhw", x.astype(np.int64) - zero[0], w.astype(np.int64) - zero[1])
    np.testing.assert_array_equal(nx.load(model).run(feeds)[0], expected)


def test_sums_beyond_single_precision_are_exact():
    a, b = np.full((1, 3000), 255, np.uint8), np.full((3000, 1), 255, np.uint8)
    a[0, 0] = 254
    model, feeds = single("MatMulInteger", [a, b], np.int32)
    assert nx.load(model).run(feeds)[0].item() == 3000 * 255 * 255 - 255


@pytest.mark.parametrize("rank", [2, 3])
def test_qlinear_matmul(run_ort, rank):
    a, b = integers((2, 3, 4)[-rank:], np.uint8), weights((2, 4, 5)[-rank:], np.int8)
    arrays = [a, np.float32(0.02), np.array(113, np.uint8), b, np.float32(0.01), np.array(3, np.int8),
              np.float32(0.3), np.array(118, np.uint8)]  # fmt: skip
    model, feeds = single("QLinearMatMul", [np.asarray(a) for a in arrays], np.uint8)
    same(model, feeds, run_ort, off_by=1)


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_quantised_and_back(run_ort, normal, opset):
    x, scale, point = normal(2, 3, 4), np.float32(0.02), np.array(-5, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), n) for a, n in ((scale, "s"), (point, "z"))]
    entries = [helper.make_tensor_value_info(name, 1, [2, 3, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "test", entries[:1], entries[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    np.testing.assert_array_equal(nx.load(model).run([x])[0], run_ort(model, [x])[0])


def weights_in_integers(scale):
    """A layer whose weights lie in the file as int8, with one scale per output."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], axis=0),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    tensors = [onnx.numpy_helper.from_array(integers((3, 4), np.int8), "q"),
               onnx.numpy_helper.from_array(scale, "scale")]  # fmt: skip
    entries = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [2, 4]), ("y", [2, 3]))]
    graph = helper.make_graph(nodes, "test", entries[:1], entries[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_scales_are_trained_and_integers_are_not(normal, run_ort, tmp_path):
    scale = np.array([0.5, 0.25, 0.125], np.float32)
    model, x = weights_in_integers(scale), normal(2, 4)
    module = nx.load(model)
    assert [name for name, _ in module.named_parameters()] == ["scale"]
    module(Tensor(x)).sum().backward()
    (parameter,) = module.parameters()
    expected = (integers((3, 4), np.int8) * x.sum(0)).sum(1)
    np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-5)
    module.load_state_dict({**module.state_dict(), "scale": scale * 2})
    nx.save(module, tmp_path / "tuned.onnx")
    np.testing.assert_allclose(run_ort(tmp_path / "tuned.onnx", [x])[0], module.run([x])[0], rtol=1e-5)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("name", ["int4", "uint4", "float8_e4m3fn", "float8_e5m2"])
def test_weights_of_few_bits(name, outside, tmp_path, normal):
    dtype = np.dtype(getattr(ml_dtypes, name))
    stored = (normal(3, 5) * 3).astype(dtype)
    tensor = onnx.numpy_helper.from_array(stored, "q")
    if outside:
        raw = tensor.raw_data
        (tmp_path / "w.bin").write_bytes(b"\0" * 8 + raw)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", "8"), ("length", str(len(raw)))):
            tensor.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    entries = [helper.make_tensor_value_info(n, 1, [3, 5]) for n in "xy"]
    scale = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "s")
    graph = helper.make_graph(nodes, "test", entries[:1], entries[1:], [tensor, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    module = nx.load(tmp_path / "model.onnx")
    assert not list(module.parameters())
    (y,) = module.run([np.zeros((3, 5), np.float32)])
    np.testing.assert_array_equal(y, stored.astype(np.float32) * 0.5)


def test_what_is_only_stored_is_not_computed_with():
    stored = np.ones(3, ml_dtypes.float8_e5m2)
    model, _ = single("Add", [stored, stored], stored.dtype, opset=21)
    with pytest.raises(ModelError, match="must not be of type float8_e5m2"):
        nx.load(model)


def test_gradients_pass_what_is_quantised_and_back(normal):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here; install nnlite[oracle]")
    scale, point, x = np.float32(0.02), np.array(-5, np.int8), normal(2, 3, 4) * 3
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    weight = normal(4, seed=1)
    arrays = {"w": weight, "s": np.asarray(scale), "z": point}
    tensors = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
    entries = [helper.make_tensor_value_info(name, 1, [2, 3, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "test", entries[:1], entries[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    module, upstream = nx.load(model), normal(2, 3, 4, seed=2)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    (module(Tensor(x)) * upstream).sum().backward()
    theirs = torch.tensor(weight, requires_grad=True)
    y = torch.fake_quantize_per_tensor_affine(torch.tensor(x) * theirs, float(scale), -5, -128, 127)
    (y * torch.tensor(upstream)).sum().backward()
    (parameter,) = module.parameters()
    np.testing.assert_allclose(module.run([x])[0], y.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(parameter.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-5)
