"""Heads found and replaced, stages and cuts, freezing, preprocessing that travels, run folders."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nnlite as nl
from nnlite import onnx as nx
from nnlite.data import Preprocessing
from nnlite.errors import ConfigError, ModelError
from nnlite.nn import Parameter
from nnlite.transfer import choose_cut, find_head, freeze_below, replace_head, stage_cuts, types_for
from nnlite.transfer.metadata import choose_preprocessing, classes_of, to_metadata
from nnlite.transfer.run_folder import RunFolder, check_writable

STEM = [("Conv", ["x", "w0"], ["c"], dict(pads=[1, 1, 1, 1])), ("Relu", ["c"], ["r"])]
POOLED = [*STEM, ("GlobalAveragePool", ["r"], ["p"]), ("Flatten", ["p"], ["f"])]
RNG = np.random.default_rng(0)


def n(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


W0 = {"w0": n(4, 3, 3, 3)}
HEADS = {
    # nodes behind the stem, arrays, name of weight and bias, opset
    "gemm [out,in]": ([("Gemm", ["f", "w", "b"], ["y"], dict(transB=1))], {"w": n(7, 4), "b": n(7)}, "b", 17),
    "gemm [in,out]": ([("Gemm", ["f", "w", "b"], ["y"])], {"w": n(4, 7), "b": n(7)}, "b", 17),
    "gemm without bias": ([("Gemm", ["f", "w"], ["y"], dict(transB=1))], {"w": n(7, 4)}, None, 17),
    "gemm, bias [1,out]": ([("Gemm", ["f", "w", "b"], ["y"])], {"w": n(4, 7), "b": n(1, 7)}, "b", 17),
    "matmul": ([("MatMul", ["f", "w"], ["y"])], {"w": n(4, 7)}, None, 17),
    "matmul and add": (
        [("MatMul", ["f", "w"], ["m"]), ("Add", ["m", "b"], ["y"])], {"w": n(4, 7), "b": n(7)}, "b", 17,
    ),
    "add and matmul": (
        [("MatMul", ["f", "w"], ["m"]), ("Add", ["b", "m"], ["y"])], {"w": n(4, 7), "b": n(1, 7)}, "b", 17,
    ),
    "matmul, transposed": (
        [("Transpose", ["w"], ["t"], dict(perm=[1, 0])), ("MatMul", ["f", "t"], ["y"])],
        {"w": n(7, 4)}, None, 17,
    ),
    "softmax": (
        [("Gemm", ["f", "w", "b"], ["g"], dict(transB=1)), ("Softmax", ["g"], ["y"])],
        {"w": n(7, 4), "b": n(7)}, "b", 17,
    ),
    "old softmax": (
        [("Gemm", ["f", "w", "b"], ["g"], dict(transB=1)), ("Softmax", ["g"], ["y"])],
        {"w": n(7, 4), "b": n(7)}, "b", 9,
    ),
    "dropout and identity": (
        [("Gemm", ["f", "w"], ["g"], dict(transB=1)), ("Dropout", ["g"], ["d"]), ("Identity", ["d"], ["y"])],
        {"w": n(7, 4)}, None, 17,
    ),
}  # fmt: skip
CONV_TAIL = [("GlobalAveragePool", ["k"], ["g"]), ("Flatten", ["g"], ["y"])]
CONV_HEADS = {
    "conv": ([("Conv", ["r", "w", "b"], ["k"]), *CONV_TAIL], {"w": n(7, 4, 1, 1), "b": n(7)}, "b"),
    "conv and relu": (
        [("Conv", ["r", "w", "b"], ["k0"]), ("Relu", ["k0"], ["k"]), *CONV_TAIL],
        {"w": n(7, 4, 1, 1), "b": n(7)}, "b",
    ),
    "conv and add": (
        [("Conv", ["r", "w"], ["k0"]), ("Add", ["k0", "b"], ["k"]), *CONV_TAIL],
        {"w": n(7, 4, 1, 1), "b": n(1, 7, 1, 1)}, "b",
    ),
    "conv and softmax": (
        [("Conv", ["r", "w", "b"], ["k"]), ("GlobalAveragePool", ["k"], ["g"]), ("Flatten", ["g"], ["h"]),
         ("Softmax", ["h"], ["y"])], {"w": n(7, 4, 1, 1), "b": n(7)}, "b",
    ),
}  # fmt: skip
ALL = [
    pytest.param([*POOLED, *nodes], arrays, bias, opset, id=name)
    for name, (nodes, arrays, bias, opset) in HEADS.items()
]
ALL += [
    pytest.param([*STEM, *nodes], arrays, bias, 17, id=name)
    for name, (nodes, arrays, bias) in CONV_HEADS.items()
]


@pytest.mark.parametrize(("nodes", "arrays", "bias", "opset"), ALL)
def test_heads_are_found_replaced_trained_and_written(onnx_model, run_ort, nodes, arrays, bias, opset):
    original = nx.load(
        onnx_model(nodes, {"x": ["N", 3, None, None]}, {"y": ["N", 7]}, {**W0, **arrays}, opset=opset)
    )
    head = find_head(original)
    assert (head.weight.name, head.bias and head.bias.name) == ("w", bias)
    before = original.state_dict()
    module, head = replace_head(original, 5)
    x = n(3, 3, 6, 8)
    logits = module.run([x])[0]
    assert logits.shape == (3, 5)
    assert not np.allclose(logits.sum(1), 1), "logits, not probabilities"
    assert len(original.run([x])[0][0]) == 7, "the original is as it was"
    for name, array in original.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert module.leaf(
        head.features and next(v for v in module.graph.arrays if v.name == "w0")
    ) is original.leaf(next(v for v in original.graph.arrays if v.name == "w0"))
    nl.functional.cross_entropy(module(nl.tensor(x)), np.array([0, 1, 4])).backward()
    assert all(
        p.grad is not None for p in (module.leaf(head.weight), head.bias and module.leaf(head.bias)) if p
    )
    model = nx.to_model(module)
    np.testing.assert_allclose(run_ort(model, {"x": x})[0], logits, atol=1e-5)
    assert [nx.declared_sizes(entry) for entry in model.graph.output] == [(None, 5)]


def test_new_weights_are_drawn_from_the_seed_within_pytorchs_bound(mobilenet_path):
    drawn = []
    for seed in (1, 1, 2):
        nl.manual_seed(seed)
        module, head = replace_head(nx.load(mobilenet_path), 9)
        drawn.append(module.leaf(head.weight).numpy())
        assert (module.leaf(head.bias).numpy() == 0).all()
    assert drawn[0].shape == (9, 1280)
    assert 0.9 < np.abs(drawn[0]).max() * np.sqrt(1280) <= 1
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


TWO_LAYERS = [
    *POOLED,
    ("Gemm", ["f", "first", "fb"], ["h"], dict(transB=1)), ("Relu", ["h"], ["hr"]),
    ("Gemm", ["hr", "second"], ["s"], dict(transB=1)), ("Tanh", ["s"], ["y"]),
]  # fmt: skip
TWO_ARRAYS = {**W0, "first": n(6, 4), "fb": n(6), "second": n(7, 6)}


@pytest.mark.parametrize("name", ["first", "h", "gemm4"])
def test_a_head_is_named_by_its_node_its_result_or_its_weight(onnx_model, name):
    module = nx.load(onnx_model(TWO_LAYERS, {"x": ["N", 3, 6, 6]}, ["y"], TWO_ARRAYS))
    new, head = replace_head(module, 3, name)
    assert head.weight.name == "first"
    assert new.outputs == ("h",)
    assert new.run([n(2, 3, 6, 6)])[0].shape == (2, 3)


def test_where_no_head_is_found_the_message_says_how_to_name_one(onnx_model):
    module = nx.load(onnx_model(TWO_LAYERS, {"x": ["N", 3, 6, 6]}, ["y"], TWO_ARRAYS))
    with pytest.raises(
        ModelError, match=r"no head was found before the output 'y'; .*--head: w0, first, second"
    ):
        find_head(module)
    with pytest.raises(
        ModelError, match="no layer is called 'nowhere'; name one with --head: w0, first, second"
    ):
        find_head(module, "nowhere")
    several = nx.load(onnx_model(TWO_LAYERS, {"x": ["N", 3, 6, 6]}, ["y", "h"], TWO_ARRAYS))
    with pytest.raises(ModelError, match=r"2 outputs \(y, h\), so it is no plain classifier; .*--head"):
        find_head(several)
    none = nx.load(onnx_model([("Relu", ["x"], ["y"])], {"x": [1, 3, 4, 4]}, ["y"]))
    with pytest.raises(ModelError, match="the model has no layer with weights"):
        find_head(none)


# ------------------------------------------------------------------------------- stages, freezing


@pytest.fixture
def mobilenet(mobilenet_path):
    module = nx.load(mobilenet_path)
    return module, find_head(module), types_for(module, (224, 224))


# The paper's table: the input, then the last block before each reduction of the resolution.
STAGES = [
    ("input", 3, 224),
    ("features.1/", 16, 112),
    ("features.3/", 24, 56),
    ("features.6/", 32, 28),
    ("features.13/", 96, 14),
]


def test_stages_of_mobilenet(mobilenet):
    module, head, types = mobilenet
    cuts = stage_cuts(module, types, head)
    assert [types[cut].shape for cut in cuts] == [(1, c, side, side) for _, c, side in STAGES]
    assert all(part in cut.name for cut, (part, _, _) in zip(cuts, STAGES, strict=True))


@pytest.mark.parametrize(("unfreeze", "stage"), [("1", 4), ("2", 3), ("5", 0)])
def test_the_last_stages_are_unfrozen(mobilenet, unfreeze, stage):
    module, head, types = mobilenet
    assert choose_cut(module, types, head, unfreeze) is stage_cuts(module, types, head)[stage]


def test_nothing_and_everything(mobilenet):
    module, head, types = mobilenet
    assert choose_cut(module, types, head, "none") is head.features
    assert choose_cut(module, types, head, "all") is module.graph.inputs[0]


@pytest.mark.parametrize("unfreeze", ["0", "6", "99", "-1", "some", ""])
def test_stages_that_are_not_there(mobilenet, unfreeze):
    module, head, types = mobilenet
    with pytest.raises(ConfigError, match="none, all or the number of last stages, 1 to 5"):
        choose_cut(module, types, head, unfreeze)


def test_freezing_below_a_cut(mobilenet):
    module, head, types = mobilenet
    norms = {v for node in module.graph.nodes if node.op.name == "batch_norm" for v in node.inputs[1:]}
    for stage, cut in enumerate(stage_cuts(module, types, head)):
        trained, total = freeze_below(module, cut)
        free = {v for v in module.graph.arrays if module.leaf(v).requires_grad}
        assert total == sum(p.size for p in module.parameters()) == 3_504_872
        assert trained == sum(module.leaf(v).size for v in free)
        assert not free & norms, "batch normalisation stays as it is"
        below = set(module.graph.between(module.graph.inputs, [cut]).arrays) if cut.node else set()
        parameters = {v for v in module.graph.arrays if isinstance(module.leaf(v), Parameter)}
        assert free == parameters - below - norms
        assert head.weight in free
        assert bool(below) == (stage > 0)
    assert freeze_below(module, head.features)[0] == 1280 * 1000 + 1000


# --------------------------------------------------------------------------------- preprocessing


def picture_model(onnx_model, sizes, metadata=None):
    nodes = [*POOLED, ("Gemm", ["f", "w"], ["y"], dict(transB=1))]
    return nx.load(onnx_model(nodes, {"x": sizes}, {"y": [None, 7]}, {**W0, "w": n(7, 4)}, metadata=metadata))


OPEN = ["N", 3, None, None]


@pytest.mark.parametrize(
    ("path", "sizes", "options", "expected", "reason"),
    [
        ("m.onnx", OPEN, {}, ("imagenet", (224, 224)), "imagenet, the usual one"),
        ("m.onnx", OPEN, dict(typical=500), ("imagenet", (224, 224)), "usual"),
        ("m.onnx", OPEN, dict(typical=100), ("imagenet", (128, 128)), "usual"),
        ("m.onnx", OPEN, dict(typical=20), ("imagenet", (64, 64)), "usual"),
        ("m.onnx", OPEN, dict(typical=100, size=48), ("imagenet", (48, 48)), "usual"),
        ("m.onnx", ["N", 3, 96, 96], dict(typical=500), ("imagenet", (96, 96)), "usual"),
        ("m.onnx", ["N", 3, 48, 192], {}, ("imagenet", (48, 192)), "usual"),
        ("m.onnx", OPEN, dict(name="half"), ("half", (224, 224)), "half, as told"),
        ("EfficientNet_Lite0.onnx", OPEN, {}, ("lite", (224, 224)), "lite, by the file's name"),
        ("efficientnet-lite4.onnx", OPEN, dict(name="unit"), ("unit", (224, 224)), "as told"),
    ],
)  # fmt: skip
def test_preprocessing_is_chosen(onnx_model, path, sizes, options, expected, reason):
    chosen = choose_preprocessing(picture_model(onnx_model, sizes), path, **options)
    assert chosen.preprocessing == Preprocessing.named(*expected, crop=1.0)
    assert reason in chosen.reason


KNOWN = Preprocessing((64, 80), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 0.5, "BGR", 0.875, "bicubic")


def test_preprocessing_and_classes_travel_with_the_model(onnx_model):
    module = picture_model(onnx_model, OPEN, to_metadata(KNOWN, ["ä", "b c"]))
    again = nx.load(nx.to_model(module).SerializeToString())
    chosen = choose_preprocessing(again, "efficientnet_lite.onnx", typical=500)
    assert (chosen.preprocessing, chosen.reason) == (KNOWN, "from the model's metadata")
    assert classes_of(again) == ["ä", "b c"]
    resized = choose_preprocessing(again, "m.onnx", size=32).preprocessing
    assert resized == Preprocessing.from_dict(KNOWN.to_dict() | {"size": [32, 32]})
    assert choose_preprocessing(again, "m.onnx", name="unit").preprocessing.scale == 1 / 255


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{" * 10_000, '{"size": "large"}'])
def test_metadata_that_are_no_preprocessing(onnx_model, text):
    module = picture_model(onnx_model, OPEN, {"nnlite.preprocessing": text})
    with pytest.raises(ModelError, match=r"m\.onnx: metadata nnlite\.preprocessing"):
        choose_preprocessing(module, "m.onnx")


@pytest.mark.parametrize("text", ["", "1", '{"a": 1}', "[1, 2]", "[" * 100_000, json.dumps(["a"] * 100_001)])
def test_metadata_that_are_no_classes(onnx_model, text):
    with pytest.raises(ModelError, match=r"nnlite\.classes"):
        classes_of(picture_model(onnx_model, OPEN, {"nnlite.classes": text}))


@pytest.mark.parametrize("size", [0, -5, 15, 5000])
@pytest.mark.parametrize("sizes", [OPEN, ["N", 3, 96, 96]])
def test_sizes_out_of_range(onnx_model, size, sizes):
    with pytest.raises(ConfigError, match=f"size={size} must be 16 to 4096"):
        choose_preprocessing(picture_model(onnx_model, sizes), "m.onnx", size=size)


def test_models_that_take_no_pictures(onnx_model):
    for sizes in ([4, 3], [1, 2, 28, 28], None):
        module = nx.load(onnx_model([("Relu", ["x"], ["y"])], {"x": sizes}, ["y"]))
        with pytest.raises(ModelError, match=r"one input \[N,C,H,W\] of pictures is needed, with 1, 3 or 4"):
            choose_preprocessing(module, "m.onnx")


# ------------------------------------------------------------------------------------ run folder


def test_a_run_folder_is_new_or_empty(tmp_path):
    out = tmp_path / "tuned.onnx"
    first, second = RunFolder.create(None, out), RunFolder.create(None, out)
    assert first.path.parent == second.path.parent == tmp_path / "runs"
    assert first.path != second.path
    assert first.path.name.startswith("tuned-")
    named = RunFolder.create(str(tmp_path / "a" / "b"), out)
    RunFolder.create(str(tmp_path / "a" / "b"), out)
    named.write_json("config.json", {})
    with pytest.raises(ConfigError, match="holds a run already; choose another --run-dir"):
        RunFolder.create(str(tmp_path / "a" / "b"), out)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        RunFolder.create(str(tmp_path / "file"), out)


def test_files_of_a_run(tmp_path):
    run = RunFolder.create(str(tmp_path / "run"), tmp_path / "tuned.onnx")
    run.write_json("metrics.json", {"accuracy": 0.5})
    run.append_history({"epoch": 0})
    run.append_history({"epoch": 1})
    (tmp_path / "model").write_bytes(b"abc")
    run.copy(tmp_path / "model", "tuned.onnx")
    run.copy(run.path / "tuned.onnx", "tuned.onnx")
    assert json.loads((run.path / "metrics.json").read_text()) == {"accuracy": 0.5}
    assert [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()] == [
        {"epoch": 0},
        {"epoch": 1},
    ]
    assert (run.path / "tuned.onnx").read_bytes() == b"abc"


def test_where_a_result_can_be_written(tmp_path):
    check_writable(tmp_path / "tuned.onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="is a folder; give the name of a file"):
        check_writable(tmp_path)
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        check_writable(tmp_path / "a" / "tuned.onnx")
