"""A plan reads an input where the caller has it if it lies as kernels want it, and never writes there."""

from __future__ import annotations

import numpy as np
import pytest
from planning import normal, traced

from nnlite import functional as F
from nnlite import nn
from nnlite.layout import channels_last


class Activations(nn.Module):
    """Elementwise steps, which overwrite their operand where it is the plan's own."""

    def __init__(self):
        self.conv = nn.Conv2d(5, 7, 3, padding=1)

    def forward(self, x):
        return F.relu(self.conv(F.silu(F.clamp(x, -1, 1)))), x.flatten(1) * 2.0


def orders(x):
    """``x`` in all sorts of memory."""
    n, c, h, w = x.shape
    last = channels_last(x).copy(order="K")
    unaligned = np.frombuffer(b"\0" + x.transpose(0, 2, 3, 1).tobytes(), np.uint8)[1:].view(x.dtype)
    frozen = last.copy(order="K")
    frozen.flags.writeable = False
    every_second = np.repeat(x.transpose(0, 2, 3, 1), 2, axis=3)[..., ::2]
    return {
        "channels last": last,
        "channels first": np.ascontiguousarray(x),
        "unaligned": unaligned.reshape(n, h, w, c).transpose(0, 3, 1, 2),
        "read-only": frozen,
        "with gaps": every_second.transpose(0, 3, 1, 2),
        "upside down": np.ascontiguousarray(x[::-1])[::-1],
    }


@pytest.mark.parametrize("shape", [(2, 5, 9, 8), (1, 5, 1, 1), (0, 5, 9, 8)])
def test_every_memory_order_gives_the_same_results_and_stays_as_it_was(shape):
    x = normal(*shape)
    module = traced(Activations(), shape)
    plan = module.compile()
    expected = module.run([x])
    for name, given in orders(x).items():
        before = given.copy()
        for _ in range(2):  # the second call runs steps that are kept
            results = plan.run(given)
            for one, other in zip(expected, results, strict=True):
                np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(given, before, name)


def test_the_next_call_reads_its_own_array():
    module = traced(Activations(), (2, 5, 9, 8))
    plan = module.compile()
    for seed in range(4):
        x = normal(2, 5, 9, 8) * (seed + 1)
        given = channels_last(x) if seed % 2 else np.ascontiguousarray(x)
        for one, other in zip(module.run([x]), plan.run(given), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_a_result_is_never_the_callers_array():
    class Same(nn.Module):
        def forward(self, x):
            return F.relu(x), x.flatten(1)

    x = channels_last(normal(2, 3, 1, 1))
    for result in traced(Same(), (2, 3, 1, 1)).compile().run(x):
        assert not np.may_share_memory(result, x)
