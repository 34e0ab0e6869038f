"""Compiled plans compute what the graph computes, in one block of memory, for any batch and any thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from planning import normal, only_native, traced

import nnlite as nl
import nnlite.onnx as nx
from nnlite import functional as F
from nnlite import memory, nn
from nnlite.errors import ModelError, ShapeError
from nnlite.graph.plan.arena import ALIGNMENT, Lifetime, peak, place
from nnlite.ops import ArrayType


def steps(plan, *arrays):
    return plan.program([ArrayType(a.shape, a.dtype) for a in arrays]).steps


def assert_same(module, plan, *arrays, tolerance=2e-6):
    expected, actual = module.run(list(arrays)), plan.run(*arrays)
    for one, other in zip(expected, actual, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        scale = max(1e-6, float(np.abs(one).max(initial=0)))
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * scale)


# ------------------------------------------------------------------------------------------ arena


def test_arrays_that_live_at_the_same_time_do_not_overlap():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        begins = rng.integers(0, 20, 30)
        lifetimes = [
            Lifetime(int(size), int(begin), int(begin + length))
            for size, begin, length in zip(
                rng.integers(0, 2000, 30), begins, rng.integers(0, 6, 30), strict=True
            )
        ]
        placement = place(lifetimes)
        assert (
            peak(lifetimes) <= placement.total <= sum(-(-x.size // ALIGNMENT) * ALIGNMENT for x in lifetimes)
        )
        for i, (a, at) in enumerate(zip(lifetimes, placement.offsets, strict=True)):
            assert at % ALIGNMENT == 0 and at + a.size <= placement.total
            for b, other in zip(lifetimes[:i], placement.offsets, strict=False):
                if a.begin <= b.end and b.begin <= a.end and a.size and b.size:
                    assert at + a.size <= other or other + b.size <= at


def test_a_chain_needs_two_of_its_arrays():
    chain = [Lifetime(640, i, i + 1) for i in range(10)]
    assert place(chain).total == peak(chain) == 2 * 640


# ----------------------------------------------------------------------------------- what it computes


@only_native
def test_weights_are_prepared_once_for_all_batch_sizes():
    module = traced(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 1)), (1, 3, 9, 9))
    plan = module.compile()
    for batch in (1, 2, 5, 1):
        assert_same(module, plan, normal(batch, 3, 9, 9))
    assert len(plan._prepared) == 2
    report = plan.memory(normal(3, 3, 9, 9))
    assert report.prepared == sum(array.nbytes for array in plan._prepared.values()) > report.constants
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in plan._prepared.values() if array.nbytes > 4096)


class Everything(nn.Module):
    """Residuals, branches that are read twice, views, poolings, ops that have no step of their own."""

    def __init__(self):
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.late = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        for norm in (self.norm, self.late):
            norm.running_mean.assign(normal(norm.running_mean.shape[0]))

    def forward(self, x):
        y = F.relu(self.norm(self.stem(x)))
        z = F.relu(self.left(y) + y)
        z = F.clamp(self.right(z), -1, 1) * F.sigmoid(z)  # z is read twice
        z = nl.functional.cat([z, y], 1)
        z = F.max_pool2d(z, 2) + F.avg_pool2d(z, 2)
        z = self.late(F.hardswish(self.up(z)))
        channels_last = z.permute(0, 2, 3, 1) * 2.0
        pooled = F.adaptive_avg_pool2d(channels_last.permute(0, 3, 1, 2), 1)
        return self.head(F.relu(pooled.flatten(1))), F.softmax(pooled.reshape(-1, 4), 1)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_everything_at_several_sizes(backend):
    module = traced(Everything(), (2, 3, 16, 16))
    plan = module.compile()
    with nl.use_backend(backend):
        for shape in [(2, 3, 16, 16), (1, 3, 16, 16), (5, 3, 16, 16), (2, 3, 16, 16)]:
            x = normal(*shape)
            assert_same(module, plan, x)
            assert_same(module, plan, np.asfortranarray(x))


def test_fused_and_folded_steps():
    module = traced(Everything(), (2, 3, 16, 16))
    plan = module.compile()
    names = [row["op"] for row in plan.profile(normal(2, 3, 16, 16), repeats=1)]
    assert names[:3] == ["conv2d+relu", "conv2d+relu", "conv2d+clamp"]
    assert "dropout" not in names and names.count("batch_norm") == 1


@pytest.mark.parametrize("sizes", [(224, 224), (65, 97)])
def test_mobilenet(mobilenet_path, sizes):
    module = nx.load(mobilenet_path).freeze().eval()
    plan = module.compile()
    for batch in (1, 3):
        assert_same(module, plan, normal(batch, 3, *sizes), tolerance=1e-5)
    report = plan.memory(normal(1, 3, *sizes))
    assert report.peak <= report.planned < report.unplanned / 3


@pytest.mark.parametrize(
    "file",
    ["centerface", "common_det", "dcgan_face64", "efficientnet_lite0", "efficientnet_lite0_padgraph",
     "mtcnn_onet", "mtcnn_pnet", "mtcnn_rnet", "ppocr_angle_cls", "selfie_segmenter"],
)  # fmt: skip
def test_real_models(assets, file):
    module = nx.load(assets / "models" / f"{file}.onnx").freeze().eval()
    shapes = [
        tuple(size or (1, 3, 64, 64)[axis] for axis, size in enumerate(sizes)) for sizes in module.input_sizes
    ]
    assert_same(module, module.compile(), *(normal(*shape) for shape in shapes), tolerance=3e-5)


def test_explaining_a_plan_names_its_variants(mobilenet_path):
    plan = nx.load(mobilenet_path).freeze().eval().compile()
    text = str(nl.explain(plan, normal(1, 3, 64, 64)))
    assert text.count("conv2d_forward[") == 53
    assert "native:depthwise" in text or "native (" in text or "not native" in text


def test_shapes_that_depend_on_data_run_without_a_program(onnx_model):
    nodes = [("Relu", ["x"], ["r"], {}), ("NonZero", ["r"], ["n"], {}), ("Cast", ["n"], ["y"], {"to": 1})]
    module = nx.load(onnx_model(nodes, {"x": [6]}, ["y"]))
    plan = module.compile()
    x = np.float32([1, -2, 0, 3, 4, -5])
    np.testing.assert_array_equal(plan(x), [[0, 3, 4]])
    with pytest.raises(ModelError, match="depend on data"):
        plan.profile(x)


def test_an_input_and_a_constant_may_be_outputs(onnx_model):
    nodes = [("Relu", ["x"], ["y"], {}), ("Identity", ["c"], ["z"], {}), ("Identity", ["x"], ["w"], {})]
    module = nx.load(onnx_model(nodes, {"x": [3]}, ["y", "z", "w"], {"c": np.float32([1, 2])}))
    x = np.float32([-1, 0, 2])
    plan = module.compile()
    for _ in range(2):
        y, z, w = plan.run(x)
        np.testing.assert_array_equal(y, [0, 0, 2])
        np.testing.assert_array_equal(z, [1, 2])
        np.testing.assert_array_equal(w, x)
        z[...] = w[...] = 9  # what a caller does with its results changes nothing here
    np.testing.assert_array_equal(x, [-1, 0, 2])


# ------------------------------------------------------------------------------------------- memory


def test_a_slice_keeps_its_numbers_while_later_steps_take_the_place_of_what_was_sliced(onnx_model):
    nodes = [
        ("Relu", ["x"], ["y"]), ("Slice", ["y", "begin", "end", "axis"], ["part"]),
        ("Conv", ["x", "w"], ["c0"], dict(pads=[1, 1, 1, 1])),
        ("Conv", ["c0", "w"], ["c1"], dict(pads=[1, 1, 1, 1])),
        ("Conv", ["c1", "last"], ["c2"], dict(pads=[1, 1, 1, 1])), ("Add", ["part", "c2"], ["sum"]),
    ]  # fmt: skip
    arrays = dict(begin=np.array([0]), end=np.array([4]), axis=np.array([1]))
    arrays |= dict(w=normal(8, 8, 3, 3) / 8, last=normal(4, 8, 3, 3) / 8)
    shapes = {"x": [2, 8, 32, 32]}, {"sum": [2, 4, 32, 32]}
    module = nx.load(onnx_model(nodes, *shapes, arrays).SerializeToString())
    assert_same(module, module.compile(), normal(2, 8, 32, 32), tolerance=1e-5)


@pytest.mark.parametrize("last", [nn.Dropout(0.5), nn.Identity()])
def test_results_are_the_callers_whatever_the_last_op_is(last):
    module = traced(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last), (2, 3, 8, 8)
    )
    plan = module.compile()
    first = plan(normal(2, 3, 8, 8))
    before = first.copy()
    plan(normal(2, 3, 8, 8))
    np.testing.assert_array_equal(first, before)


def test_nothing_overwrites_what_is_read_later():
    class Late(nn.Module):
        def forward(self, x):
            a = F.relu(x)
            b = a.flatten(1)  # the same bytes as a
            c = F.clamp(a, 0, 1)  # must not be in place: b is read below
            return c.flatten(1) + b, x * 2.0

    module = traced(Late(), (2, 3, 1, 1))
    assert_same(module, module.compile(), normal(2, 3, 1, 1), tolerance=0)


def test_a_call_allocates_nothing_but_its_results(mobilenet_path):
    plan = nx.load(mobilenet_path).freeze().eval().compile()
    x = normal(2, 3, 96, 96)
    y = plan(x)
    memory.reset_peak()
    before = memory.stats().current
    again = plan(x)
    assert memory.stats().peak - before <= again.nbytes + 2 * 4096
    np.testing.assert_array_equal(again, y)


def test_what_is_alike_for_a_small_picture_may_differ_for_a_large_one():
    class Context(nn.Module):
        """A pooled picture is added to every pixel."""

        def __init__(self):
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) + F.adaptive_avg_pool2d(x, 1)

    module = traced(Context(), (2, 3, 1, 1))
    plan = module.compile()
    for size in (1, 5):
        assert_same(module, plan, normal(2, 3, size, size))


def test_results_of_earlier_calls_stay():
    module = traced(Everything(), (2, 3, 16, 16))
    plan = module.compile()
    first = plan.run(normal(2, 3, 16, 16))
    kept = [array.copy() for array in first]
    plan.run(normal(2, 3, 16, 16))
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_budget_for_models_from_files(onnx_model, monkeypatch):
    nodes = [("Concat", ["x", "x"], ["y"], {"axis": 0})]
    path = onnx_model(nodes, {"x": ["N", 1000]}, ["y"])
    monkeypatch.setenv("NNLITE_MAX_TENSOR_BYTES", "100000")
    plan = nx.load(path).compile()
    assert plan(normal(10, 1000)).shape == (20, 1000)
    with pytest.raises(ShapeError, match=r"concat.*\[40, 1000\].*budget of 100000 bytes"):
        plan(normal(20, 1000))


# -------------------------------------------------------------------------------------------- calls


def test_threads_do_not_disturb_one_another(mobilenet_path):
    plan = nx.load(mobilenet_path).freeze().eval().compile()
    inputs = [normal(1, 3, 64, 64) for _ in range(4)]
    expected = [plan(x) for x in inputs]
    wrong = []

    def work(index):
        for _ in range(5):
            if not np.array_equal(plan(inputs[index]), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@only_native
def test_steps_on_the_block_alone_are_one_call(mobilenet_path):
    plan = nx.load(mobilenet_path).freeze().eval().compile()
    x = normal(1, 3, 64, 64)
    result = plan(x)
    ((block, ((program, bound),)),) = [(b, [*by_program.items()]) for b, by_program in plan._blocks]
    assert len(bound.calls) <= 3 < len(program.steps)
    stepwise = type(bound)(bound.slots, [(step.run, ()) for step in program.steps])
    np.testing.assert_array_equal(program.run(block, stepwise, [x])[0], result)


def test_a_plan_of_other_weights_is_refused():
    module = traced(Everything(), (2, 3, 16, 16))
    plan = module.compile()
    plan(normal(2, 3, 16, 16))
    name, parameter = next(iter(module.named_parameters()))
    parameter.assign(parameter.numpy() * 2)
    with pytest.raises(ModelError, match=f"{name} was changed after the plan was made; compile"):
        plan(normal(2, 3, 16, 16))
    assert_same(module, module.compile(), normal(2, 3, 16, 16))


def test_wrong_inputs():
    plan = traced(Everything(), (2, 3, 16, 16)).compile()
    with pytest.raises(ShapeError, match="inputs \\['input'\\] but 2 were given"):
        plan(normal(1, 3, 16, 16), normal(1))
    with pytest.raises(ShapeError, match="x has 4 channels"):
        plan(normal(1, 4, 16, 16))
    assert plan(normal(1, 3, 16, 16)).shape == (1, 5)  # and goes on


def test_the_bits_do_not_depend_on_the_number_of_threads():
    plan = traced(Everything(), (2, 3, 16, 16)).compile()
    x, before = normal(2, 3, 16, 16), nl.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 5):
            nl.set_num_threads(count)
            results.append(plan(x))
    finally:
        nl.set_num_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


# --------------------------------------------------------------------------- functions behind layers


class Gated(nn.Module):
    """Convolutions of every kind with functions behind them, and one whose sum is read twice."""

    def __init__(self):
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 5, padding=2, groups=48)
        self.narrow = nn.Conv2d(48, 16, 1)
        self.dense = nn.Conv2d(16, 24, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)

    def forward(self, x):
        x = F.silu(self.stem(x))
        y = self.narrow(F.gelu(self.depthwise(F.hardswish(self.wide(x)))))
        z = F.leaky_relu(self.dense(x + y), 0.1)
        gate = F.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(z, 1)))))
        return z * gate + F.tanh(z)


def test_functions_join_the_convolutions_before_them():
    module = traced(Gated(), (2, 3, 21, 17))
    plan, x = module.compile(), normal(2, 3, 21, 17)
    assert_same(module, plan, x, tolerance=5e-6)
    described = [row["op"] for row in plan.profile(x)]
    functions = ["silu", "hardswish", "gelu", "leaky_relu", "sigmoid"]
    if nl.kernels.unavailable("native") is None:
        assert [op for op in described if op.startswith("conv2d+") and op != "conv2d+relu"] == [
            f"conv2d+{name}" for name in functions
        ]
        assert "tanh" in described and not {*functions} & {*described}
    with nl.use_backend("reference"):  # there each is a step of its own
        assert_same(module, module.compile(), x, tolerance=5e-6)


def test_a_result_that_others_read_too_keeps_its_function_apart():
    class Twice(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            y = self.conv(x)
            return y + F.silu(y)

    module = traced(Twice(), (1, 3, 9, 9))
    assert_same(module, module.compile(), normal(1, 3, 9, 9))


def test_a_settled_plan_computes_the_same_for_its_shapes_and_refuses_others(mobilenet_path):
    module = nx.load(mobilenet_path)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 64, 64)).astype(np.float32)
    plain, settled = module.compile(), module.compile()
    settled.settle(*([ArrayType((n, 3, 64, 64), x.dtype)] for n in (1, 2)))
    module.forget()
    for images in (x, x[:1]):
        np.testing.assert_array_equal(settled(images), plain(images))
    with pytest.raises(ModelError, match="settled"):
        settled(np.concatenate([x, x]))
    with pytest.raises(ModelError, match="settled"):
        settled.fingerprint([ArrayType(x.shape, x.dtype)])
    np.testing.assert_array_equal(module.compile()(x), plain(x))  # read again from the file
