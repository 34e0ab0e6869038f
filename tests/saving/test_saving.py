"""save and load: every kind of state, the file format seen from outside, and damaged files."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import nnlite as nl
from nnlite import layout, nn
from nnlite.errors import FileError, ModelError, OperandError

safetensors = pytest.importorskip("safetensors.numpy", reason="pip install safetensors")


def network() -> nn.Module:
    nl.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))


def train(model, optimizer, schedule, steps: int) -> list[float]:
    rng = np.random.default_rng(0)
    x, labels = nl.tensor(rng.standard_normal((6, 3, 5, 5)).astype(np.float32)), np.array([0, 1, 0, 1, 1, 0])
    losses = []
    for _ in range(steps):
        loss = nl.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# -------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    "state",
    [
        None,
        3,
        -2.5,
        1e300,
        10**30,
        "text, ünïcode, \"quotes\"",
        True,
        [],
        {},
        (),
        (1, [2, (3,)], {"a": None}),
        {"epoch": 3, "losses": [0.5, 0.25], "name": "run", "best": None, "flags": {"ema": False}},
        {0: "integers", 1: "as keys", "0": "beside text"},
        {"__metadata__": 1, "array": {"array": 2}, "dict": [1], "float": "nan", "tuple": (1,)},
    ],
)  # fmt: skip
def test_plain_values(tmp_path, state):
    nl.save(tmp_path / "s.safetensors", state)
    loaded = nl.load(tmp_path / "s.safetensors")
    assert loaded == state
    assert repr(loaded) == repr(state)  # True is not 1, a tuple is no list, keys keep their order


def test_infinities_and_nan(tmp_path):
    nl.save(tmp_path / "s", [float("inf"), float("-inf"), float("nan")])
    assert repr(nl.load(tmp_path / "s")) == "[inf, -inf, nan]"


@pytest.mark.parametrize(
    "dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", ">f4", ">i2"]
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (5,), (2, 3, 4, 5)])
def test_arrays_keep_type_and_shape(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    nl.save(tmp_path / "s", {"x": array})
    loaded = nl.load(tmp_path / "s")["x"]
    assert loaded.dtype == np.dtype(dtype).newbyteorder("=")
    assert loaded.shape == shape
    assert np.array_equal(loaded, array)
    assert loaded.flags.writeable


def test_arrays_of_any_memory_order_and_numpy_scalars_and_tensors(tmp_path):
    array = np.arange(120.0).reshape(2, 3, 4, 5)
    state = {
        "channels last": layout.channels_last(array),
        "strided": array[:, ::2, ::-1],
        "tensor": nl.tensor(array),
        "parameter": nn.Parameter(array),
        "scalar": np.float32(0.5),
        "count": np.int64(7),
    }
    nl.save(tmp_path / "s", state)
    loaded = nl.load(tmp_path / "s")
    for key in ("channels last", "tensor", "parameter"):
        assert np.array_equal(loaded[key], array)
    assert np.array_equal(loaded["strided"], array[:, ::2, ::-1])
    assert repr(loaded["scalar"]) == "0.5"
    assert repr(loaded["count"]) == "7"


def test_names_that_collide(tmp_path):
    state = {
        "a.b": np.zeros(1),
        "a": {"b": np.ones(1), "b'": np.full(1, 2.0)},
        "__metadata__": np.full(1, 3.0),
    }
    nl.save(tmp_path / "s", state)
    loaded = nl.load(tmp_path / "s")
    values = loaded["a.b"], loaded["a"]["b"], loaded["a"]["b'"], loaded["__metadata__"]
    assert [value.item() for value in values] == [0, 1, 2, 3]


def test_a_module_returns_with_its_memory_layout(tmp_path):
    model = network()
    train(model, nl.optim.SGD(model.parameters(), lr=0.1), nl.optim.LambdaSchedule(_sgd(), lambda _: 1.0), 2)
    nl.save(tmp_path / "m.safetensors", model)
    nl.manual_seed(99)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    other.load_state_dict(nl.load(tmp_path / "m.safetensors"))
    expected = model.state_dict()
    assert all(np.array_equal(value, expected[name]) for name, value in other.state_dict().items())
    assert layout.is_channels_last(other[0].weight.numpy())


def _sgd() -> nl.optim.SGD:
    return nl.optim.SGD([nn.Parameter(np.zeros(1))], lr=0.1)


@pytest.mark.parametrize("make", [
    lambda p: nl.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    lambda p: nl.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99)),
])  # fmt: skip
def test_training_goes_on_as_if_never_interrupted(tmp_path, make):
    model = network()
    optimizer = make(model.parameters())
    schedule = nl.optim.CosineSchedule(optimizer, 20, warmup_steps=2)
    train(model, optimizer, schedule, 5)
    state = {
        "model": model,
        "optimizer": optimizer,
        "schedule": schedule,
        "epoch": 5,
        "classes": ["cat", "dog"],
    }
    nl.save(tmp_path / "state.safetensors", state)
    expected = train(model, optimizer, schedule, 5)

    state = nl.load(tmp_path / "state.safetensors")
    nl.manual_seed(77)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    model.load_state_dict(state["model"])
    optimizer = make(model.parameters())
    schedule = nl.optim.CosineSchedule(optimizer, 20, warmup_steps=2)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    assert train(model, optimizer, schedule, 5) == expected
    assert (state["epoch"], state["classes"]) == (5, ["cat", "dog"])


# ------------------------------------------------------------------------------ the file from outside


def test_others_read_what_was_saved(tmp_path):
    model = network()
    nl.save(tmp_path / "m.safetensors", model)
    seen = safetensors.load_file(tmp_path / "m.safetensors")
    expected = model.state_dict()
    assert set(seen) == set(expected)
    assert all(np.array_equal(seen[name], expected[name]) for name in seen)


def test_the_header_is_strict_json_and_nothing_is_pickled(tmp_path):
    nl.save(tmp_path / "s", {"x": np.zeros(2, np.float32), "nan": float("nan")})
    raw = (tmp_path / "s").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert header["x"] == {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    description = json.loads(header["__metadata__"]["nnlite"], parse_constant=refuse)
    assert description["version"] == 1
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(raw)


def test_files_of_others_are_dicts_of_arrays(tmp_path):
    arrays = {"w": np.ones((2, 3), np.float32), "b": np.arange(3)}
    safetensors.save_file(arrays, tmp_path / "o.safetensors", metadata={"format": "pt"})
    loaded = nl.load(tmp_path / "o.safetensors")
    assert set(loaded) == {"w", "b"}
    assert all(np.array_equal(loaded[name], arrays[name]) for name in arrays)


def test_pytorch_reads_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here; install nnlite[oracle]")
    from safetensors.torch import load_file

    model = network()
    nl.save(tmp_path / "m.safetensors", model)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 2),
    )
    theirs.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=False)
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    with nl.no_grad(), torch.no_grad():
        found, expected = model.eval()(nl.tensor(x)).numpy(), theirs.eval()(torch.tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({"a": {1, 2}}, r"the state\['a'\] is of type set"),
        ({"a": [0, lambda: 0]}, r"the state\['a'\]\[1\] is of type function"),
        (object(), "the state is of type object"),
        ({"a": {(1, 2): 3}}, r"the state\['a'\] has the key \(1, 2\)"),
        ({True: 3}, "has the key True"),
        ({"a": np.array(["x"])}, r"the state\['a'\] has elements of type <U1"),
        ([np.zeros(2, complex)], "complex128"),
        ([np.array([None])], "object"),
        ({"a": 1j}, "complex"),
        ({"a": np.zeros(1, np.longdouble)}, "float128|longdouble|elements of type"),
    ],
)
def test_what_cannot_be_saved_is_named_and_leaves_no_file(tmp_path, state, match):
    with pytest.raises(OperandError, match=match):
        nl.save(tmp_path / "s", state)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    nl.save(tmp_path / "s", 1)
    with pytest.raises(OperandError):
        nl.save(tmp_path / "s", {"x": object()})
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        nl.save(tmp_path / "s", 2)
    assert nl.load(tmp_path / "s") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        nl.save(tmp_path / "none" / "s", 1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        nl.save(tmp_path / "folder", 1)


def test_places_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        nl.load(tmp_path / "none")
    with pytest.raises(ModelError, match="not a file"):
        nl.load(tmp_path)


def test_every_truncation_is_an_error(tmp_path):
    nl.save(tmp_path / "s", {"w": np.arange(6.0), "epoch": 3})
    raw = (tmp_path / "s").read_bytes()
    for size in range(len(raw)):
        (tmp_path / "t").write_bytes(raw[:size])
        with pytest.raises(ModelError, match="not a safetensors file, or a truncated one"):
            nl.load(tmp_path / "t")
    (tmp_path / "t").write_bytes(raw + b"x")
    with pytest.raises(ModelError, match="not a safetensors file"):
        nl.load(tmp_path / "t")


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" * 50, b"\xff" * 100, pickle.dumps({"a": 1}), b"{}" * 40]
)
def test_other_files(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(ModelError, match="not a safetensors file"):
        nl.load(tmp_path / "s")


@pytest.mark.parametrize(
    ("shape", "end"), [([1 << 62, 4], 8), ([0, 1 << 63], 0), ([3], 8), ([-2], 8), ([1 << 31, 1 << 31, 0], 0)]
)
def test_sizes_are_checked_before_memory_is_asked_for(tmp_path, shape, end):
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    (tmp_path / "s").write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    try:
        loaded = nl.load(tmp_path / "s")
    except ModelError:
        return
    assert loaded["x"].size == 0  # an empty array of any shape is none of our worries


@pytest.mark.parametrize(
    ("description", "match"),
    [
        ("no json", "damaged"),
        ("[]", "damaged"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "tree": {"array": "gone"}}', "damaged"),
        ('{"version": 1, "tree": {"code": "import os"}}', "damaged"),
        ('{"version": 1, "tree": {"dict": [["a"]]}}', "damaged"),
        ('{"version": 1, "tree": {"dict": [[["a"], 1]]}}', "damaged"),
        ('{"version": 1, "tree": {"tuple": 3}}', "damaged"),
        ('{"version": 1, "tree": {"float": "x"}}', "damaged"),
        ('{"version": 1, "tree": {}}', "damaged"),
        ('{"version": 1, "tree": ' + "[" * 100_000 + "]" * 100_000 + "}", "damaged"),
        ('{"version": 2, "tree": {"new": 1}}', "is of format 2 but only 1 is known"),
    ],
)
def test_damaged_descriptions(tmp_path, description, match):
    safetensors.save_file({"x": np.zeros(1)}, tmp_path / "s", metadata={"nnlite": description})
    with pytest.raises(ModelError, match=match):
        nl.load(tmp_path / "s")


def test_wrong_names_and_shapes_are_listed(tmp_path):
    nl.save(tmp_path / "s", network())
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    with pytest.raises(
        ModelError, match=r"0\.weight has shape \[4, 3, 3, 3\].*unexpected: 4\.weight, 4\.bias"
    ):
        other.load_state_dict(nl.load(tmp_path / "s"))


def test_the_format_is_that_of_the_library(tmp_path):
    """Files are written an array at a time here; the library must read them."""
    from safetensors.numpy import load_file

    kinds = [
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint64,
        bool,
    ]
    arrays = {f"é {np.dtype(k)}": np.arange(6).reshape(2, 3).astype(k) for k in kinds}
    arrays |= {"empty": np.zeros((0, 3), np.float32), "scalar": np.array(7, np.float32)}
    arrays["big-endian"] = np.arange(3, dtype=">i4")
    arrays["channels last"] = nl.tensor(np.arange(120.0, dtype=np.float32).reshape(2, 3, 4, 5)).numpy()
    nl.save(tmp_path / "ours.safetensors", arrays)
    read = load_file(tmp_path / "ours.safetensors")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype.newbyteorder("=") and np.array_equal(read[name], array), name


def test_saving_holds_no_second_copy(tmp_path):
    import tracemalloc

    state = {f"layer{i}": np.zeros((512, 512), np.float32) for i in range(8)}
    tracemalloc.start()
    nl.save(tmp_path / "state.safetensors", state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < state["layer0"].nbytes / 2
