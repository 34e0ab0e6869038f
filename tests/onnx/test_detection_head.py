"""A detector's head as ONNX says it: boxes from a convolution, suppressed, cut out, pooled."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

import nnlite.onnx as nx
from nnlite.tensors import Tensor

SIZE = 6


def head(mode):
    """[1,3,6,6] -> the class scores [kept, 2] of the boxes that are kept, and those boxes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE].reshape(2, -1).astype(np.float32)
    anchors = np.stack([columns - 1, rows - 1, columns + 2, rows + 2], 1)  # x1 y1 x2 y2
    arrays = {
        "features_w": rng.standard_normal((4, 3, 3, 3)) * 0.3, "features_b": rng.standard_normal(4) * 0.1,
        "boxes_w": rng.standard_normal((4, 4, 1, 1)) * 0.3, "scores_w": rng.standard_normal((1, 4, 1, 1)),
        "classes_w": rng.standard_normal((4 * 4, 2)), "anchors": anchors,
        "most": np.int64([5]), "overlap": np.float32([0.4]), "least": np.float32([0.3]),
        "flat": np.int64([1, 4, -1]), "per_box": np.int64([1, 1, -1]), "third": np.int64([2]),
        "rows": np.int64([-1, 16]), "last": np.int64(2), "axis1": np.int64([1]),
    }  # fmt: skip
    arrays = {k: a if a.dtype == np.int64 else a.astype(np.float32) for k, a in arrays.items()}
    pooling = dict(output_height=2, output_width=2, sampling_ratio=2, spatial_scale=0.5, mode=mode)
    nodes = [
        ("Conv", ["x", "features_w", "features_b"], ["c"], dict(pads=[1] * 4)), ("Relu", ["c"], ["f"], {}),
        ("Conv", ["f", "boxes_w"], ["deltas"], {}), ("Reshape", ["deltas", "flat"], ["d4"], {}),
        ("Transpose", ["d4"], ["moved"], dict(perm=[0, 2, 1])), ("Add", ["moved", "anchors"], ["boxes"], {}),
        ("Conv", ["f", "scores_w"], ["s"], {}), ("Reshape", ["s", "per_box"], ["s1"], {}),
        ("Sigmoid", ["s1"], ["scores"], {}),
        ("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"], {}),
        ("Gather", ["chosen", "last"], ["places"], dict(axis=1)),
        ("Squeeze", ["boxes", "zero"], ["list"], {}), ("Gather", ["list", "places"], ["kept"], dict(axis=0)),
        ("Gather", ["chosen", "none"], ["batch"], dict(axis=1)),
        ("RoiAlign", ["f", "kept", "batch"], ["pooled"], pooling),
        ("Reshape", ["pooled", "rows"], ["p"], {}), ("MatMul", ["p", "classes_w"], ["y"], {}),
    ]  # fmt: skip
    arrays |= {"zero": np.int64([0]), "none": np.int64(0)}
    protos = [helper.make_node(op, i, o, **a) for op, i, o, a in nodes]
    used = {name for proto in protos for name in proto.input}
    tensors = [numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used]
    entries = [helper.make_tensor_value_info("x", 1, [1, 3, SIZE, SIZE])]
    outputs = [
        helper.make_tensor_value_info("y", 1, [None, 2]),
        helper.make_tensor_value_info("kept", 1, [None, 4]),
    ]
    graph = helper.make_graph(protos, "head", entries, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_head_with_suppression_and_cut_out_features(mode, run_ort, normal, tmp_path):
    model, x = head(mode), normal(1, 3, SIZE, SIZE)
    module = nx.load(model)
    expected = run_ort(model, [x])
    assert 2 <= len(expected[0]) <= 5
    for y, wanted in zip(module.run([x]), expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)

    # Along the gradient the scores change as it says, through RoiAlign and, for the boxes, past suppression.
    def loss():
        scores, boxes = module(Tensor(x))
        return (scores * scores).sum() * 0.1 + (boxes * boxes).sum() * 0.01

    value = loss()
    value.backward()
    trained = {k: p for k, p in module.named_parameters() if p.grad is not None}
    assert {"features_w", "features_b", "boxes_w", "classes_w"} <= set(trained)
    assert "scores_w" not in trained  # a choice has no gradient
    gradients = {k: p.grad.numpy().copy() for k, p in trained.items()}
    squares = sum(float((gradients[k].astype(np.float64) ** 2).sum()) for k in trained)
    step = 1e-3 * value.item() / squares
    values = []
    for sign in (1, -2):
        for k, p in trained.items():
            p.assign(p.numpy() + sign * step * gradients[k])
        values.append(loss().item())
    assert values[0] - values[1] == pytest.approx(2e-3 * value.item(), rel=0.1)
    nx.save(module, tmp_path / "tuned.onnx")
    for y, wanted in zip(module.run([x]), run_ort(tmp_path / "tuned.onnx", [x]), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=1e-4)
