"""Module: the tree, names, saving and loading, freezing, copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnlite as nl
from nnlite import layout, memory, nn
from nnlite.errors import ConfigError, DTypeError, ModelError, ShapeError


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x))) + x


class Net(nn.Module):
    def __init__(self) -> None:
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = [Block(4), Block(4)]
        self.scale = nn.Parameter(np.ones((), np.float32))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 5))
        self.note = "not a parameter"

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x * self.scale)


def picture(batch: int = 2) -> nl.Tensor:
    return nl.tensor(np.random.default_rng(0).standard_normal((batch, 3, 8, 8)).astype(np.float32))


# -------------------------------------------------------------------------------- parameters


def test_a_parameter_owns_its_memory_and_is_read_only_outside():
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    p = nn.Parameter(source)
    source[0, 0] = 99
    assert p.numpy()[0, 0] == 0
    assert p.requires_grad
    assert p.version == 0
    for frozen in (False, True):
        p.requires_grad = not frozen
        for view in (p.numpy(), np.asarray(p), p.detach().numpy()):
            with pytest.raises(ValueError, match="read-only"):
                view[0, 0] = 1
    seen = p.numpy()
    p.writable()[0, 0] = 7
    p.assign(p.numpy() + 1)
    assert p.version == 2
    assert seen[0, 0] == 8, "a view shows later changes"
    with pytest.raises(ShapeError, match=r"shape \[2, 3\] cannot hold \[3\]"):
        p.assign(np.zeros(3))
    assert p.version == 2


def test_types_of_parameters():
    assert nn.Parameter([1.0, 2.0]).dtype == np.float32
    assert nn.Parameter(np.ones(2)).dtype == np.float64
    assert nn.Parameter(nl.tensor([1.0])).dtype == np.float32
    for requires_grad in (True, False):
        with pytest.raises(DTypeError, match="int64"):
            nn.Parameter([1, 2], requires_grad)
    assert nn.Buffer([1, 2]).dtype == np.int64
    assert "Parameter" in repr(nn.Parameter([1.0]))


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (64, 32, 3, 3), (5, 4), (7,)])
def test_kernels_take_parameters_as_they_are(shape):
    for duplicate in (lambda p: p, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))):
        p = duplicate(nn.Parameter(np.random.default_rng(0).standard_normal(shape)))
        assert layout.is_channels_last(p.numpy())
        if len(shape) <= 2:
            assert p.numpy().flags.c_contiguous


# ---------------------------------------------------------------------------------- the tree


def test_names_are_pytorchs():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale", "stem.weight", "stem.bias",
        "blocks.0.conv.weight", "blocks.0.norm.weight", "blocks.0.norm.bias",
        "blocks.1.conv.weight", "blocks.1.norm.weight", "blocks.1.norm.bias",
        "head.3.weight", "head.3.bias",
    ]  # fmt: skip
    assert [name for name, _ in net.named_buffers()] == [
        "blocks.0.norm.running_mean", "blocks.0.norm.running_var",
        "blocks.1.norm.running_mean", "blocks.1.norm.running_var",
    ]  # fmt: skip
    assert [name for name, _ in net.named_children()] == ["stem", "blocks.0", "blocks.1", "head"]
    assert dict(net.named_modules())["blocks.1.act"] is net.blocks[1].act
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert next(iter(net.named_parameters("model")))[0] == "model.scale"
    assert len(list(net.modules())) == 1 + 1 + 2 * 4 + 1 + 4
    assert len(list(net.buffers())) == 4


def test_what_is_shared_is_listed_once_and_saved_under_each_name():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert set(net.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    twice = nn.Sequential(net, net)
    assert len(list(twice.parameters())) == 3
    assert len(list(twice.modules())) == 4


def test_attributes_can_be_replaced_and_removed():
    net = nn.Linear(2, 2)
    net.weight = nn.Parameter(np.zeros((2, 2), np.float32))
    net.bias = None
    assert [name for name, _ in net.named_parameters()] == ["weight"]
    del net.weight
    assert not list(net.parameters())


def test_sequential():
    layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)]
    net = nn.Sequential(*layers)
    x = nl.tensor(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(net(x).numpy(), layers[2](layers[1](layers[0](x))).numpy())
    assert len(net) == 3
    assert list(net) == layers
    assert net[-1] is layers[2]
    end = net[1:]
    assert isinstance(end, nn.Sequential)
    assert [name for name, _ in end.named_children()] == ["1", "2"]
    assert end.append(nn.Tanh()) is end
    assert [name for name, _ in end.named_children()] == ["1", "2", "3"]
    np.testing.assert_allclose(end(net[0](x)).numpy(), np.tanh(net(x).numpy()), rtol=1e-6)
    with pytest.raises(ConfigError, match="must be a Module"):
        end.append("tanh")
    named = nn.Sequential({"fc": layers[0], "act": layers[1]})
    assert [name for name, _ in named.named_parameters()] == ["fc.weight", "fc.bias"]
    assert named.fc is layers[0]
    for wrong in ({"a.b": nn.ReLU()}, {"forward": nn.ReLU()}, {"training": nn.ReLU()}):
        with pytest.raises(ConfigError, match="cannot name a module"):
            nn.Sequential(wrong)
    with pytest.raises(ConfigError, match="must be a Module"):
        nn.Sequential(nn.ReLU(), lambda x: x)


def test_the_display_is_a_tree():
    assert repr(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Sequential(nn.ReLU()))) == (
        "Sequential(\n  (0): Conv2d(3, 8, kernel_size=(3, 3), bias=False)\n"
        "  (1): Sequential(\n    (0): ReLU()\n  )\n)"
    )
    assert repr(nn.Linear(2, 3).freeze()) == "Linear(2, 3) frozen"


# ------------------------------------------------------------------------- saving and loading


def test_state_goes_round():
    net, other = Net(), Net()
    net(picture())  # running statistics move
    report = other.load_state_dict(net.state_dict())
    assert report == ([], [])
    for module in (net, other):
        module.eval()
    np.testing.assert_array_equal(net(picture()).numpy(), other(picture()).numpy())


def test_a_state_is_a_snapshot():
    net = nn.Linear(2, 2)
    state = net.state_dict()
    kept = state["weight"].copy()
    net.weight.writable()[...] = 5
    np.testing.assert_array_equal(state["weight"], kept)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in Net().state_dict().values())


def test_loading_names_everything_that_is_wrong_and_changes_nothing():
    net = Net()
    before = net.state_dict()
    state = {name: np.zeros_like(array) for name, array in before.items() if name != "stem.bias"}
    state["extra.weight"] = np.ones(2)
    state["head.3.weight"] = np.ones((7, 4))
    with pytest.raises(ModelError) as raised:
        net.load_state_dict(state)
    message = str(raised.value)
    assert "missing: stem.bias" in message
    assert "unexpected: extra.weight" in message
    assert "head.3.weight has shape [7, 4] but must be [5, 4]" in message
    with pytest.raises(ModelError, match=r"head\.3\.weight has shape") as raised:
        net.load_state_dict(state, strict=False)
    assert "missing" not in str(raised.value)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    del state["head.3.weight"]
    assert net.load_state_dict(state, strict=False) == (["stem.bias", "head.3.weight"], ["extra.weight"])
    assert net.state_dict()["stem.weight"].max() == 0
    np.testing.assert_array_equal(net.state_dict()["stem.bias"], before["stem.bias"])


def test_loading_converts_types_and_counts_as_a_change():
    net = nn.BatchNorm2d(3)
    state = {name: array.astype(np.float64) + 1 for name, array in net.state_dict().items()}
    net.load_state_dict({**state, "num_batches_tracked": np.array(5)})
    assert net.running_mean.dtype == np.float32
    assert net.running_mean.numpy().tolist() == [1, 1, 1]
    assert (net.weight.version, net.running_var.version) == (1, 1)


def test_pytorchs_state_fits():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2)
    )
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    expected = theirs(torch.tensor(picture().numpy())).detach().numpy()
    np.testing.assert_allclose(ours(picture()).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(duplicate):
    net = Net().eval()
    net.stem.freeze()
    other = duplicate(net)
    np.testing.assert_array_equal(net(picture()).numpy(), other(picture()).numpy())
    assert other.stem.frozen
    assert not other.head.frozen
    other.stem.weight.writable()[...] = 0
    assert np.abs(net.stem.weight.numpy()).max() > 0
    for (name, p), (same, q) in zip(net.named_parameters(), other.named_parameters(), strict=True):
        assert name == same
        assert p is not q
        assert layout.is_channels_last(q.numpy())


# ------------------------------------------------------------------------------------- modes


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert all(module.training for module in net.modules())


def test_zero_grad():
    net = Net()
    net(picture()).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def trainable(net: nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


def test_freezing_is_idempotent_and_takes_gradients_away():
    net = Net()
    everything = trainable(net)
    net(picture()).sum().backward()
    for _ in range(2):
        assert net.freeze() is net
        assert trainable(net) == set()
        assert all(p.grad is None for p in net.parameters())
        assert net.frozen
    net.head.unfreeze()
    assert trainable(net) == {"head.3.weight", "head.3.bias"}
    assert not net.frozen
    assert net.stem.frozen
    for _ in range(2):
        assert net.unfreeze() is net
        assert trainable(net) == everything


def test_freezing_by_name_and_without_what_is_below():
    net = Net()
    everything = trainable(net)
    net.freeze(keys="bias")
    assert trainable(net) == {name for name in everything if not name.endswith("bias")}
    net.unfreeze()
    net.freeze(recurse=False)
    assert trainable(net) == everything - {"scale"}
    net.freeze(keys=["weight", "scale"], strict=True)
    assert trainable(net) == {name for name in everything if name.endswith("bias")}
    with pytest.raises(ConfigError, match="Net has no parameter named nonsense"):
        net.freeze(keys=["nonsense", "bias"], strict=True)
    net.freeze(keys=["nonsense"])
    with pytest.raises(ConfigError, match="unfreeze"):
        net.unfreeze(recurse=False, keys="weight", strict=True)


def test_a_partly_frozen_network_computes_the_same_gradients_for_the_rest():
    net = Net().eval()
    net(picture()).sum().backward()
    full = {name: p.grad.numpy().copy() for name, p in net.named_parameters()}
    net.zero_grad()
    net.stem.freeze()
    net.blocks[0].freeze()
    net(picture()).sum().backward()
    for name, p in net.named_parameters():
        if name.startswith(("stem", "blocks.0")):
            assert p.grad is None
        else:
            np.testing.assert_array_equal(p.grad.numpy(), full[name])


def test_parameters_forget_what_a_constant_array_knows_and_keep_what_was_changed():
    source = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    same, changed = (nn.Parameter(source, constant=True) for _ in range(2))
    own = nn.Parameter(source)
    changed.writable()[...] = 7
    for parameter in (same, changed, own):
        parameter.forget()
    assert same.shape == source.shape and same.dtype == source.dtype
    np.testing.assert_array_equal(same.array, source)
    np.testing.assert_array_equal(changed.array, np.full_like(source, 7))
    np.testing.assert_array_equal(own.array, source)
    same.writable()[...] = 3
    same.forget()
    assert (same.array == 3).all() and source.max() == 5
    with pytest.raises(AttributeError, match="nothing"):
        _ = same.nothing


def test_forgetting_gives_memory_back():
    source = np.zeros((512, 512), np.float32)
    parameter = nn.Parameter(source, constant=True)
    held = memory.stats().current
    parameter.forget()
    assert memory.stats().current <= held - source.nbytes
