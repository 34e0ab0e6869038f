"""The reference against oracles that share no code with it: values by hand, PyTorch, the adjoint identity."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from kernel_harness import FLOAT64, outputs, reference

from nnlite.geometry import (
    CLAMP,
    FUNCTION,
    FUNCTIONS,
    PRELU,
    RELU,
    EltwiseGeometry,
    NormGeometry,
    conv2d_geometry,
    pool2d_geometry,
)
from nnlite.kernels import SPECS


def run(kernel, geometry, **inputs):
    """All outputs of the float64 reference."""
    spec = SPECS[kernel]
    inputs = {name: inputs.get(name) for name in spec.inputs}
    return reference(spec, geometry, inputs)


def inputs_of(kernel, geometry, seed=0):
    return SPECS[kernel].random_inputs(geometry, FLOAT64, np.random.default_rng(seed))


# ------------------------------------------------------------------------------------- by hand


def image(*rows):
    return np.array(rows, np.float64)[None, None]


X = image([1, 2, 3], [4, 5, 6], [7, 8, 9])
W = image([1, 0], [0, -1])


def test_conv2d_forward_by_hand():
    g = conv2d_geometry((1, 1, 3, 3), (1, 1, 2, 2))
    y = run("conv2d_forward", g, x=X, w=W, bias=np.array([10.0]))["y"]
    assert y.tolist() == image([6, 6], [6, 6]).tolist()  # x[p,q] - x[p+1,q+1] + 10 = -4 + 10


def test_conv2d_forward_with_padding_at_the_top_and_stride_by_hand():
    g = conv2d_geometry((1, 1, 3, 3), (1, 1, 2, 2), (2, 2), (1, 0, 0, 1))
    y = run("conv2d_forward", g, x=X, w=W)["y"]
    # rows -1,0 and 1,2 of x; columns 0,1 and 2,3
    assert y.tolist() == image([0 - 2, 0 - 0], [4 - 8, 6 - 0]).tolist()


def test_conv2d_gradients_by_hand():
    g = conv2d_geometry((1, 1, 3, 3), (1, 1, 2, 2))
    gy = image([1, 2], [3, 4])
    gx = run("conv2d_grad_input", g, gy=gy, w=W)["gx"]
    assert gx.tolist() == image([1, 2, 0], [3, 4 - 1, -2], [0, -3, -4]).tolist()
    gw = run("conv2d_grad_weight", g, x=X, gy=gy)["gw"]
    by_hand = image([1 + 4 + 12 + 20, 2 + 6 + 15 + 24], [4 + 10 + 21 + 32, 5 + 12 + 24 + 36])
    assert gw.tolist() == by_hand.tolist()


def test_max_pool2d_by_hand():
    g = pool2d_geometry((1, 1, 3, 3), (2, 2), (2, 2), ceil_mode=True)
    x = image([1, 5, 5], [5, 2, np.nan], [-np.inf, -np.inf, -np.inf])
    result = run("max_pool2d_forward", g, x=x)
    np.testing.assert_array_equal(result["y"], image([5, np.nan], [-np.inf, -np.inf]))
    assert result["indices"].tolist() == image([1, 5], [6, 8]).tolist()  # of equals the first; NaN wins
    gx = run("max_pool2d_backward", g, gy=image([1, 2], [3, 4]), indices=result["indices"])["gx"]
    assert gx.tolist() == image([0, 1, 0], [0, 0, 2], [3, 0, 4]).tolist()


@pytest.mark.parametrize(
    ("counted", "corner", "overhang"),
    [(True, 1 / 4, 9 / 4), (False, 1 / 1, 9 / 1)],
)
def test_avg_pool2d_by_hand(counted, corner, overhang):
    # 3x3 padded by 1 on each side, windows of 2x2 with stride 2 start at -1, 1: with ceil_mode nothing more.
    g = pool2d_geometry((1, 1, 3, 3), (2, 2), (2, 2), (1, 1, 1, 1), count_include_pad=counted)
    y = run("avg_pool2d_forward", g, x=X)["y"]
    assert y[0, 0, 0, 0] == corner
    # No padding, ceil_mode: the last window holds one element and overhangs; what overhangs never counts.
    g = pool2d_geometry((1, 1, 3, 3), (2, 2), (2, 2), ceil_mode=True, count_include_pad=counted)
    y = run("avg_pool2d_forward", g, x=X)["y"]
    assert y.tolist() == image([3, 4.5], [7.5, 9]).tolist()
    # Padding below and right: the last window of 2x2 holds x[2,2] and three padding elements.
    g = pool2d_geometry((1, 1, 3, 3), (2, 2), (2, 2), (0, 0, 1, 1), count_include_pad=counted)
    assert run("avg_pool2d_forward", g, x=X)["y"][0, 0, 1, 1] == overhang
    gx = run("avg_pool2d_backward", g, gy=np.ones((1, 1, 2, 2)))["gx"]
    assert gx[0, 0, 2, 2] == overhang / 9
    assert gx[0, 0, 0, 0] == 1 / 4


def test_batch_norm_by_hand():
    g = NormGeometry(2, 1, 0.0)
    x = np.array([[1.0], [5.0]])
    result = run("batch_norm_training_forward", g, x=x, weight=np.array([3.0]), bias=np.array([1.0]))
    assert result["mean"].tolist() == [3]
    assert result["inv_std"].tolist() == [0.5]
    assert result["y"].tolist() == [[-2], [4]]
    statistics = {"mean": np.array([3.0]), "inv_std": np.array([0.5]), "bias": np.array([1.0])}
    gy = np.array([[1.0], [2.0]])
    result = run("batch_norm_training_backward", g, x=x, gy=gy, weight=np.array([3.0]), **statistics)
    assert result["gbias"].tolist() == [3]
    assert result["gweight"].tolist() == [1]
    assert result["gx"].tolist() == [[0], [0]]  # two points are always -1 and 1
    affine = {"scale": np.array([1.5]), "shift": np.array([0.0])}
    result = run("batch_norm_inference_backward", g, x=x, gy=gy, **affine, **statistics)
    assert result["gx"].tolist() == [[1.5], [3]]
    assert result["gweight"].tolist() == [1]
    y = run("batch_norm_inference_forward", g, x=x, scale=np.array([2.0]), shift=np.array([1.0]))["y"]
    assert y.tolist() == [[3], [11]]


def test_batch_norm_with_relu_and_residual_by_hand():
    g = NormGeometry(2, 1, 0.0, RELU, 0.0, inf)
    x, gy, channel = np.array([[1.0], [5.0]]), np.array([[1.0], [2.0]]), np.array([1.0])
    residual = np.array([[0.5], [-0.5]])
    y = run("batch_norm_training_forward", g, x=x, weight=channel, bias=0 * channel, residual=residual)["y"]
    assert y.tolist() == [[0], [0.5]]  # normalised -1 and 1
    statistics = {"mean": np.array([3.0]), "inv_std": np.array([0.5])}
    for seen in ({"y": y}, {}):  # from the output, and from x
        known = dict(x=x, gy=gy, weight=channel, bias=0 * channel, **statistics, **seen)
        result = run("batch_norm_training_backward", g, **known)
        assert result["gresidual"].tolist() == [[0], [2]]
        assert (result["gbias"].tolist(), result["gweight"].tolist()) == ([2], [2])
        assert result["gx"].tolist() == [[0], [0]]


def test_activations_at_their_kinks_by_hand():
    z = np.array([-1.0, 0.0, 0.5, 2.0, 3.0, np.nan])
    relu = EltwiseGeometry(6, activation=RELU, low=0.0)
    clamp = EltwiseGeometry(6, activation=CLAMP, low=0.0, high=2.0)
    np.testing.assert_array_equal(run("combine", relu, a=z)["y"], [0, 0, 0.5, 2, 3, np.nan])
    np.testing.assert_array_equal(run("combine", clamp, a=z)["y"], [0, 0, 0.5, 2, 2, np.nan])
    gy = np.array([np.inf, 1, 1, 1, np.nan, 1])
    gx = run("activation_backward", relu, gy=gy, z=z)["gx"]
    np.testing.assert_array_equal(gx, [0, 0, 1, 1, np.nan, 1])
    np.testing.assert_array_equal(run("activation_backward", clamp, gy=gy, z=z)["gx"], [0, 1, 1, 1, 0, 0])


def test_combine_and_the_steps_of_optimisers_by_hand():
    a, b = np.array([1.0, 2.0]), np.array([3.0, -4.0])
    assert run("combine", EltwiseGeometry(2, 2.0, 0.5), a=a, b=b)["y"].tolist() == [3.5, 2]
    assert run("combine", EltwiseGeometry(2, -1.0), a=a)["y"].tolist() == [-1, -2]
    assert run("channel_sum", NormGeometry(2, 2, 0.0), x=np.stack([a, b]))["total"].tolist() == [4, -2]
    g = EltwiseGeometry(2)
    options = np.array([0.5, 0.25, 0.5, 1.0, 0.0])  # g = [3.25, -3.5]
    step = run("sgd_step", g, weight=a, gradient=b, velocity=np.array([2.0, 2.0]), options=options)
    assert step["new_velocity"].tolist() == [4.25, -2.5]
    assert step["new_weight"].tolist() == [1 - 2.125, 2 + 1.25]
    options[4] = 1
    nesterov = run("sgd_step", g, weight=a, gradient=b, velocity=np.array([2.0, 2.0]), options=options)
    assert nesterov["new_weight"].tolist() == [1 - 0.5 * (3.25 + 2.125), 2 - 0.5 * (-3.5 - 1.25)]
    options = np.array([0.5, 0.0, 0.5, 0.5, 0.5, 0.5, 2.0, 1.0, 0.1])
    step = run("adam_step", g, weight=a, gradient=b, mean=a, square=np.array([9.0, 0.0]), options=options)
    assert step["new_mean"].tolist() == [2, -1]
    assert step["new_square"].tolist() == [9, 8]
    np.testing.assert_allclose(step["new_weight"], [0.5 - 0.2 / 7, 1 + 0.1 / (2 * np.sqrt(8) + 1)])


# ------------------------------------------------------------------------------ adjoint identity


def test_conv2d_gradients_are_adjoints():
    # The convolution is linear in x and in w, so that these three products are the same number.
    for g in SPECS["conv2d_grad_input"].samples():
        x, w = inputs_of("conv2d_forward", g)["x"], inputs_of("conv2d_forward", g, 1)["w"]
        gy = inputs_of("conv2d_grad_input", g, 2)["gy"]
        product = np.vdot(run("conv2d_forward", g, x=x, w=w)["y"], gy)
        scale = np.linalg.norm(x) * np.linalg.norm(w) * np.linalg.norm(gy)
        assert abs(np.vdot(x, run("conv2d_grad_input", g, gy=gy, w=w)["gx"]) - product) < 1e-13 * scale, g
        assert abs(np.vdot(w, run("conv2d_grad_weight", g, x=x, gy=gy)["gw"]) - product) < 1e-13 * scale, g


def test_pooling_gradients_are_adjoints():
    for g in SPECS["avg_pool2d_forward"].samples():
        x, gy = inputs_of("avg_pool2d_forward", g)["x"], inputs_of("avg_pool2d_backward", g, 1)["gy"]
        product = np.vdot(run("avg_pool2d_forward", g, x=x)["y"], gy)
        assert abs(np.vdot(x, run("avg_pool2d_backward", g, gy=gy)["gx"]) - product) < 1e-10, g
    for g in SPECS["max_pool2d_forward"].samples():
        x, gy = inputs_of("max_pool2d_forward", g)["x"], inputs_of("max_pool2d_backward", g, 1)["gy"]
        result = run("max_pool2d_forward", g, x=x)
        gx = run("max_pool2d_backward", g, gy=gy, indices=result["indices"])["gx"]
        assert abs(np.vdot(x, gx) - np.vdot(result["y"], gy)) < 1e-10, g


# --------------------------------------------------------------------------------------- PyTorch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def close(actual, expected, geometry):
    expected = expected.detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11, err_msg=str(geometry))


def leaves(torch, *arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def activated(torch, z, g, slopes=None):
    """What PyTorch has for the activation of ``g``."""
    if g.activation < FUNCTION:
        return torch.clamp(z, g.low, g.high)
    if g.activation == PRELU:
        return torch.nn.functional.prelu(z, slopes)
    functional, name = torch.nn.functional, FUNCTIONS[g.activation - FUNCTION]
    if name == "leaky_relu":
        return functional.leaky_relu(z, g.low)
    if name.startswith("gelu"):
        return functional.gelu(z, approximate="tanh" if name == "gelu_tanh" else "none")
    return getattr(torch if name in ("sigmoid", "tanh", "erf") else functional, name)(z)


def test_conv2d_against_pytorch(torch):
    for g in SPECS["conv2d_forward"].samples():
        values = inputs_of("conv2d_forward", g)
        bias, slopes = values["bias"] if g.activation == PRELU else (values["bias"], np.zeros(1))
        x, w, bias = leaves(torch, values["x"], values["w"], bias)
        padded = torch.nn.functional.pad(x, (g.pad_left, g.pad_right, g.pad_top, g.pad_bottom))
        y = torch.nn.functional.conv2d(
            padded, w, bias, (g.stride_h, g.stride_w), 0, (g.dilation_h, g.dilation_w), g.groups
        )
        total = y + torch.tensor(values["residual"])
        finished = activated(torch, total, g, torch.tensor(slopes))
        close(run("conv2d_forward", g, **values)["y"], finished, g)
        gy = inputs_of("conv2d_grad_input", g, 1)["gy"]
        gx, gw = torch.autograd.grad(y, (x, w), torch.tensor(gy))
        close(run("conv2d_grad_input", g, gy=gy, w=values["w"])["gx"], gx, g)
        close(run("conv2d_grad_weight", g, x=values["x"], gy=gy)["gw"], gw, g)


def test_conv_transpose2d_against_pytorch(torch):
    for g in SPECS["conv_transpose2d_forward"].samples():
        values = inputs_of("conv_transpose2d_forward", g)
        bias, slopes = values["bias"] if g.activation == PRELU else (values["bias"], np.zeros(1))
        x, w, bias, slopes = (torch.tensor(a) for a in (values["x"], values["w"], bias, slopes))
        whole = torch.nn.functional.conv_transpose2d(
            x, w, None, (g.stride_h, g.stride_w), 0, 0, g.groups, (g.dilation_h, g.dilation_w)
        )
        # Pads on each side and what no window meets, which PyTorch's own arguments do not all say.
        whole = torch.nn.functional.pad(whole, (0, g.pad_left + g.W, 0, g.pad_top + g.H))
        y = whole[:, :, g.pad_top : g.pad_top + g.H, g.pad_left : g.pad_left + g.W] + bias[:, None, None]
        total = y + torch.tensor(values["residual"])
        close(run("conv_transpose2d_forward", g, **values)["y"], activated(torch, total, g, slopes), g)


def test_scale_channels_against_einsum():
    for g in SPECS["scale_channels"].samples():
        values = inputs_of("scale_channels", g)
        y = np.einsum("nchw,ncij->nchw", values["x"], values["scale"])
        np.testing.assert_allclose(run("scale_channels", g, **values)["y"], y, rtol=1e-15, err_msg=str(g))


def test_max_pool2d_against_pytorch(torch):
    for g in SPECS["max_pool2d_forward"].samples():
        values = inputs_of("max_pool2d_forward", g)["x"]
        [x] = leaves(torch, values)
        # PyTorch pads symmetrically: pad by hand with what never wins, up to where the last window ends.
        bottom = max(0, (g.P - 1) * g.stride_h + (g.R - 1) * g.dilation_h + 1 - g.H - g.pad_top)
        right = max(0, (g.Q - 1) * g.stride_w + (g.S - 1) * g.dilation_w + 1 - g.W - g.pad_left)
        pads = (g.pad_left, right, g.pad_top, bottom)
        padded = torch.nn.functional.pad(x, pads, value=-float("inf"))
        y, at = torch.nn.functional.max_pool2d(
            padded, (g.R, g.S), (g.stride_h, g.stride_w), 0, (g.dilation_h, g.dilation_w), return_indices=True
        )
        y, at = y[:, :, : g.P, : g.Q], at[:, :, : g.P, : g.Q]
        width = padded.shape[3]
        indices = (at // width - g.pad_top) * g.W + at % width - g.pad_left
        result = run("max_pool2d_forward", g, x=values)
        close(result["y"], y, g)
        np.testing.assert_array_equal(result["indices"], indices.numpy(), err_msg=str(g))
        gy = np.random.default_rng(1).standard_normal(y.shape)
        [gx] = torch.autograd.grad(y, (x,), torch.tensor(gy))
        close(run("max_pool2d_backward", g, gy=gy, indices=result["indices"])["gx"], gx, g)


def test_avg_pool2d_against_pytorch(torch):
    compared = 0
    for g in SPECS["avg_pool2d_forward"].samples():
        pads = (g.pad_top, g.pad_left)
        symmetric = pads == (g.pad_bottom, g.pad_right) and 2 * pads[0] <= g.R and 2 * pads[1] <= g.S
        if not symmetric or (g.dilation_h, g.dilation_w) != (1, 1):
            continue  # PyTorch has no such pooling
        values = inputs_of("avg_pool2d_forward", g)["x"]
        [x] = leaves(torch, values)
        candidates = [
            torch.nn.functional.avg_pool2d(
                x, (g.R, g.S), (g.stride_h, g.stride_w), pads, ceil_mode, bool(g.count_include_pad)
            )
            for ceil_mode in (False, True)
        ]
        y = next(c for c in candidates if c.shape == g.y_shape)
        close(run("avg_pool2d_forward", g, x=values)["y"], y, g)
        gy = np.random.default_rng(1).standard_normal(y.shape)
        [gx] = torch.autograd.grad(y, (x,), torch.tensor(gy))
        close(run("avg_pool2d_backward", g, gy=gy)["gx"], gx, g)
        compared += 1
    assert compared > 50


def activation_of(torch, g):
    if g.activation == RELU:
        return torch.relu
    return (lambda z: z.clamp(g.low, g.high)) if g.activation == CLAMP else (lambda z: z)


def test_batch_norm_against_pytorch(torch):
    for g in SPECS["batch_norm_training_forward"].samples():
        values = inputs_of("batch_norm_training_forward", g)
        x, weight, bias, residual = leaves(torch, *(values[n] for n in ("x", "weight", "bias", "residual")))
        plain = torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.0, g.epsilon)
        forward = run("batch_norm_training_forward", g, **values)
        y = activation_of(torch, g)(plain + residual)
        close(forward["y"], y, g)
        gy = np.random.default_rng(1).standard_normal(y.shape)
        gradients = torch.autograd.grad(y, (x, weight, bias, residual), torch.tensor(gy), retain_graph=True)
        statistics = {name: forward[name] for name in ("mean", "inv_std")}
        known = {"x": values["x"], "gy": gy, "weight": values["weight"], "bias": values["bias"], **statistics}
        names = ("gx", "gweight", "gbias", "gresidual")
        backward = run("batch_norm_training_backward", g, y=forward["y"], **known)
        for name, gradient in zip(names, gradients, strict=True):
            close(backward[name], gradient, g)
        # Without a residual the mask is found from x.
        gradients = torch.autograd.grad(activation_of(torch, g)(plain), (x, weight, bias), torch.tensor(gy))
        backward = run("batch_norm_training_backward", g, **known)
        for name, gradient in zip(names, gradients, strict=False):
            close(backward[name], gradient, g)


def test_outputs_of_the_harness_are_poisoned():
    spec = SPECS["max_pool2d_forward"]
    made = outputs(spec, pool2d_geometry((1, 1, 4, 4), (2, 2), (2, 2)), FLOAT64)
    assert np.isnan(made["y"]).all()
    assert (made["indices"] < 0).all()
