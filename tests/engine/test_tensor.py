"""Tensor: creation, interoperation with NumPy and PyTorch, types, operators, indexing."""

from __future__ import annotations

import copy
import operator as operators
import pickle

import numpy as np
import pytest

import nnlite as nl
from nnlite.errors import DTypeError, GradientError, NnliteError, OperandError, ShapeError


def random(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


# ------------------------------------------------------------------------------------- creation


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32), ([1.0, 2.0], np.float32), ([[1, 2], [3, 4]], np.int64), (True, np.bool_),
        (np.ones(3), np.float64), (np.ones(3, np.float16), np.float16), (np.float64(2), np.float64),
        (np.arange(3, dtype=np.uint8), np.uint8), (np.float32(3), np.float32),
    ],
)  # fmt: skip
def test_types_of_new_tensors(data, dtype):
    t = nl.tensor(data)
    assert t.dtype == dtype
    np.testing.assert_array_equal(t.numpy(), np.asarray(data))
    assert nl.tensor(data, dtype="float64").dtype == np.float64


def test_tensor_copies_and_asarray_does_not():
    array = random(3)
    copied, shared = nl.tensor(array), nl.asarray(array)
    array[0] = 99
    assert shared.numpy()[0] == 99
    assert copied.numpy()[0] != 99
    assert nl.asarray(shared) is shared
    np.testing.assert_array_equal(nl.tensor(shared).numpy(), array)


def test_only_numbers():
    with pytest.raises(DTypeError, match="not numbers"):
        nl.tensor(["a"])
    with pytest.raises(DTypeError, match="only floating-point"):
        nl.tensor([1, 2], requires_grad=True)


def test_attributes():
    t = nl.tensor(random(2, 3, 4))
    assert (t.shape, t.ndim, t.size, len(t), t.dtype) == ((2, 3, 4), 3, 24, 2, np.float32)
    assert t.is_leaf
    assert not t.requires_grad
    assert "float32" in repr(t)
    assert "requires_grad=True" in repr(nl.tensor(1.0, requires_grad=True))


def test_item():
    assert nl.tensor([[2.5]]).item() == 2.5
    assert isinstance(nl.tensor(3).item(), int)
    with pytest.raises(ShapeError, match=r"shape \[2\]"):
        nl.tensor([1.0, 2.0]).item()


def test_casting_carries_gradients_back():
    x = nl.tensor(random(3), requires_grad=True)
    y = x.astype(np.float64)
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert not x.astype("int32").requires_grad


# -------------------------------------------------------------------------------- NumPy, DLPack


def test_numpy_sees_the_same_memory():
    t = nl.tensor(random(2, 3))
    assert np.shares_memory(np.asarray(t), t.numpy())
    assert not np.shares_memory(np.array(t), t.numpy())
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.concatenate([t, t]), np.concatenate([t.numpy(), t.numpy()]))
    np.testing.assert_allclose(np.exp(np.asarray(t)), np.exp(t.numpy()))
    with pytest.raises(ValueError, match="without a copy"):
        t.__array__(np.float64, copy=False)


def test_what_requires_gradients_cannot_be_changed_behind_the_tape():
    t = nl.tensor(random(3), requires_grad=True)
    for view in (t.numpy(), np.asarray(t)):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
    np.array(t)[0] = 1  # a copy is free
    plain = nl.tensor(random(3))
    plain.numpy()[0] = 7
    assert plain[0].item() == 7


@pytest.mark.parametrize("operator", ["add", "sub", "mul", "truediv", "pow", "matmul"])
def test_operators_with_numpy_arrays_on_either_side(operator):
    apply = getattr(operators, operator)
    array, other = np.abs(random(3, 3)) + 0.5, np.abs(random(3, 3)) + 1
    expected = apply(array, other)
    x, y = nl.tensor(array), nl.tensor(other)
    for a, b in [(x, y), (x, other), (array, y)]:
        result = apply(a, b)
        assert isinstance(result, nl.Tensor)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_gradients_flow_through_reflected_operators():
    array = random(2, 3)
    for function in (lambda t: array * t, lambda t: array - t, lambda t: 2.0**t, lambda t: 1 / t):
        x = nl.tensor(np.abs(random(2, 3)) + 1, requires_grad=True)
        function(x).sum().backward()
        assert x.grad.shape == (2, 3)
        assert np.abs(x.grad.numpy()).min() > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_python_numbers_take_the_tensors_type(dtype):
    t = nl.tensor(np.ones(3, dtype))
    for result in (t + 1, 1 + t, t * 2.5, 2.5 * t, t / 3, 1 / t, t**2, t - True, -t, 2**t):
        assert result.dtype == dtype


def test_types_mix_as_in_numpy():
    single, double, whole = (nl.tensor(np.ones(3, d)) for d in (np.float32, np.float64, np.int64))
    assert (single + double).dtype == np.float64
    assert (double * single).dtype == np.float64
    assert (whole + 1).dtype == np.int64
    assert (whole * 2.5).dtype == np.float64, "an integer array times a Python float, as in NumPy"
    assert (single * np.float64(2)).dtype == np.float32, "NumPy's float64 is a Python float"
    assert (single * np.ones((), np.float64)).dtype == np.float64


def test_dlpack_to_and_from_numpy():
    t = nl.tensor(random(2, 3))
    array = np.from_dlpack(t)
    assert np.shares_memory(array, t.numpy())

    class Exporter:
        def __dlpack__(self, **options):
            return t.__dlpack__(**options)

        def __dlpack_device__(self):
            return t.__dlpack_device__()

    assert np.shares_memory(nl.asarray(Exporter()).numpy(), t.numpy())
    with pytest.raises(GradientError, match="detach"):
        np.from_dlpack(nl.tensor([1.0], requires_grad=True))


def test_dlpack_to_and_from_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is the other side here")
    theirs = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    ours = nl.asarray(theirs)
    theirs[0, 0] = 42
    assert ours.numpy()[0, 0] == 42
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    np.testing.assert_array_equal(nl.tensor(theirs.numpy()).numpy(), theirs.numpy())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(duplicate):
    t = nl.tensor(random(2, 3), requires_grad=True)
    other = duplicate(t)
    np.testing.assert_array_equal(other.numpy(), t.numpy())
    assert other.requires_grad
    assert not np.shares_memory(other.numpy(), t.numpy())


# ------------------------------------------------------------------------------------- indexing

INDICES = [
    0, -1, 2, slice(None), slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(-2, None),
    slice(3, 0, -2), slice(5, 100), slice(2, 2), ..., None, (0, 1), (slice(None), 1), (..., 0), (0, ...),
    (None, 1), (1, None, slice(1)), (..., None), (None, ..., None),
    (slice(None, None, -1), ..., slice(1, -1)),
    (0, 1, 2), (-1, slice(None), -1), (slice(4, 1, -1), 0, slice(None, None, 3)), (), (..., slice(None), 1),
    (np.int64(1), np.int32(2)), slice(None, -100, -1), slice(100, None, -2), slice(-100, 2),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_is_numpys(index):
    array = random(4, 3, 5, dtype=np.float64)
    x = nl.tensor(array, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), array[index])
    assert y.shape == array[index].shape
    gy = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(gy)
    expected = np.zeros_like(array)
    expected[index] = gy
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_indices_that_are_not_supported_say_so():
    x = nl.tensor(random(4, 3))
    for index, error, match in [
        (4, OperandError, "index 4 is out of range for axis 0 of size 4"),
        ((0, -4), OperandError, "index -4 is out of range for axis 1"),
        ((0, 0, 0), ShapeError, "3 indices are too many"),
        ((..., ...), ShapeError, "too many"),
        ([0, 1], OperandError, "only integers, slices"),
        (np.array([True, False]), OperandError, "only integers, slices"),
        (1.0, OperandError, "only integers, slices"),
        (True, OperandError, "only integers, slices"),
        (slice(None, None, 0), NnliteError, "step"),
    ]:
        with pytest.raises(error, match=match):
            x[index]


def test_iteration_goes_along_the_first_axis():
    array = random(3, 2)
    rows = list(nl.tensor(array))
    assert len(rows) == 3
    np.testing.assert_array_equal(np.stack([r.numpy() for r in rows]), array)
    with pytest.raises(TypeError):
        len(nl.tensor(1.0))
    with pytest.raises(TypeError):
        list(nl.tensor(1.0))


def test_shape_methods():
    array = random(2, 3, 4)
    t = nl.tensor(array)
    np.testing.assert_array_equal(t.reshape(6, -1).numpy(), array.reshape(6, -1))
    np.testing.assert_array_equal(t.reshape((4, 6)).numpy(), array.reshape(4, 6))
    np.testing.assert_array_equal(t.permute(2, 0, 1).numpy(), array.transpose(2, 0, 1))
    np.testing.assert_array_equal(t.transpose(0, -1).numpy(), array.swapaxes(0, -1))
    np.testing.assert_array_equal(t.flatten(1).numpy(), array.reshape(2, -1))
    np.testing.assert_array_equal(t.max(1).numpy(), array.max(1))
    np.testing.assert_allclose(t.mean((0, 2), keepdim=True).numpy(), array.mean((0, 2), keepdims=True), 1e-5)


def test_numpy_integers_are_sizes_and_axes_too():
    t, two = nl.tensor(random(2, 3, 4)), np.int64(2)
    assert t.reshape(np.int64(24)).shape == (24,)
    assert t.sum(two).shape == (2, 3)
    picture = nl.tensor(random(1, 1, 6, 6))
    pooled = nl.functional.max_pool2d(picture, two, stride=np.int32(1), padding=np.array([1, 0]))
    assert pooled.shape == (1, 1, 7, 5)


def test_shape_methods_refuse_axes_that_do_not_exist():
    t = nl.tensor(random(2, 3))
    for call in (lambda: t.transpose(0, 5), lambda: t.permute(0, 5), lambda: t.sum(2), lambda: t.flatten(3)):
        with pytest.raises(ShapeError, match="out of range for 2 axes"):
            call()


def test_functions_want_tensors():
    with pytest.raises(OperandError, match=r"conv2d: operand 0 is a ndarray, not a Tensor; use nl\.tensor"):
        nl.functional.conv2d(random(1, 1, 4, 4), nl.tensor(random(1, 1, 2, 2)))


def test_setting_gradients():
    x = nl.tensor(random(2), requires_grad=True)
    x.grad = nl.tensor(np.ones(2, np.float32))
    assert x.grad.numpy().tolist() == [1, 1]
    x.grad = None
    assert x.grad is None
    with pytest.raises(ShapeError, match=r"grad has shape \[3\]"):
        x.grad = nl.tensor(np.ones(3, np.float32))
    y = x * 2
    assert not y.is_leaf
    with pytest.raises(GradientError, match="leaf tensors only"):
        y.requires_grad = False
    assert not y.detach().requires_grad
    x.requires_grad = False
    assert not (x * 2).requires_grad
