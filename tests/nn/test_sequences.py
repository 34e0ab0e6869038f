"""Recurrent layers and attention against PyTorch: outputs, states, gradients."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import nnlite as nl
from nnlite import functional as F
from nnlite import nn
from nnlite.errors import NnliteError

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), atol=tolerance)


def compare_gradients(ours, theirs, y, z, leaf, other):
    gy = random(*y.shape, seed=9)
    y.backward(gy)
    z.backward(torch.tensor(gy))
    close(leaf.grad, other.grad)
    for (key, p), q in zip(
        sorted(ours.named_parameters()), [q for _, q in sorted(theirs.named_parameters())], strict=True
    ):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), atol=1e-4, err_msg=key)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("LSTM", {"proj_size": 3}), ("GRU", {})],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # PyTorch's, about its own speed
@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent_layers(kind, more, bidirectional):
    for layers, bias, batch_first, given in product([1, 2], [True, False], [True, False], [True, False]):
        options = {"num_layers": layers, "bias": bias, "batch_first": batch_first, **more}
        options["bidirectional"] = bidirectional
        theirs, ours = getattr(torch.nn, kind)(3, 4, **options), getattr(nn, kind)(3, 4, **options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        ours.load_state_dict(theirs.state_dict())
        x = random(2, 5, 3) if batch_first else random(5, 2, 3)
        a, b = nl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        widths = [more.get("proj_size", 4), 4] if kind == "LSTM" else [4]
        hx = [random(layers * (1 + bidirectional), 2, width, seed=i) for i, width in enumerate(widths)]
        mine = other = None
        if given:
            mine, other = tuple(map(nl.tensor, hx)), tuple(map(torch.tensor, hx))
            mine, other = (mine, other) if kind == "LSTM" else (mine[0], other[0])
        (y, last), (z, expected) = ours(a, mine), theirs(b, other)
        close(y, z)
        pairs = zip(last, expected, strict=True) if kind == "LSTM" else [(last, expected)]
        for found, wanted in pairs:
            close(found, wanted)
        compare_gradients(ours, theirs, y, z, a, b)


def test_a_sequence_without_batch():
    theirs, ours = torch.nn.LSTM(3, 4), nn.LSTM(3, 4)
    ours.load_state_dict(theirs.state_dict())
    (y, (h, c)), (z, (p, q)) = ours(nl.tensor(random(5, 3))), theirs(torch.tensor(random(5, 3)))
    for a, b in [(y, z), (h, p), (c, q)]:
        close(a, b)


def test_scaled_dot_product_attention():
    q, k, v = random(2, 3, 4, 5), random(2, 3, 6, 5, seed=1), random(2, 3, 6, 7, seed=2)
    keep = random(4, 6) > -0.5
    keep[:, 0] = True
    cases = [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": random(4, 6)}, {"attn_mask": keep}]
    for options in cases:
        mine = {n: nl.tensor(o) if n == "attn_mask" else o for n, o in options.items()}
        other = {n: torch.tensor(o) if n == "attn_mask" else o for n, o in options.items()}
        leaves = [nl.tensor(t, requires_grad=True) for t in (q, k, v)]
        others = [torch.tensor(t, requires_grad=True) for t in (q, k, v)]
        y = F.scaled_dot_product_attention(*leaves, **mine)
        z = torch.nn.functional.scaled_dot_product_attention(*others, **other)
        close(y, z)
        y.sum().backward()
        z.sum().backward()
        for a, b in zip(leaves, others, strict=True):
            close(a.grad, b.grad)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention(batch_first, bias):
    options = {"bias": bias, "batch_first": batch_first}
    theirs, ours = torch.nn.MultiheadAttention(8, 2, **options), nn.MultiheadAttention(8, 2, **options)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    q, k = random(3, 4, 8), random(3, 6, 8, seed=1)
    if not batch_first:
        q, k = q.swapaxes(0, 1), k.swapaxes(0, 1)
    padding = np.zeros((3, 6), bool)
    padding[1, 4:] = True
    blocked = np.triu(np.ones((4, 6), bool), 3)
    for masks in [{}, {"key_padding_mask": padding}, {"attn_mask": blocked}, {"attn_mask": random(6, 4, 6)},
                  {"attn_mask": blocked, "key_padding_mask": padding}]:  # fmt: skip
        for average in (True, False):
            ours.zero_grad()
            theirs.zero_grad()
            a, b = nl.tensor(q, requires_grad=True), torch.tensor(q, requires_grad=True)
            mine = {n: nl.tensor(m) for n, m in masks.items()}
            other = {n: torch.tensor(m) for n, m in masks.items()}
            key, peer = nl.tensor(k), torch.tensor(k)
            y, weights = ours(a, key, key, average_attn_weights=average, **mine)
            z, expected = theirs(b, peer, peer, average_attn_weights=average, **other)
            close(y, z)
            close(weights, expected)
            compare_gradients(ours, theirs, y, z, a, b)
    assert ours(a, key, key, need_weights=False)[1] is None


@pytest.mark.parametrize("options", [
    {"kdim": 5, "vdim": 6}, {"kdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 6, "bias": False},
])  # fmt: skip
def test_multihead_attention_of_other_keys(options):
    theirs, ours = torch.nn.MultiheadAttention(8, 2, **options), nn.MultiheadAttention(8, 2, **options)
    ours.load_state_dict(theirs.state_dict())  # strictly: the names and shapes are PyTorch's
    q, k = random(4, 3, 8), random(6, 3, options.get("kdim", 8), seed=1)
    v = random(6, 3, options.get("vdim", 8), seed=2)
    padding, blocked = np.zeros((3, 6), bool), np.triu(np.ones((4, 6), bool), 1)
    padding[1, 4:] = True
    for masks in [{}, {"key_padding_mask": padding}, {"attn_mask": blocked, "key_padding_mask": padding}]:
        ours.zero_grad()
        theirs.zero_grad()
        a, b = nl.tensor(q, requires_grad=True), torch.tensor(q, requires_grad=True)
        y, weights = ours(a, nl.tensor(k), nl.tensor(v), **{n: nl.tensor(m) for n, m in masks.items()})
        others = {n: torch.tensor(m) for n, m in masks.items()}
        z, expected = theirs(b, torch.tensor(k), torch.tensor(v), **others)
        close(y, z)
        close(weights, expected)
        compare_gradients(ours, theirs, y, z, a, b)
    # What is_causal says here is what PyTorch wants as a mask.
    y, _ = ours(*map(nl.tensor, (q, k, v)), is_causal=True)
    z, _ = theirs(*map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(blocked))
    close(y, z)


def test_multihead_attention_without_a_batch():
    theirs, ours = torch.nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)
    ours.load_state_dict(theirs.state_dict())
    x, padding = random(4, 8), np.array([False, False, False, True])
    for masks in ({}, {"key_padding_mask": padding}):
        y, weights = ours(*[nl.tensor(x)] * 3, **{n: nl.tensor(m) for n, m in masks.items()})
        z, expected = theirs(*[torch.tensor(x)] * 3, **{n: torch.tensor(m) for n, m in masks.items()})
        close(y, z)
        close(weights, expected)


class First(nn.Module):
    """A layer without its states or weights."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, *inputs):
        return self.layer(*inputs)[0]


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), [(5, 2, 3)]),
        (lambda: nn.GRU(3, 4, batch_first=True), [(2, 5, 3)]),
        (lambda: nn.RNN(3, 4, nonlinearity="relu"), [(5, 2, 3)]),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), [(2, 4, 8), (2, 6, 8), (2, 6, 8)]),
        (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, kdim=5, vdim=6),
         [(4, 3, 8), (6, 3, 5), (6, 3, 6)]),
    ],
)  # fmt: skip
def test_onnx_runtime_computes_the_same(make, shapes, run_ort):
    nl.manual_seed(0)
    layer, inputs = First(make()).eval(), [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    # Unrolled, and so of exactly these sizes.
    model = nl.onnx.to_model(layer, inputs=inputs, input_sizes=shapes)
    (found,) = run_ort(model, inputs)
    with nl.no_grad():
        np.testing.assert_allclose(found, layer(*map(nl.tensor, inputs)).numpy(), atol=1e-6)


def test_what_makes_no_sense():
    x = nl.tensor(random(5, 2, 3))
    for call, match in [
        (lambda: nn.LSTM(0, 4), "input_size=0"),
        (lambda: nn.LSTM(3, 4, proj_size=4), "proj_size=4"),
        (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "nonlinearity='gelu'"),
        (lambda: nn.GRU(3, 4)(nl.tensor(random(5, 2, 4))), "GRU: x has shape"),
        (lambda: nn.LSTM(3, 4)(x, x), "hx must be 2 states"),
        (lambda: nn.MultiheadAttention(8, 3), "must be a multiple of num_heads=3"),
        (lambda: nn.MultiheadAttention(8, 2)(x, x, x), "query has shape"),
        (lambda: F.scaled_dot_product_attention(x, nl.tensor(random(5, 2, 4)), x), "attention: query"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()
