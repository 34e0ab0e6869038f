"""Tensors, modules, optimisers and files on the CPU and on what seems to be a GPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import nnlite as nl
import nnlite.functional as F
from nnlite import device
from nnlite.errors import ConfigError, DeviceError, OutOfMemoryError
from nnlite.tensors import Tensor


def _net() -> nl.nn.Module:
    nl.manual_seed(3)
    return nl.nn.Sequential(
        nl.nn.Conv2d(3, 8, 3, padding=1, bias=False), nl.nn.BatchNorm2d(8), nl.nn.ReLU(), nl.nn.MaxPool2d(2),
        nl.nn.Dropout(0.25), nl.nn.Flatten(), nl.nn.Linear(8 * 16, 5),
    )  # fmt: skip


def _batch():
    rng = np.random.default_rng(5)
    return rng.standard_normal((6, 3, 8, 8)).astype(np.float32), rng.integers(0, 5, 6)


# ------------------------------------------------------------------------------------- without a GPU


def test_without_a_gpu_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(device, "missing_driver", lambda: "this machine has no NVIDIA driver (libcuda)")
    assert not device.is_available()
    assert device.device_count() == 0
    with pytest.raises(DeviceError, match=r"'cuda' cannot be used: .*no NVIDIA driver.*use device 'cpu'"):
        nl.tensor([1.0]).to("cuda")
    monkeypatch.setattr(device, "missing_driver", lambda: None)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    monkeypatch.delitem(device.sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match=r"CuPy is not installed; pip install nnlite\[cuda12\]"):
        _net().to("cuda:0")


def test_auto_and_cpu_need_no_gpu(monkeypatch):
    monkeypatch.setattr(device, "missing_driver", lambda: "the NVIDIA driver finds no GPU")
    x = nl.tensor([1.0])
    assert x.to("auto") is x
    assert nl.tensor([2.0], device="cpu").device == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=r"must be 'cpu', 'cuda', 'cuda:<number>' or 'auto'"):
        nl.tensor([1.0]).to(name)


# ------------------------------------------------------------------------------------------ tensors


def test_to_and_back_keep_elements_type_and_memory_order(gpu):
    x = nl.layout.channels_last(np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5))
    there = nl.asarray(x).to("cuda")
    assert (there.device, there.shape, there.dtype) == ("cuda:0", (2, 3, 4, 5), np.float32)
    assert nl.layout.is_channels_last(there._array)
    back = there.to("cpu").numpy()
    assert nl.layout.is_channels_last(back)
    np.testing.assert_array_equal(back, x)
    assert there.to("cuda:0") is there
    assert "device=cuda:0" in repr(there)


def test_a_gpu_that_does_not_exist_is_named(gpu):
    with pytest.raises(DeviceError, match=r"'cuda:3' does not exist: there are 1"):
        nl.tensor([1.0]).to("cuda:3")


def test_the_gpu_in_use_can_be_chosen(gpu):
    gpu.count = 2
    assert (nl.device.device_count(), gpu.in_use) == (2, 0)
    assert (nl.device.use("cuda:1"), gpu.in_use) == ("cuda:1", 1)
    assert (nl.device.use("cpu"), gpu.in_use) == ("cpu", 1)


def test_recomputation_and_clipping_stay_there(gpu):
    x = nl.nn.Parameter(np.ones((2, 3), np.float32))
    x.move("cuda")
    nl.checkpoint(lambda t: (t * t).sum(), x).backward()
    assert x.grad.device == "cuda:0"
    assert nl.nn.utils.clip_grad_norm_([x], 1.0) == pytest.approx(2 * 6**0.5)


def test_numpy_is_refused_and_item_is_not(gpu):
    x = nl.tensor([[2.0]], device="cuda")
    with pytest.raises(DeviceError, match=r"numpy\(\): the tensor is on cuda:0; .*\.to\('cpu'\)"):
        x.numpy()
    with pytest.raises(DeviceError, match="copy it"):
        np.asarray(x)
    assert x.item() == 2.0


def test_numbers_take_the_device_of_the_tensor(gpu):
    x = nl.tensor([1.0, 2.0], device="cuda")
    y = (2 * x + 1) / 4 - np.ones(2, np.float32)
    assert y.device == "cuda:0"
    np.testing.assert_array_equal(y.to("cpu").numpy(), np.array([-0.25, 0.25], np.float32))


def test_gradients_flow_through_a_move(gpu):
    x = nl.tensor([1.0, -2.0], requires_grad=True)
    (x.to("cuda") * 3).to("cpu").sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3])


def test_new_tensors_keep_the_device_of_their_source(gpu):
    there = nl.tensor([1.0, 2.0], device="cuda")
    assert nl.tensor(there).device == "cuda:0"
    assert nl.tensor(there, device="cpu").device == "cpu"
    assert nl.asarray(there._array)._array is there._array


def test_an_index_copies_nothing_to_the_host(gpu):
    x = nl.tensor(np.arange(12.0).reshape(3, 4), device="cuda")
    before = gpu.to_host
    assert x[1:, ::2].shape == (2, 2)
    assert gpu.to_host == before


# ---------------------------------------------------------------------------------- other libraries


def test_dlpack_shares_memory_with_numpy_both_ways():
    x = nl.tensor(np.arange(6.0).reshape(2, 3))
    view = np.from_dlpack(x)
    assert np.shares_memory(view, x.numpy())
    array = np.arange(4.0)

    class Exporter:
        __dlpack__, __dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    assert np.shares_memory(nl.asarray(Exporter()).numpy(), array)


def test_dlpack_shares_memory_with_pytorch_both_ways():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; install nnlite[oracle]")
    x = nl.tensor(np.zeros((2, 3), np.float32))
    torch.from_dlpack(x)[1, 2] = 7
    assert x.numpy()[1, 2] == 7
    pictures = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    ours = nl.asarray(pictures)
    assert nl.layout.is_channels_last(ours.numpy())
    pictures[0, 1, 2, 3] = 5
    assert ours.numpy()[0, 1, 2, 3] == 5


def test_arrays_of_a_gpu_are_taken_without_a_copy(gpu):
    x = nl.tensor(np.arange(6.0, dtype=np.float32), device="cuda")
    assert x.__cuda_array_interface__["data"][0] == x._array.data.ptr
    assert x.__dlpack_device__() == (2, 0)
    moved = gpu.to_host, gpu.to_device

    class Exporter:
        __dlpack__, __dlpack_device__ = x._array.__dlpack__, x._array.__dlpack_device__

    same = nl.asarray(Exporter())
    assert same.device == "cuda:0"
    assert same._array.data.ptr == x._array.data.ptr
    assert (gpu.to_host, gpu.to_device) == moved


def test_on_the_cpu_there_is_no_cuda_interface():
    assert not hasattr(nl.tensor([1.0]), "__cuda_array_interface__")


def test_what_learns_is_not_exported(gpu):
    x = nl.nn.Parameter(np.ones(2, np.float32))
    x.move("cuda")
    with pytest.raises(nl.errors.GradientError, match="use detach"):
        x.__cuda_array_interface__  # noqa: B018
    with pytest.raises(nl.errors.GradientError, match="use detach"):
        x.__dlpack__()


def test_memory_of_other_kinds_is_refused():
    class Exporter:
        def __dlpack__(self):
            raise AssertionError("must not be asked")

        def __dlpack_device__(self):
            return (10, 0)

    with pytest.raises(DeviceError, match=r"device type 10 .*copy it to the CPU"):
        nl.asarray(Exporter())


# ------------------------------------------------------------------------------- modules, optimisers


OPTIMISERS = {
    "sgd": lambda p: nl.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "plain": lambda p: nl.optim.SGD(p, lr=0.1, maximize=True),
    "adamw": lambda p: nl.optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: nl.optim.Adam(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: nl.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: nl.optim.Adagrad(p, lr=0.01, weight_decay=1e-3),
    "lars": lambda p: nl.optim.LARS(p, lr=0.1, momentum=0.9),
    "lamb": lambda p: nl.optim.LAMB(p, lr=0.01),
}


def _trained(net, optimiser, where, steps=3):
    x, labels = (nl.tensor(a, device=where) for a in _batch())
    average = nl.optim.EMA(net, 0.5)
    losses = []
    for step in range(steps):
        nl.manual_seed(step)
        loss = F.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        nl.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        average.update()
        losses.append(loss.item())
    return losses, average.state_dict()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_training_is_the_same_and_moves_nothing_but_losses(gpu, name):
    found = []
    for where in ("cpu", "cuda"):
        net = _net().to(where)
        optimiser = OPTIMISERS[name](net.parameters())
        losses, average = _trained(net, optimiser, where)
        found.append((losses, {**net.state_dict(), **average}))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    for key, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][key], value, rtol=1e-4, atol=1e-5)


def test_an_optimiser_follows_its_parameters(gpu):
    net = _net()
    optimiser = nl.optim.AdamW(net.parameters(), lr=0.01)
    parameters = list(net.parameters())
    _trained(net, optimiser, "cpu", 1)
    net.to("cuda")
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    _trained(net, optimiser, "cuda", 1)
    assert all(p.device == "cuda:0" for p in [*net.parameters(), *net.buffers()])
    assert all(p.grad.device == "cuda:0" for p in net.parameters())
    net.to("cpu")
    _trained(net, optimiser, "cpu", 1)


def test_a_move_is_a_change_that_a_tape_notices(gpu):
    net = nl.nn.Linear(2, 2)
    loss = net(nl.tensor([[1.0, 2.0]])).sum()
    net.to("cuda")
    with pytest.raises(nl.errors.GradientError, match="changed in place"):
        loss.backward()


def test_files_move_between_devices(gpu, tmp_path):
    net = _net().to("cuda")
    optimiser = nl.optim.AdamW(net.parameters(), lr=0.01)
    _trained(net, optimiser, "cuda", 1)
    nl.save(
        tmp_path / "there.nnlite", {"net": net, "optimiser": optimiser, "x": nl.tensor([1.0], device="cuda")}
    )
    state = nl.load(tmp_path / "there.nnlite")
    assert type(state["x"]) is np.ndarray
    here = _net()
    here.load_state_dict(state["net"])
    other = nl.optim.AdamW(here.parameters(), lr=0.01)
    other.load_state_dict(state["optimiser"])
    nl.save(tmp_path / "here.nnlite", {"net": here, "optimiser": other, "x": nl.tensor([1.0])})
    assert (tmp_path / "here.nnlite").read_bytes() == (tmp_path / "there.nnlite").read_bytes()
    again = _net().to("cuda")
    again.load_state_dict(state["net"])
    assert all(p.device == "cuda:0" for p in again.parameters())
    third = nl.optim.AdamW(again.parameters(), lr=0.01)
    third.load_state_dict(state["optimiser"])
    assert _trained(again, third, "cuda", 1)[0] == _trained(net, optimiser, "cuda", 1)[0]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nl.nn.LSTM(3, 4, bidirectional=True), (5, 2, 3)),
        (lambda: nl.nn.MultiheadAttention(8, 2), (5, 2, 8)),
        (lambda: nl.nn.GroupNorm(2, 4), (2, 4, 3, 3)),
        (lambda: nl.nn.LayerNorm(6), (2, 4, 6)),
        (lambda: nl.nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 4, 4)),
        (lambda: nl.nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 4)),
        (lambda: nl.nn.AdaptiveAvgPool2d(3), (1, 2, 7, 7)),
    ],
    ids=["lstm", "attention", "group_norm", "layer_norm", "conv_transpose", "upsample", "adaptive"],
)
def test_modules_compute_the_same(gpu, make, shape):
    module = make()
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    arguments = 3 if isinstance(module, nl.nn.MultiheadAttention) else 1
    found = []
    for where in ("cpu", "cuda"):
        module.to(where)
        y = module(*[nl.tensor(x, device=where)] * arguments)
        while not isinstance(y, Tensor):
            y = y[0]
        assert y.device.partition(":")[0] == where
        found.append(y.to("cpu").detach().numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_deep_copies_stay_where_they_are(gpu):
    net = copy.deepcopy(_net().to("cuda"))
    assert all(p.device == "cuda:0" for p in net.parameters())


# ------------------------------------------------------------------------------------ out of memory


def test_out_of_memory_says_what_was_asked_and_what_is_in_use(gpu):
    x = nl.tensor(np.ones((64, 64), np.float32), device="cuda")
    gpu.limit = 1000
    with pytest.raises(
        OutOfMemoryError, match=r"add\(float32\[64, 64\], .*allocating 16,384 bytes"
    ) as raised:
        _ = x + x
    text = str(raised.value)
    for part in ("16.00 GB", "8.00 GB of them free", "nnlite uses", "use smaller batches"):
        assert part in text
    assert isinstance(raised.value, MemoryError)


def test_out_of_memory_in_backward_and_in_a_move(gpu):
    x = nl.tensor(np.ones((64, 64), np.float32), requires_grad=True)
    y = (x.to("cuda") * x.to("cuda")).sum()
    gpu.limit = 1000
    with pytest.raises(OutOfMemoryError, match="the gradient of "):
        y.backward()
    with pytest.raises(OutOfMemoryError, match=r"float32\[64, 64\].* to cuda:0"):
        x.detach().to("cuda")


def test_memory_of_the_machine_runs_out_with_the_same_error(monkeypatch):
    def none(*_, **__):
        raise MemoryError("4096 bytes cannot be allocated")

    x = nl.tensor(np.ones(4, np.float32))
    monkeypatch.setattr(nl.memory, "empty_like", none)
    with pytest.raises(OutOfMemoryError, match=r"add\(float32\[4\].*4096 bytes"):
        _ = x + x
