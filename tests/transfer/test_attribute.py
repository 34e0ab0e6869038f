"""Attribution maps: known exactly for networks made by hand, and against PyTorch's autograd."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from nnlite import nn
from nnlite import onnx as nx
from nnlite.data import Preprocessing, decode
from nnlite.errors import ConfigError, DataError, ModelError, ShapeError
from nnlite.graph import GraphModule, trace
from nnlite.tensors import Tensor
from nnlite.transfer.attribute import (
    enlarge,
    find_map,
    grad_cam,
    integrated_gradients,
    occlusion,
    score_value,
)
from nnlite.transfer.attributor import Attributor


def traced(module, x):
    graph, leaves = trace(module.eval(), [Tensor(x)])
    return GraphModule(graph, leaves=leaves)


@pytest.fixture
def read(onnx_model, tmp_path):
    """``read(nodes, arrays)``: an ONNX model of one picture input and one output y, read."""

    def make(nodes, arrays, opset=17, metadata=None, name="read.onnx"):
        model = onnx_model(nodes, {"x": ["N", 3, None, None]}, ["y"], arrays, opset=opset, metadata=metadata)
        onnx.save(model, tmp_path / name)
        return nx.load(tmp_path / name)

    return make


def pooled(softmax=False):
    """Features A = x through a 1x1 convolution, mean over pixels, a linear layer."""
    nodes = [
        ("Conv", ["x", "w"], ["a"]), ("GlobalAveragePool", ["a"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "v"], ["s" if softmax else "y"], dict(transB=1)),
    ]  # fmt: skip
    return [*nodes, ("Softmax", ["s"], ["y"])] if softmax else nodes


def identity(channels=3):
    return np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)


# --------------------------------------------------------------------------------------- Grad-CAM


def test_grad_cam_of_a_network_with_global_pooling_is_its_class_activation_map(read, normal):
    # y_c = Σ_k v[c,k] · mean(A_k), so α_k = v[c,k] / (h·w) and L = ReLU(Σ_k v[c,k] A_k) / (h·w).
    v, x = normal(4, 3), normal(2, 3, 5, 6, seed=1)
    module = read(pooled(), {"w": identity(), "v": v})
    found = grad_cam(module, x, [1, 3])
    expected = np.maximum(np.einsum("nk,nkij->nij", v[[1, 3]], x), 0) / 30
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(grad_cam(module, x), grad_cam(module, x, module.run([x])[0].argmax(1)))


def test_a_softmax_at_the_end_changes_nothing(read, normal):
    arrays, x = {"w": normal(3, 3, 1, 1), "v": 5 * normal(4, 3)}, normal(1, 3, 5, 6, seed=1)
    plain = grad_cam(read(pooled(), arrays), x)
    for opset in (11, 17):
        np.testing.assert_allclose(grad_cam(read(pooled(True), arrays, opset), x), plain, rtol=1e-6)


def test_a_class_that_nothing_speaks_for(read, normal):
    x = np.abs(normal(1, 3, 4, 4))
    module = read(pooled(), {"w": identity(), "v": -np.ones((2, 3), np.float32)})
    assert not grad_cam(module, x, [0]).any()


def test_maps_past_which_the_picture_is_read_again(read, normal):
    # The sum adds the picture itself: 'a' is no cut point, and what passes it by has no part in the map.
    nodes = [
        ("Conv", ["x", "w"], ["a"]), ("Add", ["a", "x"], ["b"]), ("GlobalAveragePool", ["b"], ["p"]),
        ("Flatten", ["p"], ["f"]), ("Gemm", ["f", "v"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    w, v, x = normal(3, 3, 1, 1), normal(2, 3, seed=1), normal(1, 3, 4, 4, seed=2)
    module = read(nodes, {"w": w, "v": v})
    assert find_map(module, (4, 4)).name == "b"
    a = np.einsum("ok,nkij->noij", w[:, :, 0, 0], x)
    expected = np.maximum(np.einsum("k,nkij->nij", v[0], a), 0) / 16
    np.testing.assert_allclose(grad_cam(module, x, [0], at="a"), expected, rtol=1e-5, atol=1e-6)


def test_the_map_before_the_last_pooling_is_found(mobilenet_path, normal):
    module = nx.load(mobilenet_path)
    assert find_map(module, (64, 64)).name == "/features/features.18/features.18.2/Clip_output_0"
    vgg = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 16, 2)
    )
    found = find_map(traced(vgg, normal(1, 3, 8, 8)), (8, 8))
    assert found.node.op.name == "relu"


def test_large_networks(assets):
    for name, op in (("efficientnet_lite0", "clamp"), ("efficientnet_lite0_padgraph", "clamp")):
        value = find_map(nx.load(assets / "models" / f"{name}.onnx"), (224, 224))
        assert value.node.op.name == op


def test_enlarging_is_bilinear_with_pixels_as_areas():
    grown = enlarge(np.array([[[0.0, 1.0]]]), (2, 4))
    np.testing.assert_allclose(grown, [[[0, 0.25, 0.75, 1]] * 2])


# --------------------------------------------------------------------------- integrated gradients


def test_shares_of_a_linear_network_are_its_products(read, normal):
    v, x = normal(2, 3), normal(2, 3, 4, 5, seed=1)
    module = read(pooled(), {"w": identity(), "v": v})
    start = normal(3, 4, 5, seed=2)
    found = integrated_gradients(module, x, [0, 1], baseline=start, steps=1)
    np.testing.assert_allclose(found, v[:, :, None, None] * (x - start) / 20, rtol=1e-5, atol=1e-6)


def test_polynomials_are_integrated_exactly(read, normal):
    # y = Σ_k v_k · mean(x_k⁴): the gradient has degree 3 along the path, which two points integrate.
    nodes = [("Mul", ["x", "x"], ["q"]), ("Mul", ["q", "q"], ["a"]), *pooled()[1:]]
    v, x = normal(2, 3), normal(1, 3, 3, 3, seed=1)
    module = read(nodes, {"v": v})
    exact = v[0][:, None, None] * x**4 / 9
    two = integrated_gradients(module, x, [0], steps=2)
    np.testing.assert_allclose(two, exact, rtol=1e-4, atol=1e-5)
    one = integrated_gradients(module, x, [0], steps=1)
    assert np.abs(one - exact).max() > 0.05


def test_completeness_on_a_real_network(mobilenet_path, clipart):
    module, preprocessing = nx.load(mobilenet_path), Preprocessing.named("imagenet", 64, crop=1.0)
    pictures = [sorted((clipart / "val" / name).iterdir())[0] for name in ("bird", "plant")]
    x = np.stack([preprocessing.evaluation()(decode(path)) for path in pictures])
    start = preprocessing.normalize()(np.zeros((64, 64, 3), np.uint8))
    before, after = module.run([start[None]])[0], module.run([x])[0]
    for c in (5, 100):
        shares = integrated_gradients(module, x, [c, c], baseline=start, steps=100, batch_size=25)
        # ReLU6's gradient jumps along the path, so that the sum is close, not exact.
        change = after[:, c] - before[0, c]
        assert np.abs(shares.sum(axis=(1, 2, 3)) - change).max() < 0.05 * np.abs(after - before).max()


def test_batches_of_steps_change_only_rounding(read, normal):
    nodes = [("Relu", ["x"], ["a"]), *pooled()[1:]]
    module, x = read(nodes, {"v": normal(2, 3)}), normal(2, 3, 4, 4)
    a = integrated_gradients(module, x, steps=7, batch_size=3, baseline=0.5)
    b = integrated_gradients(module, x, steps=7, batch_size=7, baseline=0.5)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------- occlusion


def test_occlusion_of_a_sum_is_the_mean_over_windows_that_cover_a_pixel(normal):
    # f = Σ x, so that covering a window with 0 loses its sum.
    x = normal(2, 1, 4, 6)
    found = occlusion(lambda images: images.sum(axis=(2, 3)), x, [0, 0], patch=2, stride=1, batch_size=4)
    for n in range(2):
        sums = np.array([[x[n, 0, t : t + 2, le : le + 2].sum() for le in range(5)] for t in range(3)])
        for i in range(4):
            for j in range(6):
                over = sums[max(0, i - 1) : min(i, 2) + 1, max(0, j - 1) : min(j, 4) + 1]
                assert found[n, i, j] == pytest.approx(over.mean(), abs=1e-5)


def test_occlusion_finds_the_one_pixel_that_counts():
    x = np.zeros((1, 3, 8, 8), np.float32)
    x[0, 1, 2, 5] = 1
    found = occlusion(lambda images: images[:, :, 2, 5], x, [1], patch=2, stride=2)
    expected = np.zeros((8, 8))
    expected[2:4, 4:6] = 1
    np.testing.assert_array_equal(found[0], expected)


def test_windows_reach_the_border_and_are_filled_by_channel(normal):
    x = normal(1, 3, 7, 7)
    seen = []

    def scores(images):
        seen.extend(images)
        return images.mean(axis=(2, 3))

    occlusion(scores, x, patch=3, stride=3, fill=[1, 2, 3], batch_size=2)
    covered = np.array([(image != x[0]).any(axis=0) for image in seen[1:]])
    assert covered.any(axis=0).all()
    assert (covered.sum(axis=(1, 2)) == 9).all()
    assert len(covered) == 9  # at 0, 3 and 4 of each axis
    assert (seen[-1][:, -1, -1] == [1, 2, 3]).all()


# ---------------------------------------------------------------------------------- against PyTorch


def test_against_pytorch(normal):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here; install nnlite[oracle]")
    w1, w2, v = 0.3 * normal(6, 3, 3, 3), 0.3 * normal(8, 6, 3, 3, seed=1), normal(4, 8, seed=2)
    x = normal(3, 3, 12, 10, seed=3)
    own = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4, bias=False),
    )  # fmt: skip
    for layer, array in ((0, w1), (2, w2), (6, v)):
        own[layer].weight.assign(array)
    module = traced(own, x)
    classes = [0, 3, 1]

    def features(images):
        first = torch.relu(torch.nn.functional.conv2d(images, torch.from_numpy(w1).double()))
        return torch.relu(torch.nn.functional.conv2d(first, torch.from_numpy(w2).double()))

    def score(maps):
        return (maps.mean(dim=(2, 3)) @ torch.from_numpy(v).double().T)[range(len(maps)), classes]

    maps = features(torch.from_numpy(x).double()).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(maps).sum(), maps)
    cam = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(1)).detach().numpy()
    np.testing.assert_allclose(grad_cam(module, x, classes), cam, rtol=1e-4, atol=1e-6)

    nodes, weights = np.polynomial.legendre.leggauss(20)
    total = torch.zeros(x.shape, dtype=torch.float64)
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        at = (torch.from_numpy(x).double() * t).requires_grad_()
        total += weight * torch.autograd.grad(score(features(at)).sum(), at)[0]
    shares = (torch.from_numpy(x) * total).numpy()
    found = integrated_gradients(module, x, classes, steps=20)
    np.testing.assert_allclose(found, shares, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in module.parameters()), "the module's own gradients are untouched"


# ----------------------------------------------------------------------------------- a model file


@pytest.fixture
def model(read, tmp_path):
    """Class 'red' is the mean of red, 'green' of green, 'blue' of blue, pixels being 0 .. 1."""
    metadata = {
        "nnlite.classes": json.dumps(["red", "green", "blue"]),
        "nnlite.preprocessing": Preprocessing.named("unit", 16, crop=1.0).to_json(),
    }
    read(
        pooled(),
        {"w": identity(), "v": 9 * np.eye(3, dtype=np.float32)},
        metadata=metadata,
        name="model.onnx",
    )
    return tmp_path / "model.onnx"


@pytest.fixture
def picture():
    """Red above, green below, a little more of red."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:9, :, 0] = 255
    pixels[9:, :, 1] = 255
    return pixels


@pytest.mark.parametrize("method", ["gradcam", "ig", "occlusion"])
def test_the_part_that_speaks_for_a_class(model, picture, method):
    attributor = Attributor.open(model)
    own = attributor.attribute(picture, method)
    assert (own.class_name, own.class_index, own.method) == ("red", 0, method)
    assert own.score > 0.6
    assert own.values[:7].min() > 10 * max(own.values[11:].max(), 0)
    other = attributor.attribute(picture, method, target="green")
    assert other.class_index == 1
    assert other.values[11:].min() > 10 * max(other.values[:7].max(), 0)
    drawn = own.overlay()
    assert drawn.shape == (16, 16, 3) and drawn.dtype == np.uint8
    assert np.abs(drawn[2, 2].astype(int) - drawn[14, 2]).max() > 50


def test_notes_say_what_the_figures_are(model, picture):
    attributor = Attributor.open(model)
    assert attributor.attribute(picture).note == "feature map 'a', 16 x 16"
    # From black, 9/16 of the rows are red, of weight 9.
    assert "sum to 5.062; the score rose by 5.062" in attributor.attribute(picture, "ig").note
    assert "where nothing speaks" in attributor.attribute(picture, target=2).note


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(method="lime"), "must be one of gradcam, ig, occlusion"),
        (dict(target="yellow"), "no class 'yellow'; it knows red, green, blue"),
        (dict(target=3), r"class 3 is not in 0 \.\. 2"),
        (dict(method="ig", baseline=300), "baseline=300"),
        (dict(method="ig", steps=0), "steps=0"),
        (dict(method="occlusion", patch=17), "patch=17"),
        (dict(method="occlusion", patch=4, stride=5), "stride=5"),
    ],
)
def test_options_that_cannot_be(model, picture, options, match):
    with pytest.raises(ConfigError, match=match):
        Attributor.open(model).attribute(picture, **options)


def test_models_and_pictures_that_cannot_be_attributed(model, picture, read, normal, tmp_path):
    with pytest.raises(DataError, match="no such picture"):
        Attributor.open(model).attribute(tmp_path / "none.png")
    with pytest.raises(ModelError, match=r"'f' is no feature map .* the last ones are a"):
        Attributor.open(model).attribute(picture, at="f")
    flat = read([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "v"], ["y"])], {"v": normal(768, 2)})
    with pytest.raises(ModelError, match="use the method ig or occlusion"):
        find_map(flat, (16, 16))
    with pytest.raises(ShapeError, match=r"must be \[2\]"):
        grad_cam(nx.load(model), normal(2, 3, 4, 4), [0])
    loose = [("Conv", ["x", "w"], ["a"]), ("Shape", ["a"], ["s"]), ("Cast", ["s"], ["y"], dict(to=1))]
    with pytest.raises(ModelError, match=r"no feature map|do not depend"):
        grad_cam(read(loose, {"w": identity()}), normal(1, 3, 4, 4))
    two = GraphModule(nx.load(model).graph.between(nx.load(model).graph.inputs, []))
    with pytest.raises(ModelError, match="has 0 outputs"):
        score_value(two)


@pytest.mark.parametrize("task", ["multi", "regression"])
def test_labels_and_numbers_are_scored_as_what_they_are(read, tmp_path, picture, task):
    metadata = {
        "nnlite.classes": json.dumps(["red", "green", "blue"]), "nnlite.task": task,
        "nnlite.preprocessing": Preprocessing.named("unit", 16, crop=1.0).to_json(),
    }  # fmt: skip
    arrays = {"w": identity(), "v": 4 * np.eye(3, dtype=np.float32)}
    read(pooled(), arrays, metadata=metadata, name="model.onnx")
    found = Attributor.open(tmp_path / "model.onnx").attribute(picture, "occlusion", target="green")
    raw = 4 * 7 / 16  # green is full in 7 of 16 rows
    assert found.score == pytest.approx(raw if task == "regression" else 1 / (1 + np.exp(-raw)), abs=1e-5)
    assert found.values[12:].min() > 0 > found.values[:6].max()
