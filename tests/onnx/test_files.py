"""Model files: what is parsed, what is left where it lies, and how much memory that takes."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import nnlite.onnx as nx
from nnlite.errors import ModelError
from nnlite.onnx.content import LEAST as MAPPED
from nnlite.onnx.wire import LEAST, inlined, outlined


def layered(widths, rest=()):
    """Matrix products one after another, and other initializers."""
    rng = np.random.default_rng(0)
    nodes, tensors, name = [], list(rest), "x"
    for i, (rows, columns) in enumerate(pairwise(widths)):
        array = rng.standard_normal((rows, columns)).astype(np.float32)
        tensors.append(numpy_helper.from_array(array, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{i}"], [f"y{i}"]))
        name = f"y{i}"
    entries = [helper.make_tensor_value_info(n, 1, [None, None]) for n in ("x", name)]
    graph = helper.make_graph(nodes, "test", entries[:1], entries[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("seed", range(20))
def test_an_outline_is_the_model_without_its_large_tensors(seed):
    rng = np.random.default_rng(seed)
    widths = rng.choice([1, 7, 32, 33, 200], rng.integers(2, 6)).tolist()
    model = layered(widths)
    data = model.SerializeToString()
    small, places = outlined(data)
    outline = onnx.ModelProto.FromString(small)
    for number, (start, end) in places.items():
        tensor = outline.graph.initializer[number]
        assert not tensor.raw_data
        tensor.raw_data = data[start:end]
    assert outline == model
    sizes = [len(tensor.raw_data) for tensor in model.graph.initializer]
    assert set(places) == {i for i, size in enumerate(sizes) if size > LEAST}


@pytest.mark.parametrize("seed", range(20))
def test_what_was_left_out_goes_back_where_it_was(seed):
    rng = np.random.default_rng(seed)
    model = layered(rng.choice([1, 7, 32, 33, 200], rng.integers(2, 6)).tolist())
    for tensor in model.graph.initializer[::2]:
        tensor.doc_string = "a field behind the raw data"
    data = model.SerializeToString()
    small, places = outlined(data)
    lengths = {number: end - start for number, (start, end) in places.items()}
    pieces = [
        piece if isinstance(piece, bytes) else data[slice(*places[piece])]
        for piece in inlined(small, lengths)
    ]
    assert b"".join(pieces) == data


def test_a_large_file_is_mapped_and_written_back_without_its_weights_in_memory(tmp_path, normal):
    path, again = tmp_path / "large.onnx", tmp_path / "again.onnx"
    path.write_bytes(layered([64, 3000, 64, 64]).SerializeToString())
    assert path.stat().st_size > MAPPED
    module = nx.load(path)
    nx.save(module, again)
    assert again.read_bytes() == path.read_bytes()
    dict(module.named_parameters())["w2"].assign(np.full((64, 64), 2, np.float32))
    nx.save(module, path)  # over what is mapped
    old, new = onnx.load(again), onnx.load(path)
    assert [a == b for a, b in zip(old.graph.initializer, new.graph.initializer, strict=True)] == [1, 1, 0]
    assert (numpy_helper.to_array(new.graph.initializer[2]) == 2).all()
    onnx.checker.check_model(new)
    assert new == nx.to_model(module)
    x = normal(2, 64)
    np.testing.assert_array_equal(nx.load(path).run([x])[0], module.run([x])[0])


def test_a_model_from_bytes_computes_what_one_from_a_message_does(normal):
    model = layered([64, 64, 3, 2000])
    x = normal(2, 64)
    np.testing.assert_array_equal(nx.load(model.SerializeToString()).run([x])[0], nx.load(model).run([x])[0])


@pytest.mark.parametrize("dtype", [np.int8, np.float64, np.float16, np.int64])
def test_large_tensors_of_any_type(dtype):
    array = (np.arange(6000) % 100).astype(dtype)
    weight = numpy_helper.from_array(array, "w")
    kind = weight.data_type
    entries = [helper.make_tensor_value_info(n, kind, [6000]) for n in "xy"]
    node = helper.make_node(
        "Sub" if dtype != np.int8 else "Identity", ["w", "x"][: 1 + (dtype != np.int8)], ["y"]
    )
    graph = helper.make_graph([node], "test", entries[: 1 if dtype != np.int8 else 0], entries[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    module = nx.load(model.SerializeToString())
    inputs = [np.zeros(6000, np.float32 if dtype == np.float16 else dtype)] if dtype != np.int8 else []
    np.testing.assert_array_equal(module.run(inputs)[0], array)


def test_what_is_written_another_way_is_read_whole(normal):
    model = layered([64, 64])
    x, data = normal(2, 64), model.SerializeToString()
    expected = nx.load(model).run([x])[0]
    head = onnx.ModelProto.FromString(data)
    head.ClearField("graph")
    half = onnx.ModelProto()
    half.graph.name = "more of the graph"
    pieces = data + half.SerializeToString()  # a message in two pieces is one message
    with pytest.raises(ValueError, match="in pieces"):
        outlined(pieces)
    np.testing.assert_array_equal(nx.load(pieces).run([x])[0], expected)
    for end in range(0, len(data), 997):
        with pytest.raises(ModelError):
            nx.load(data[:end])


def test_a_large_tensor_that_holds_too_little():
    model = layered([64, 64])
    model.graph.initializer[0].dims[0] = 63
    with pytest.raises(ModelError, match=r"tensor w0 of shape .63, 64. and type float32 holds 16384 bytes"):
        nx.load(model.SerializeToString())


def test_saving_what_was_read_from_bytes(tmp_path, normal):
    model = layered([64, 64, 5])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    module = nx.load(path)
    nx.save(module, tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == path.read_bytes()
    name, parameter = next(module.named_parameters())
    parameter.assign(parameter.numpy() * 2)
    nx.save(module, tmp_path / "tuned.onnx")
    tuned = onnx.load(tmp_path / "tuned.onnx")
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in tuned.graph.initializer:
        factor = 2 if tensor.name == name else 1
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), before[tensor.name] * factor)


def test_data_beyond_the_second_gigabyte(tmp_path, normal):
    array, offset = normal(4, 3), (5 << 29) + 64
    with (tmp_path / "weights.bin").open("wb") as file:  # sparse: it takes no room
        file.seek(offset)
        file.write(array.tobytes())
    tensor = TensorProto(name="w", data_type=1, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    model = layered([3, 2], [tensor])
    model.graph.node.insert(0, helper.make_node("MatMul", ["x", "w"], ["first"]))
    model.graph.node[1].input[0] = "first"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    module, x = nx.load(tmp_path / "model.onnx"), normal(2, 4, seed=1)
    second = numpy_helper.to_array(model.graph.initializer[1])
    np.testing.assert_allclose(module.run([x])[0], x @ array @ second, rtol=1e-5)


MEASURE = """
import sys
import nnlite.onnx as nx

def highest():  # not getrusage's: that begins with what the process was forked from
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))

before = highest()
module = nx.load(sys.argv[1])
print(highest() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc counts memory on Linux")
def test_loading_takes_little_more_than_the_file_and_the_parameters(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(layered([2000, 2000, 2000, 2000, 2000]).SerializeToString())
    root = str(Path(nx.__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    size = path.stat().st_size
    assert size < int(result.stdout) < 2.2 * size
