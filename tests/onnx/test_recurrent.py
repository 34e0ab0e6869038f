"""LSTM, GRU and RNN nodes: what ONNX's own tests leave out. Oracles: ONNX Runtime, PyTorch, differences."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from nnlite import nn
from nnlite import onnx as nx
from nnlite.errors import ModelError, NnliteError
from nnlite.tensors import Tensor
from nnlite.testing import gradcheck

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, WIDTH, HIDDEN = 4, 3, 2, 5


def operands(operator, directions=1, batch_first=False, seed=0):
    rng = np.random.default_rng(seed)
    rows, state = GATES[operator] * HIDDEN, (directions, BATCH, HIDDEN)
    shapes = dict(
        x=(STEPS, BATCH, WIDTH), w=(directions, rows, WIDTH), r=(directions, rows, HIDDEN),
        b=(directions, 2 * rows), h=state,
    )  # fmt: skip
    if operator == "LSTM":
        shapes.update(c=state, p=(directions, 3 * HIDDEN))
    arrays = {name: rng.standard_normal(shape).astype(np.float32) / 2 for name, shape in shapes.items()}
    if batch_first:
        arrays.update(
            {k: np.ascontiguousarray(arrays[k].swapaxes(0, 1)) for k in ("x", "h", "c") if k in arrays}
        )
    return arrays


def model(onnx_model, operator, arrays, opset=17, lengths=None, weights=(), dtype=np.float32, **attributes):
    """One node; those of ``arrays`` that ``weights`` names are constants."""
    arrays = {k: a.astype(dtype) for k, a in arrays.items()}
    if lengths is not None:
        arrays["lengths"] = np.asarray(lengths, np.int32)
    names = ["x", "w", "r", "b", "lengths", "h", "c", "p"][: 8 if operator == "LSTM" else 6]
    listed = [name if name in arrays else "" for name in names]
    outputs = ["y", "y_h", *(["y_c"] if operator == "LSTM" else [])]
    node = (operator, listed, outputs, dict(hidden_size=HIDDEN) | attributes)
    feeds = {k: a for k, a in arrays.items() if k not in weights}
    inputs = {k: (list(a.shape), a.dtype) for k, a in feeds.items()}
    constants = {k: arrays[k] for k in weights}
    return onnx_model([node], inputs, {k: ([None] * 3, dtype) for k in outputs} | {"y": ([None] * 4, dtype)},
                      constants, opset=opset), feeds  # fmt: skip


def agree(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        np.testing.assert_allclose(a, e, rtol=0, atol=2e-6)


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, (4, 1, 2), (3, 3, 3)])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("opset", [7, 14, 22])
def test_against_onnxruntime(onnx_model, run_ort, operator, direction, lengths, clip, opset):
    arrays = operands(operator, 2 if direction == "bidirectional" else 1)
    options = {} if clip is None else {"clip": clip}
    proto, feeds = model(onnx_model, operator, arrays, opset, lengths, direction=direction, **options)
    agree(nx.load(proto).run(feeds), run_ort(proto, feeds))


@pytest.mark.parametrize(("operator", "flag"), [("GRU", "linear_before_reset"), ("LSTM", "input_forget")])
def test_flags(onnx_model, run_ort, operator, flag):
    arrays, results = operands(operator), []
    for value in (0, 1):
        proto, feeds = model(onnx_model, operator, arrays, **{flag: value})
        results.append(nx.load(proto).run(feeds)[0])
        agree([results[-1]], run_ort(proto, feeds)[:1])
    assert not np.allclose(*results)


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_the_same_transposed(onnx_model, operator, direction):
    count = 2 if direction == "bidirectional" else 1
    proto, feeds = model(
        onnx_model, operator, operands(operator, count), lengths=(4, 1, 2), direction=direction
    )
    y, *states = nx.load(proto).run(feeds)
    arrays = operands(operator, count, batch_first=True)
    proto, feeds = model(onnx_model, operator, arrays, lengths=(4, 1, 2), direction=direction, layout=1)
    z, *others = nx.load(proto).run(feeds)
    np.testing.assert_array_equal(z, y.transpose(2, 0, 1, 3))
    for state, other in zip(states, others, strict=True):
        np.testing.assert_array_equal(other, state.swapaxes(0, 1))


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("opset", [1, 3])
def test_operator_sets_before_seven_say_whether_they_want_the_sequence(onnx_model, operator, opset):
    arrays = operands(operator)
    proto, feeds = model(onnx_model, operator, arrays, lengths=(4, 2, 1))
    expected = nx.load(proto).run(feeds)
    proto, feeds = model(onnx_model, operator, arrays, opset, (4, 2, 1), output_sequence=1)
    agree(nx.load(proto).run(feeds), expected)


@pytest.mark.parametrize("operator", GATES)
def test_gradients_of_all_outputs(onnx_model, operator):
    """Constants in the file are parameters; float64, the last states included."""
    arrays = operands(operator, 2)
    proto, feeds = model(onnx_model, operator, arrays, lengths=(4, 1, 2), weights=("w", "r", "b"),
                         dtype=np.float64, direction="bidirectional")  # fmt: skip
    module = nx.load(proto)
    assert [name for name, _ in module.named_parameters()] == ["w", "r", "b"]
    gys = [np.random.default_rng(i).standard_normal(y.shape) for i, y in enumerate(module.run(feeds))]

    def scalar(*inputs):
        given = dict(zip([k for k in feeds if k != "lengths"], inputs, strict=True))
        listed = [given.get(k) or Tensor(feeds[k]) for k in module.inputs]
        return sum((y * Tensor(gy)).sum() for y, gy in zip(module(*listed), gys, strict=True))

    leaves = [Tensor(a, requires_grad=True) for k, a in feeds.items() if k != "lengths"]
    gradcheck(scalar, leaves)
    scalar(*leaves).backward()
    for name, parameter in module.named_parameters():
        values = parameter.writable()
        direction = np.random.default_rng(3).standard_normal(values.shape)
        ends = []
        for sign in (1, -1):
            values += sign * 1e-5 * direction
            ends.append(scalar(*leaves).numpy().item())
            values -= sign * 1e-5 * direction
        slope = float((parameter.grad.numpy() * direction).sum())
        assert abs((ends[0] - ends[1]) / 2e-5 - slope) < 1e-6 * max(1, abs(slope)), name


@pytest.mark.parametrize("operator", GATES)
def test_sequences_of_different_lengths_as_pytorch_packs_them(onnx_model, operator):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    network = getattr(torch.nn, operator)(WIDTH, HIDDEN)
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[operator]

    def gates(tensor):
        parts = tensor.detach().numpy().reshape(GATES[operator], HIDDEN, -1)
        return parts[order].reshape(tensor.shape)

    x = operands(operator)["x"]
    lengths = (4, 2, 1)
    arrays = dict(
        x=x, w=gates(network.weight_ih_l0)[None], r=gates(network.weight_hh_l0)[None],
        b=np.concatenate([gates(network.bias_ih_l0), gates(network.bias_hh_l0)])[None],
    )  # fmt: skip
    options = dict(linear_before_reset=1) if operator == "GRU" else {}
    proto, feeds = model(onnx_model, operator, arrays, lengths=lengths, **options)
    y, *last = nx.load(proto).run(feeds)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths)
    expected, states = network(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected)
    np.testing.assert_allclose(y[:, 0], expected.detach().numpy(), atol=1e-6)
    for found, wanted in zip(last, states if operator == "LSTM" else [states], strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(activations=["Tanh", "Tanh"]), "must be 3 of Relu"),
        (dict(activations=["Sigmoid", "Tanh", "Sine"]), "Sine"),
        (dict(activations=["Sigmoid", "Tanh", "Affine"]), "activation Affine needs its activation_alpha"),
        (dict(direction="both"), "direction='both'"),
        (dict(hidden_size=HIDDEN + 1), "hidden_size=6 but R has shape"),
        (dict(lengths=(4, 5, 1)), r"sequence_lens \[4, 5, 1\] must be between 0 and 4"),
        (dict(colour=1), "attribute colour is not understood"),
    ],
)  # fmt: skip
def test_what_is_refused(onnx_model, options, match):
    proto, feeds = model(onnx_model, "LSTM", operands("LSTM"), weights=("r",), **options)
    with pytest.raises(NnliteError, match=match):
        nx.load(proto).run(feeds)


def test_weights_of_one_type():
    node = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=1)
    infos = [helper.make_tensor_value_info(n, k, [1, 1, 1]) for n, k in (("x", 1), ("w", 1), ("r", 11))]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", 1, None)])
    with pytest.raises(ModelError, match="float and double but must be of one type"):
        nx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


class Flat(nn.Module):
    """All results of a recurrent layer as one tuple."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        y, last = self.layer(x)
        return (y, *(last if isinstance(last, tuple) else (last,)))


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_are_written_as_one_operator(run_ort, tmp_path, operator, bidirectional):
    layer = getattr(nn, operator)(WIDTH, HIDDEN, bidirectional=bidirectional)
    path = tmp_path / "layer.onnx"
    nx.save(Flat(layer), path, inputs=[operands(operator)["x"]])
    written = [node.op_type for node in onnx.load(path).graph.node]
    assert written.count(operator) == 1 + bidirectional
    for seed in (1, 2):  # another number of steps, too
        x = operands(operator, seed=seed)["x"][seed:]
        expected = Flat(layer)(Tensor(x))
        for a, b, e in zip(run_ort(path, [x]), nx.load(path).run([x]), expected, strict=True):
            np.testing.assert_allclose(a, e.numpy(), atol=1e-6)
            np.testing.assert_allclose(b, e.numpy(), atol=1e-6)
