"""Arguments are PyTorch's: names, order and defaults, but for what is listed here as left out."""

from __future__ import annotations

import inspect
import re

import pytest

from nnlite import functional as F
from nnlite import nn, optim

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")

# Of PyTorch's own machinery, or long deprecated.
NEVER = {
    "size_average", "reduce", "out", "device", "dtype", "_stacklevel", "inplace", "foreach", "fused",
    "capturable", "differentiable", "generator", "last_epoch", "sparse", "sparse_grad",
    "_weight", "_freeze", "min_value", "max_value",
}  # fmt: skip
LEFT_OUT = {
    "embedding": {"scale_grad_by_freq"},
    "Embedding": {"scale_grad_by_freq"},
    "scaled_dot_product_attention": {"enable_gqa"},
    "round": {"decimals"},
    "Adam": {"decoupled_weight_decay"},
}
# The first operands, which everyone passes by position, have other names here.
OPERANDS = {
    "input", "x", "input1", "input2", "x1", "x2", "other", "a", "b", "logits", "indices", "tensor",
    "split_size_or_sections", "split_size", "dims", "axes", "repeats", "operands", "args", "split",
}  # fmt: skip
# What PyTorch leaves to a deprecated guess.
DEFAULTS = {"softmax": {"dim"}, "log_softmax": {"dim"}, "softmin": {"dim"}, "Softmax": {"dim"},
            "LogSoftmax": {"dim"}, "Softmin": {"dim"}, "topk": {"dim"}, "squeeze": {"dim"},
            "sort": {"stable"}, "argsort": {"stable"}, "ModuleList": {"modules"}}  # fmt: skip
BASES = ("Module", "Parameter", "Buffer", "Optimizer")
ARGUMENT = re.compile(r"(\w+)(?:\s*:[^,=]*)?(?:\s*=\s*([^,]+))?$")


def documented(function) -> dict[str, object]:
    """Arguments of a function that is not written in Python, from the first lines of its documentation."""
    text = (function.__doc__ or "").replace("\n", " ")
    match = re.match(r"\s*\w+\((.*?)\)(?: *->|   )", text)
    assert match, function
    result: dict[str, object] = {}
    for part in re.split(r",\s*(?![^\[(]*[\])])", match[1]):
        found = ARGUMENT.match(part.strip())
        if found:
            given = found[2]
            result[found[1]] = inspect.Parameter.empty if given is None else eval(given)
    return result


def arguments(function) -> dict[str, object]:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return documented(function)
    if [p.kind.name for p in parameters.values()] == ["VAR_POSITIONAL", "VAR_KEYWORD"]:
        return documented(function) if not isinstance(function, type) else {}
    return {name: p.default for name, p in parameters.items()}


PAIRS = [
    (name, ours, theirs)
    for ours_module, modules in [
        (F, (torch.nn.functional, torch)), (nn, (torch.nn,)), (nn.init, (torch.nn.init,)),
        (nn.utils, (torch.nn.utils,)), (optim, (torch.optim, torch.optim.lr_scheduler)),
    ]
    for name in sorted(getattr(ours_module, "__all__", vars(ours_module)))
    if callable(ours := getattr(ours_module, name)) and name not in BASES
    for theirs in [next((getattr(m, name) for m in modules if hasattr(m, name)), None)]
    if theirs is not None and not name.startswith("_")
]  # fmt: skip


def test_there_is_much_to_compare():
    assert len(PAIRS) > 250


@pytest.mark.parametrize(("name", "ours", "theirs"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_arguments_are_pytorchs(name, ours, theirs):
    mine, wanted = arguments(ours), arguments(theirs)
    ignored = NEVER | LEFT_OUT.get(name, set()) | OPERANDS
    expected = [key for key in wanted if key not in ignored]
    missing = [key for key in expected if key not in mine]
    assert not missing, f"missing: {missing}"
    assert [key for key in mine if key in expected] == expected, "in another order"
    for key in expected:
        if key not in DEFAULTS.get(name, set()):
            assert mine[key] == wanted[key], f"{key}: {mine[key]} instead of {wanted[key]}"
