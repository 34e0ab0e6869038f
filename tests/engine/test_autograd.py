"""The tape: what is recorded, in which order gradients flow, what is kept and what is refused."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import nnlite as nl
from nnlite import autograd, kernels
from nnlite import functional as F
from nnlite.errors import GradientError


def leaf(*shape, seed=0, dtype=np.float64):
    return nl.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def values(tensor):
    return tensor.numpy()


# ------------------------------------------------------------------------------------- structure


def test_a_chain_of_many_ops_neither_overflows_nor_leaks():
    x = leaf(2)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    last = weakref.ref(y)
    y.sum().backward()
    np.testing.assert_array_equal(values(x.grad), [1, 1])
    del y
    assert last() is None


def test_a_graph_goes_away_without_the_garbage_collector():
    F.relu(F.max_pool2d(leaf(1, 8, 32, 32) * 2, 2)).sum().backward()  # a compiler leaves cycles
    gc.collect()
    gc.disable()
    try:
        used = nl.memory.stats().current
        x = leaf(1, 8, 32, 32)
        y = F.relu(F.max_pool2d(x * 2, 2)).sum()
        y.backward()
        x.grad = None
        del x, y
        assert nl.memory.stats().current == used
    finally:
        gc.enable()


def test_a_diamond_adds_both_paths():
    x = leaf(3)
    a = x * 2
    y = (a * a + a).sum()  # y = 4x² + 2x
    y.backward()
    np.testing.assert_allclose(values(x.grad), 8 * values(x) + 2, rtol=1e-12)


def test_many_diamonds_take_linear_time():
    x = leaf(1)
    y = x
    for _ in range(200):  # 2^200 paths
        y = (y + y) * 0.5
    y.sum().backward()
    np.testing.assert_allclose(values(x.grad), [1])


def test_a_node_waits_for_all_its_users():
    x = leaf(3)
    a = x * x
    b = a * 3
    c = b + a  # the short path to a arrives first
    d = c * b + a
    d.sum().backward()
    # d = (3x² + x²)·3x² + x² = 12x⁴ + x²
    np.testing.assert_allclose(values(x.grad), 48 * values(x) ** 3 + 2 * values(x), rtol=1e-10)


def test_an_operand_used_twice_by_one_op():
    x = leaf(3)
    (x * x).sum().backward()
    np.testing.assert_allclose(values(x.grad), 2 * values(x))
    x.grad = None
    F.cat([x, x, x]).sum().backward()
    np.testing.assert_array_equal(values(x.grad), [3, 3, 3])


def test_scalars_all_the_way():
    x = nl.tensor(np.array(3.0), requires_grad=True)
    y = x * x + x
    y.backward()
    assert x.grad.item() == 7
    y = x * 2
    y.backward()
    assert x.grad.item() == 9
    assert type(x.grad.numpy()) is np.ndarray


# ------------------------------------------------------------------------------ leaf gradients


def test_gradients_accumulate_over_backward_calls():
    x = leaf(3)
    for _ in range(3):
        (x * 2).sum().backward()
    np.testing.assert_array_equal(values(x.grad), [6, 6, 6])
    first = x.grad.numpy()
    (x * 2).sum().backward()
    np.testing.assert_array_equal(first, [6, 6, 6])  # a gradient that was taken does not change later
    np.testing.assert_array_equal(values(x.grad), [8, 8, 8])


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: F.cat([a, b]),
        lambda a, b: a.reshape(4) + b.reshape(4),
        lambda a, b: F.dropout(a, training=False) + b, lambda a, b: a.transpose(0, 1) + b.transpose(0, 1),
        lambda a, b: (a + b) + (b + a), lambda a, b: F.pad(a, (0, 0)) + b[:],
        lambda a, b: nl.tensors.apply(nl.ops.OPS["identity"], a) + b,
    ],
)  # fmt: skip
def test_a_leaf_owns_its_gradient(function):
    a, b = leaf(2, 2), leaf(2, 2, seed=1)
    y = function(a, b)
    seed = np.random.default_rng(5).standard_normal(y.shape)
    kept = seed.copy()
    y.backward(seed)
    assert not np.shares_memory(a._value.grad, b._value.grad)
    for tensor in (a, b):
        assert not np.shares_memory(tensor._value.grad, seed)
        tensor._value.grad[...] = 77
    np.testing.assert_array_equal(seed, kept)


def test_the_gradient_of_a_leaf_itself_is_not_the_seed():
    x = leaf(3)
    seed = np.ones(3)
    x.backward(seed)
    seed[...] = 5
    np.testing.assert_array_equal(values(x.grad), [1, 1, 1])


def test_a_seed_takes_the_outputs_type():
    x = leaf(3, dtype=np.float32)
    (x * 2).backward(np.ones(3))
    assert x.grad.dtype == np.float32


# ---------------------------------------------------------------------------------- going back


def test_a_second_backward_needs_retain_graph():
    x = leaf(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(values(x.grad), 4 * values(x))
    with pytest.raises(GradientError, match="retain_graph=True"):
        y.backward()


def test_what_saves_nothing_cannot_go_back_twice_either():
    x = leaf(3)
    y = x + 1
    y.sum().backward()
    with pytest.raises(GradientError, match="retain_graph=True"):
        y.backward(np.ones(3))


def test_backward_frees_what_was_saved():
    x = leaf(1, 8, 64, 64)
    used = nl.memory.stats().current
    y = F.max_pool2d(F.avg_pool2d(x, 1) * 1, 2)  # the indices come from the pool
    held = nl.memory.stats().current
    z = y.sum()
    del y
    z.backward()
    x.grad = None
    assert nl.memory.stats().current < held
    del z
    assert nl.memory.stats().current == used


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: nl.tensor([1.0]).backward(), "does not depend on anything"),
        (lambda x: (x * 2).backward(), r"shape \[3\] needs an explicit gradient"),
        (lambda x: (x * 2).backward(np.ones(4)), r"gradient has shape \[4\] but the output has \[3\]"),
        (lambda x: x.backward(np.ones(4)), r"shape \[4\]"),
        (lambda x: nl.grad(x.sum(), x, create_graph=True), "second-order"),
        (lambda x: nl.grad(x.sum(), nl.tensor([1.0])), "input 0"),
        (lambda x: nl.grad(nl.tensor([1.0]), x), "output 0"),
        (lambda x: nl.grad([x.sum(), x.mean()], x, [None]), "2 outputs but 1 grad_outputs"),
        (lambda x: nl.grad(x.sum(), [x, leaf(2)]), "input 1 is not used.*allow_unused"),
    ],
)
def test_what_cannot_be_differentiated(call, match):
    with pytest.raises(GradientError, match=match):
        call(leaf(3))


# ---------------------------------------------------------------------------------------- grad


def test_grad_leaves_the_leaves_alone():
    x, y = leaf(3), leaf(3, seed=1)
    gx, gy = nl.grad((x * y).sum(), [x, y])
    np.testing.assert_array_equal(values(gx), values(y))
    np.testing.assert_array_equal(values(gy), values(x))
    assert x.grad is None
    assert y.grad is None


def test_grad_with_respect_to_what_was_computed():
    x = leaf(3)
    a = x * 3
    b = a * a
    (ga,) = nl.grad(b.sum(), a, retain_graph=True)
    np.testing.assert_allclose(values(ga), 2 * values(a))
    ga, gx, gb = nl.grad(b.sum(), [a, x, b])
    np.testing.assert_allclose(values(ga), 2 * values(a))
    np.testing.assert_allclose(values(gx), 18 * values(x))
    np.testing.assert_array_equal(values(gb), np.ones(3))


def test_grad_of_several_outputs_with_weights():
    x = leaf(3)
    (gx,) = nl.grad([x * 2, x * x], x, [np.ones(3), nl.tensor([1.0, 2.0, 3.0])])
    np.testing.assert_allclose(values(gx), 2 + 2 * values(x) * [1, 2, 3])
    (gx,) = nl.grad(x * 2, x, np.full(3, 5.0))
    np.testing.assert_array_equal(values(gx), [10, 10, 10])
    (gx,) = nl.grad([x.sum(), (x * x).sum()], x, retain_graph=False)
    np.testing.assert_allclose(values(gx), 1 + 2 * values(x))


def test_grad_of_an_output_with_respect_to_itself():
    x = leaf(3)
    y = x * 2
    (gy,) = nl.grad(y, y, np.ones(3))
    np.testing.assert_array_equal(values(gy), [1, 1, 1])


def test_unused_inputs():
    x, unused = leaf(3), leaf(3)
    gx, nothing = nl.grad((x * 2).sum(), [x, unused], allow_unused=True)
    assert gx is not None
    assert nothing is None


def test_grad_visits_only_what_leads_to_its_inputs():
    x, w = leaf(1, 2, 6, 6), leaf(3, 2, 3, 3)
    a = F.conv2d(x, w)
    y = (a * a).sum()
    assert kernels.explain(nl.grad, y, a).decisions == (), "no gradient of the convolution"


# ------------------------------------------------------------------------------------- no_grad


def test_no_grad_as_block_decorator_and_nested():
    x = leaf(3)
    with nl.no_grad():
        assert not nl.grad_enabled()
        assert not (x * 2).requires_grad
        with nl.set_grad_enabled(True):
            assert (x * 2).requires_grad
        assert not nl.grad_enabled()

    @nl.no_grad()
    def double(t):
        return t * 2

    assert not double(x).requires_grad
    assert not double(x).requires_grad, "a decorator serves more than once"
    assert nl.grad_enabled()
    with pytest.raises(ZeroDivisionError), nl.no_grad():
        _ = 1 / 0
    assert nl.grad_enabled()


def test_no_grad_holds_for_its_thread_only():
    x = leaf(3)
    inside, done = threading.Event(), threading.Event()
    seen = []

    def work():
        with nl.no_grad():
            inside.set()
            done.wait(10)
            seen.append((x * 2).requires_grad)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    seen.append((x * 2).requires_grad)
    done.set()
    thread.join()
    assert seen == [True, False]


def test_threads_record_graphs_of_their_own():
    results = {}

    def work(number):
        x = nl.tensor(np.full(50, float(number)), requires_grad=True)
        for _ in range(20):
            x.grad = None
            (x * x + x).sum().backward()
        results[number] = values(x.grad)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, gradient in results.items():
        np.testing.assert_array_equal(gradient, np.full(50, 2.0 * number + 1))
    assert len(results) == 4


# --------------------------------------------------------------------------------- broken ops


def test_an_op_that_returns_too_few_gradients_is_found_out():
    relu = nl.ops.OPS["relu"]
    broken = nl.ops.Op(
        "broken", "y = x", "none", relu.shape, lambda ctx, x: x, lambda ctx, gy, needs: (), relu.samples,
        relu.errors, None,
    )  # fmt: skip
    x = leaf(3)
    with pytest.raises(AssertionError, match=r"broken.backward returned 0 gradients"):
        nl.tensors.apply(broken, x).sum().backward()


def test_check_differentiable():
    autograd.check_differentiable(np.dtype(np.float16))
    with pytest.raises(nl.errors.DTypeError, match="int64"):
        autograd.check_differentiable(np.dtype(np.int64))
