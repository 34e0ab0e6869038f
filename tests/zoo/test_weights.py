"""Pretrained weights: safetensors and ONNX, other names, heads of other sizes, and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import nnlite as nl
from nnlite import zoo
from nnlite.errors import ConfigError, ModelError
from nnlite.zoo import densenet, efficientnet, mobilenet_v3, vgg

save_file = pytest.importorskip("safetensors.numpy", reason="pip install safetensors").save_file


def equal(model, state) -> bool:
    return all(np.array_equal(value, state[name]) for name, value in model.state_dict().items())


def predict(model, x: np.ndarray) -> np.ndarray:
    with nl.no_grad():
        return model.eval()(nl.tensor(x)).numpy()


@pytest.fixture(scope="module")
def state():
    """A SqueezeNet's weights: the smallest of the zoo's networks for photographs."""
    nl.manual_seed(5)
    return zoo.squeezenet1_1(num_classes=6).state_dict()


@pytest.fixture
def write(tmp_path):
    def write(arrays, name="weights.safetensors"):
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, tmp_path / name)
        return tmp_path / name

    return write


# ----------------------------------------------------------------------------------- what is loaded


def test_safetensors(state, write):
    assert equal(zoo.squeezenet1_1(write(state), num_classes=6), state)
    assert equal(zoo.squeezenet1_1(str(write(state)), num_classes=6), state)


def test_half_precision_is_widened(state, write):
    model = zoo.squeezenet1_1(write({k: v.astype(np.float16) for k, v in state.items()}), num_classes=6)
    weight = model.state_dict()["features.0.weight"]
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, state["features.0.weight"], rtol=1e-3, atol=1e-6)


def test_bfloat16_is_widened(state, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch writes bfloat16; install nnlite[oracle]")
    from safetensors.torch import save_file as torch_save

    path = tmp_path / "b.safetensors"
    torch_save({k: torch.tensor(v).bfloat16() for k, v in state.items()}, path)
    model = zoo.squeezenet1_1(path, num_classes=6)
    expected = torch.tensor(state["features.0.weight"]).bfloat16().float().numpy()
    assert np.array_equal(model.state_dict()["features.0.weight"], expected)


def test_pytorchs_batch_counters_are_ignored(write):
    original = zoo.mobilenet_v2(num_classes=3)
    counted = original.state_dict() | {"features.0.1.num_batches_tracked": np.array(7)}
    assert equal(zoo.mobilenet_v2(write(counted), num_classes=3), original.state_dict())


def test_a_saved_module_is_a_weights_file(tmp_path):
    model = zoo.lenet()
    nl.save(tmp_path / "lenet.safetensors", model)
    assert equal(zoo.lenet(tmp_path / "lenet.safetensors"), model.state_dict())


def test_bundled_onnx_file(mobilenet_path, run_ort, normal):
    x = normal(1, 3, 96, 96)
    found = predict(zoo.mobilenet_v2(mobilenet_path), x)
    (expected,) = run_ort(mobilenet_path, [x])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with nl.no_grad():
        np.testing.assert_allclose(
            found, nl.onnx.load(mobilenet_path)(nl.tensor(x)).numpy(), rtol=1e-4, atol=1e-4
        )


def test_what_was_exported_can_be_loaded(tmp_path, normal):
    model, x = zoo.mobilenet_v2(num_classes=3), normal(1, 3, 32, 32)
    nl.onnx.save(model, tmp_path / "m.onnx", inputs=[x])
    assert equal(zoo.mobilenet_v2(tmp_path / "m.onnx", num_classes=3), model.state_dict())


# --------------------------------------------------------------------------------------- other heads


def test_a_head_for_other_classes_keeps_its_initial_values_and_is_reported(state, write):
    nl.manual_seed(1)
    with pytest.warns(UserWarning, match=r"classifier\.1 has 6 classes there and 4 here") as caught:
        model = zoo.squeezenet1_1(write(state), num_classes=4)
    assert caught[0].filename == __file__
    loaded = model.state_dict()
    nl.manual_seed(1)
    fresh = zoo.squeezenet1_1(num_classes=4).state_dict()
    for name, value in loaded.items():
        assert np.array_equal(value, (fresh if "classifier" in name else state)[name])


def test_a_head_of_another_width_is_an_error(state, write):
    wrong = state | {"classifier.1.weight": np.zeros((4, 100, 1, 1), np.float32)}
    with pytest.raises(
        ModelError, match=r"1 wrong shape: classifier\.1\.weight is \[4, 100, 1, 1\] in the file"
    ):
        zoo.squeezenet1_1(write(wrong), num_classes=6)


def test_auxiliary_heads_in_the_file_are_ignored_on_request(write):
    original = zoo.googlenet(num_classes=3).state_dict()
    path = write(original)
    model = zoo.googlenet(path, num_classes=3, aux_logits=False, transform_input=False)
    assert equal(model, original)
    assert not any(name.startswith("aux") for name in model.state_dict())
    with pytest.warns(UserWarning, match=r"(fc|aux1\.fc2|aux2\.fc2) has 3 classes") as caught:
        zoo.googlenet(path, num_classes=5, transform_input=False)
    assert len(caught) == 3


def test_auxiliary_heads_that_the_file_lacks_are_missing(write):
    path = write(zoo.googlenet(num_classes=3, aux_logits=False).state_dict())
    with pytest.raises(ModelError, match=r"missing: aux1\.conv\.conv\.weight"):
        zoo.googlenet(path, num_classes=3, transform_input=False)


@pytest.mark.parametrize("make", [zoo.googlenet, zoo.inception_v3])
def test_the_input_transformation_must_be_said_with_weights(make):
    assert make(num_classes=2).transform_input is False
    with pytest.raises(ConfigError, match=r"transform_input=True for torchvision"):
        make("whatever.safetensors")


# -------------------------------------------------------------------------------------- other names


def timm_blocks(name: str) -> str | None:
    """timm's name of a MobileNetV2 or EfficientNet parameter, from torchvision's: the inverse of the zoo."""
    depths = (1, 2, 3, 4, 3, 3, 1)
    last = "18" if "conv." in name or name.startswith("features.18") else "8"
    for theirs, ours in (
        ("conv_stem", "features.0.0"), ("bn1", "features.0.1"), ("conv_head", f"features.{last}.0"),
        ("bn2", f"features.{last}.1"), ("classifier", "classifier.1"),
    ):  # fmt: skip
        if re.fullmatch(rf"{re.escape(ours)}\.\w+", name):
            return name.replace(ours, theirs)
    if match := re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)\.(\w+)", name):
        number, part, kind = int(match[1]) - 1, match[2], match[3]
        stage = next(s for s in range(7) if number < sum(depths[: s + 1]))
        index = number - sum(depths[:stage])
        order = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        if stage == 0:
            order = ["conv_dw", "bn1", "conv_pw", "bn2"]
        places = ["0.0", "0.1", "1", "2"] if stage == 0 else ["0.0", "0.1", "1.0", "1.1", "2", "3"]
        return f"blocks.{stage}.{index}.{order[places.index(part)]}.{kind}"
    match = re.fullmatch(r"features\.(\d+)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)", name)
    assert match, name
    stage, index, step, part, kind = int(match[1]) - 1, match[2], int(match[3]), match[4], match[5]
    if stage == 0:
        step += 1  # as if there were an expansion
    if step == 2:
        return f"blocks.{stage}.{index}.se.{'conv_reduce' if part == 'fc1' else 'conv_expand'}.{kind}"
    convolution = {0: "conv_pw", 1: "conv_dw", 3: "conv_pw" if stage == 0 else "conv_pwl"}[step]
    norm = {0: 1, 1: 2, 3: 3}[step] - (stage == 0)
    return f"blocks.{stage}.{index}.{convolution if part == '0' else f'bn{norm}'}.{kind}"


@pytest.mark.parametrize("make", [zoo.mobilenet_v2, zoo.efficientnet_b0])
def test_timms_names(make, write):
    original = make(num_classes=3).state_dict()
    renamed = {timm_blocks(name): value for name, value in original.items()}
    assert len(renamed) == len(original)
    assert {"conv_stem.weight", "blocks.0.0.conv_pw.weight", "blocks.6.0.bn3.running_var"} <= set(renamed)
    assert equal(make(write(renamed), num_classes=3), original)


def timm_mobilenet_v3_names(depths: tuple[int, ...], squeezing: set[int]):
    """timm's names in the order of its file, that of the network; the stages of ``squeezing`` have an se."""
    norm = ["weight", "bias", "running_mean", "running_var"]
    yield "conv_stem.weight"
    yield from (f"bn1.{kind}" for kind in norm)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block, parts = f"blocks.{stage}.{index}", ["conv_pw", "conv_dw", "conv_pwl"]
            for number, part in enumerate(parts if stage else ["conv_dw", "conv_pw"], 1):
                yield f"{block}.{part}.weight"
                yield from (f"{block}.bn{number}.{kind}" for kind in norm)
                if part == "conv_dw" and stage in squeezing:
                    for layer in ("conv_reduce", "conv_expand"):
                        yield from (f"{block}.se.{layer}.{kind}" for kind in ("weight", "bias"))
    yield f"blocks.{len(depths)}.0.conv.weight"
    yield from (f"blocks.{len(depths)}.0.bn1.{kind}" for kind in norm)
    for layer in ("conv_head", "classifier"):
        yield from (f"{layer}.{kind}" for kind in ("weight", "bias"))


@pytest.mark.parametrize(
    ("make", "depths", "squeezing"),
    [
        (zoo.mobilenet_v3_large, (1, 2, 3, 4, 2, 3), {2, 4, 5}),
        (zoo.mobilenet_v3_small, (1, 2, 3, 2, 3), {0, 2, 3, 4}),
    ],
)
def test_timms_mobilenet_v3(make, depths, squeezing, write):
    state = make(num_classes=3).state_dict()
    names = list(timm_mobilenet_v3_names(depths, squeezing))
    renamed = dict(zip(names, state.values(), strict=True))
    renamed["conv_head.weight"] = renamed["conv_head.weight"][:, :, None, None]  # there it is a convolution
    found = make(write(renamed), num_classes=3)
    assert equal(found, state)
    epsilons = {m.eps for m in found.modules() if isinstance(m, nl.nn.BatchNorm2d)}
    assert epsilons == {1e-5}
    found = make(write(state), num_classes=3)
    epsilons = {m.eps for m in found.modules() if isinstance(m, nl.nn.BatchNorm2d)}
    assert epsilons == {1e-3}
    with pytest.warns(UserWarning, match="classifier.3 has 3 classes there and 7 here"):
        make(write(renamed), num_classes=7)


def test_timms_vgg_with_convolutions_for_layers(write):
    original = zoo.VGG(vgg.VGG11, False, 3, hidden=8)
    state = original.state_dict()
    renamed = {name: value for name, value in state.items() if name.startswith("features")}
    for theirs, ours in (("pre_logits.fc1", "classifier.0"), ("pre_logits.fc2", "classifier.3")):
        renamed[f"{theirs}.weight"] = state[f"{ours}.weight"].reshape(
            8, -1, *((7, 7) if "1" in theirs else (1, 1))
        )
        renamed[f"{theirs}.bias"] = state[f"{ours}.bias"]
    renamed |= {f"head.fc.{kind}": state[f"classifier.6.{kind}"] for kind in ("weight", "bias")}
    model = zoo.VGG(vgg.VGG11, False, 3, hidden=8)
    zoo.load_weights(model, write(renamed), rename=vgg.from_timm)
    assert equal(model, state)


def test_densenets_published_names():
    current = densenet.current_name("features.denseblock1.denselayer12.norm.1.running_mean")
    assert current == "features.denseblock1.denselayer12.norm1.running_mean"
    for name in zoo.densenet121(num_classes=2).state_dict():
        assert densenet.current_name(name) == name
        published = re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name)
        assert densenet.current_name(published) == name


def test_names_that_nobody_knows_stay_as_they_are():
    assert efficientnet.from_timm("blocks.1.0.attention.weight") == "features.2.0.block.attention.weight"
    assert efficientnet.from_timm("tail.weight") == "tail.weight"
    for name in ("tail.weight", "blocks.7.0.conv.weight", "blocks.5.9.conv_dw.weight"):
        assert mobilenet_v3.from_timm(name, mobilenet_v3.LARGE) == name
    assert zoo.mobilenet_v2.__module__ == "nnlite.zoo.mobilenet_v2"


def test_two_arrays_for_one_place_are_refused(write):
    doubled = zoo.mobilenet_v2(num_classes=3).state_dict()
    doubled["conv_stem.weight"] = doubled["features.0.0.weight"]
    with pytest.raises(ModelError, match=r"another array both are features\.0\.0\.weight"):
        zoo.mobilenet_v2(write(doubled), num_classes=3)


# ------------------------------------------------------------------------------------ what is refused


def test_everything_that_does_not_fit_is_listed_and_nothing_changes(state, write):
    wrong = {name: value for name, value in state.items() if "features.0" not in name}
    wrong |= {"extra.bias": np.zeros(2, np.float32), "features.3.squeeze.bias": np.zeros(3, np.float32)}
    model = zoo.squeezenet1_1(num_classes=6)
    before = model.state_dict()
    with pytest.raises(ModelError) as caught:
        zoo.load_weights(model, write(wrong))
    message = str(caught.value)
    assert "weights.safetensors: does not fit SqueezeNet" in message
    assert "2 missing: features.0.weight, features.0.bias" in message
    assert "1 unexpected: extra.bias" in message
    assert "1 wrong shape: features.3.squeeze.bias is [3] in the file but [16] in the model" in message
    assert equal(model, before)


def test_a_file_of_another_network_gives_a_short_message(state, write):
    with pytest.raises(ModelError, match=r"102 missing: conv1\.weight.* and 94 more") as caught:
        zoo.resnet18(write(state))
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("none.safetensors", None, "no such file"),
        ("none.onnx", None, "no such file"),
        ("w.pth", b"x", r"come as \.safetensors or \.onnx; docs/zoo\.md"),
        ("w.safetensors", b"", "not a safetensors file"),
        ("w.safetensors", b"\x80\x02}q\x00." * 20, "not a safetensors file"),
        ("w.onnx", b"no model", "not an ONNX"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=match):
        zoo.lenet(tmp_path / name)


def test_constants_in_an_onnx_file_are_no_weights(onnx_model, tmp_path):
    import onnx

    state = zoo.lenet().state_dict()
    numbers = {"two": np.float32(2), "shape": np.array([1, 2])}
    proto = onnx_model([("Identity", ["x"], ["y"])], {"x": [1]}, ["y"], state | numbers)
    onnx.save(proto, tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal(zoo.lenet(tmp_path / "m.onnx"), state)
