"""Files that are no models, hide something or were damaged: one ModelError, never anything else."""

from __future__ import annotations

import os
import pickle
import random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nnlite import onnx as nx
from nnlite.errors import ModelError, NnliteError
from nnlite.onnx.inspect import inspect

# --------------------------------------------------------------------------------- no model at all


def _truncated(mobilenet_path):
    return mobilenet_path.read_bytes()[:100_000]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not an ONNX file: it holds no graph .0 bytes"),
        (b"this is no model\n" * 20, "not an ONNX file"),
        (pickle.dumps({"weights": [1.0] * 100}), "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
        (_truncated, "not an ONNX file, or a truncated one .100000 bytes"),
        (helper.make_model(helper.make_graph([], "empty", [], [])).SerializeToString(), "no graph|no nodes"),
    ],
    ids=["empty", "text", "pickle", "png", "truncated", "no nodes"],
)
def test_files_that_are_no_models(tmp_path, mobilenet_path, content, match):
    path = tmp_path / "model.onnx"
    path.write_bytes(content(mobilenet_path) if callable(content) else content)
    for function in (nx.load, inspect):
        with pytest.raises(ModelError, match=match) as error:
            function(path)
        assert str(path) in str(error.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such file"):
        nx.load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="not a file"):
        nx.load(tmp_path)
    with pytest.raises(ModelError, match="the model: not an ONNX file"):
        nx.load(b"abc")


# ---------------------------------------------------------------------------------- external data

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def external(tmp_path, onnx_model):
    """``external(**entries)``: a model whose weight lies in another file, described by ``entries``."""

    def make(folder=tmp_path, dims=(3, 2), kind=TensorProto.FLOAT, **entries):
        tensor = TensorProto(name="w", dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        nodes = [("MatMul", ["x", "w"], ["y"])]
        model = onnx_model(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, {"w": tensor})
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    (tmp_path / "w.bin").write_bytes(bytes(8) + WEIGHT.tobytes())
    return make


def test_external_data_beside_the_model_are_read(external, run_ort):
    path = external(location="w.bin", offset=8, length=24)
    x = np.array([[1.0, -2.0, 0.5]], np.float32)
    np.testing.assert_array_equal(nx.load(path).run([x])[0], x @ WEIGHT)
    np.testing.assert_allclose(run_ort(path, [x])[0], x @ WEIGHT, rtol=1e-6)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (dict(location="../w.bin"), "not a path inside"),
        (dict(location="sub/../../w.bin"), "not a path inside"),
        (dict(location="/etc/hostname"), "not a path inside"),
        (dict(location="C:\\w.bin"), "not a path inside"),
        (dict(), "not a path inside"),
        (dict(location="nowhere.bin"), "cannot be read"),
        (dict(location="."), "not a plain file"),
        (dict(location="w.bin", length=20), "needs 24 bytes"),
        (dict(location="w.bin", length=32), "needs 24 bytes"),
        (dict(location="w.bin", offset=-8), "needs 24 bytes"),
        (dict(location="w.bin", offset=9), "ends at byte 33, but .* has 32"),
        (dict(location="w.bin", offset="x"), "no number"),
        (dict(location="w.bin", dims=(1 << 40, 2)), "beyond the budget"),
        (dict(location="w.bin", dims=(-3, 2)), "beyond the budget"),
        (dict(location="w.bin", dims=(0, 1 << 60)), "beyond the budget"),
        (dict(location="w.bin", kind=TensorProto.STRING), "only real numbers"),
        (dict(location="w.bin", kind=TensorProto.COMPLEX64), "only real numbers"),
        (dict(location="w.bin", kind=99), "unknown element type 99"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_external_data_that_are_not_followed(external, entries, match):
    with pytest.raises(ModelError, match=match) as error:
        nx.load(external(**entries))
    assert "w" in str(error.value)


def test_links_are_not_followed(external, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "soft.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    os.link(secret, folder / "hard.bin")
    for location, match in (
        ("soft.bin", "link"),
        ("up/secret.bin", "link"),
        ("hard.bin", "plain file of its own"),
    ):
        with pytest.raises(ModelError, match=match):
            nx.load(external(folder, location=location))


def test_a_pipe_is_refused_at_once(external, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a plain file"):
        nx.load(external(location="pipe"))


def test_external_data_need_a_path(external):
    path = external(location="w.bin", offset=8)
    with pytest.raises(ModelError, match=r"lies in another file, 'w\.bin'; load the model from its path"):
        nx.load(path.read_bytes())


# -------------------------------------------------------------------------------- tensors that lie


@pytest.mark.parametrize("dims", [(1 << 40,), (1 << 31, 1 << 31, 1 << 31), (-1,), (0, 1 << 62), (1,) * 40])
def test_sizes_are_checked_before_memory_is_asked_for(onnx_model, dims):
    tensor = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT)
    with pytest.raises(ModelError, match=r"tensor w of shape .* beyond the budget of \d+ bytes"):
        nx.load(onnx_model([("Add", ["x", "w"], ["y"])], {"x": [1]}, ["y"], {"w": tensor}))


@pytest.mark.parametrize(
    ("operator", "sizes"),
    [("ConstantOfShape", [1 << 33, 1 << 31]), ("Expand", [1 << 30, 1 << 4])],  # 2^64 is 0 in 64 bits
)
def test_computed_constants_are_checked_too(onnx_model, operator, sizes):
    arrays = {"one": np.array([1]), "sizes": np.array(sizes)}
    inputs = ["sizes"] if operator == "ConstantOfShape" else ["one", "sizes"]
    nodes = [(operator, inputs, ["big"]), ("Cast", ["big"], ["c"], {"to": 1}), ("Add", ["x", "c"], ["y"])]
    with pytest.raises(ModelError, match=f"{operator} .*beyond the budget"):
        nx.load(onnx_model(nodes, {"x": [1]}, ["y"], arrays))


def test_the_budget_is_an_environment_variable(onnx_model, monkeypatch):
    model = onnx_model([("Add", ["x", "w"], ["y"])], {"x": [4]}, ["y"], {"w": np.ones(4, np.float32)})
    nx.load(model)
    monkeypatch.setenv("NNLITE_MAX_TENSOR_BYTES", "15")
    with pytest.raises(ModelError, match="budget of 15 bytes; raise NNLITE_MAX_TENSOR_BYTES"):
        nx.load(model)


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", dims=[3], data_type=1, raw_data=bytes(8)),
        TensorProto(name="w", dims=[3], data_type=1, raw_data=bytes(16)),
        TensorProto(name="w", dims=[3], data_type=1, float_data=[1.0, 2.0]),
        TensorProto(name="w", dims=[3], data_type=1),
        TensorProto(name="w", dims=[1], data_type=0, raw_data=bytes(4)),
        TensorProto(name="w", dims=[1], data_type=77, raw_data=bytes(4)),
        TensorProto(name="w", dims=[1], data_type=TensorProto.STRING, string_data=[b"a"]),
        TensorProto(name="w", dims=[1], data_type=TensorProto.COMPLEX64, raw_data=bytes(8)),
        TensorProto(name="w", dims=[3], data_type=TensorProto.INT4, raw_data=bytes(1)),
        TensorProto(name="w", dims=[3], data_type=TensorProto.FLOAT8E4M3FN, raw_data=bytes(2)),
    ],
    ids=["short", "long", "few", "none", "undefined", "unknown", "string", "complex", "int4", "float8"],
)
def test_tensors_that_do_not_hold_what_they_declare(onnx_model, tensor):
    with pytest.raises(ModelError, match="tensor w"):
        nx.load(onnx_model([("Add", ["x", "w"], ["y"])], {"x": [1]}, ["y"], {"w": tensor}))


# ----------------------------------------------------------------------------------------- fuzzing


def _subject(onnx_model):
    """A small model with most kinds of nodes, attributes and constants."""
    number = np.random.default_rng(0).standard_normal
    nodes = [
        (
            "Conv",
            ["x", "w", "b"],
            ["c"],
            dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        ),
        ("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], dict(epsilon=1e-5, momentum=0.9)),
        ("Clip", ["n", "low", "high"], ["r"]),
        ("MaxPool", ["r"], ["p"], dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0)),
        ("Pad", ["p", "pads"], ["pp"], dict(mode="constant")),
        ("AveragePool", ["pp"], ["a"], dict(kernel_shape=[2, 2], count_include_pad=1, auto_pad="VALID")),
        ("Shape", ["a"], ["shape"]),
        ("Constant", [], ["zero"], dict(value=numpy_helper.from_array(np.array(0)))),
        ("Gather", ["shape", "zero"], ["n0"], dict(axis=0)),
        ("Unsqueeze", ["n0", "axes"], ["n1"]),
        ("Constant", [], ["rest"], dict(value_ints=[-1])),
        ("Concat", ["n1", "rest"], ["to"], dict(axis=0)),
        ("Reshape", ["a", "to"], ["f"]),
        ("Slice", ["f", "starts", "ends", "one"], ["f2"]),
        ("Gemm", ["f2", "gw", "gb"], ["g"], dict(transB=1, alpha=2.0)),
        ("ReduceMean", ["g"], ["mean"], dict(axes=[1], keepdims=1)),
        ("Sub", ["g", "mean"], ["d"]),
        ("ConstantOfShape", ["five"], ["fives"], dict(value=numpy_helper.from_array(np.ones(1, np.float32)))),
        ("Mul", ["d", "fives"], ["e"]),
        ("Cast", ["e"], ["h"], dict(to=1)),
        ("Transpose", ["h"], ["t"], dict(perm=[0, 1])),
        ("Max", ["t", "e", "d"], ["u"]),
        ("Softmax", ["u"], ["y"], dict(axis=-1)),
    ]
    arrays = {name: number(shape).astype(np.float32) for name, shape in
              dict(w=(4, 3, 3, 3), b=4, s=4, m=4, gw=(5, 36), gb=5).items()}  # fmt: skip
    arrays |= {
        "v": np.ones(4, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "axes": np.array([0]),
    }
    arrays |= {"pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "one": np.array([1]), "starts": np.array([0])}
    arrays |= {"ends": np.array([36]), "five": np.array([5])}
    return onnx_model(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 5]}, arrays)


WORDS = [
    "",
    "x",
    "w",
    "y",
    "nowhere",
    "Conv",
    "Relu",
    "Gather",
    "ai.onnx.ml",
    "axis",
    "SAME_UPPER",
    "If",
    "\0",
]
NUMBERS = [0, 1, -1, 2, 3, 7, 100, 1 << 31, 1 << 40, -(1 << 62), 1 << 62]


def _scalar(field, rng):
    if field.type == field.TYPE_STRING:
        return rng.choice(WORDS)
    if field.type == field.TYPE_BYTES:
        return rng.choice([b"", b"abc", b"\xff\xfe", b"SAME_UPPER", bytes(16)])
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    if field.type == field.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    if field.type == field.TYPE_INT32:
        return rng.choice([0, 1, -1, 2, 7, 10, 16, 99, (1 << 31) - 1])
    return rng.choice([0, 1, 1 << 31] if field.type == field.TYPE_UINT64 else NUMBERS)


def _mutate(message, rng):
    """Change one field somewhere below ``message``: drop, repeat, swap or replace."""
    field = rng.choice(list(message.DESCRIPTOR.fields))
    here = getattr(message, field.name)
    if field.type == field.TYPE_MESSAGE and not field.is_repeated:
        message.ClearField(field.name) if rng.random() < 0.15 else _mutate(here, rng)
    elif field.type == field.TYPE_MESSAGE:
        at = rng.randrange(len(here)) if here else None
        chance = rng.random()
        if at is None or chance < 0.05:
            here.add()
        elif chance < 0.15:
            del here[at]
        elif chance < 0.2:
            here.add().CopyFrom(here[at])
        elif chance < 0.25:
            here[at].CopyFrom(here[rng.randrange(len(here))])
        else:
            _mutate(here[at], rng)
    elif not field.is_repeated:
        message.ClearField(field.name) if rng.random() < 0.2 else setattr(
            message, field.name, _scalar(field, rng)
        )
    elif not here or rng.random() < 0.3:
        here.append(_scalar(field, rng))
    else:
        here[rng.randrange(len(here))] = _scalar(field, rng)


def _damaged(model, seed):
    rng = random.Random(seed)
    data = bytearray(model.SerializeToString())
    if seed % 10 == 0:
        return bytes(data[: rng.randrange(len(data))])
    if seed % 3 == 0:
        for _ in range(rng.choice([1, 2, 8])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    part = (
        changed
        if rng.random() < 0.1
        else rng.choice([changed.graph, *changed.graph.node, *changed.graph.input])
    )
    for _ in range(rng.choice([1, 1, 2])):
        _mutate(part, rng)
    return changed.SerializeToString()


def test_the_subject_of_the_fuzzing_is_sound(onnx_model, run_ort, normal):
    model, x = _subject(onnx_model), normal(2, 3, 6, 6)
    np.testing.assert_allclose(nx.load(model).run([x])[0], run_ort(model, [x])[0], atol=1e-5)


@pytest.mark.parametrize("block", range(10))
def test_damaged_models_are_read_or_refused(onnx_model, tmp_path, block):
    model, outcomes = _subject(onnx_model), {"read": 0, "refused": 0}
    path = tmp_path / "damaged.onnx"
    for seed in range(block * 100, block * 100 + 100):
        data = _damaged(model, seed)
        path.write_bytes(data)
        for function in (nx.load, inspect):  # anything but an NnliteError fails the test, with its seed
            try:
                function(path)
                outcomes["read"] += 1
            except NnliteError:
                outcomes["refused"] += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {function.__name__}: {error!r}") from error
    assert min(outcomes.values()) > 20, "the damage is neither harmless nor fatal throughout"
