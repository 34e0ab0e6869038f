"""A network for pictures of three channels made to take one or four."""

from __future__ import annotations

import numpy as np

from nnlite.device import CPU
from nnlite.errors import ModelError
from nnlite.graph.module import GraphModule


def adapt_stem(module: GraphModule, channels: int) -> None:
    """Change the first convolution's weights W [K,3,R,S] so that pictures have 1 or 4 ``channels``.

        1 channel    W' = Σ_c W_c                                   grey answers as equal R, G and B did
        4 channels   W'_c = ¾ W_c,  W'_4 = ¾ · (Σ_c W_c) / 3        so do four equal channels

    Raises ModelError where the input does not enter one plain convolution of three channels.
    """
    users = module.graph.users().get(module.graph.inputs[0], [])
    weight = users[0].inputs[1] if len(users) == 1 and users[0].op.name == "conv2d" else None
    array = (
        None if weight is None or weight not in module.graph.arrays else module.leaf(weight).to(CPU).numpy()
    )
    if weight is None or array is None or array.ndim != 4 or array.shape[1] != 3:
        raise ModelError(
            "the input does not enter one convolution of 3 channels; --channels cannot change it"
        )
    whole = array.sum(1, keepdims=True)
    adapted = whole if channels == 1 else 0.75 * np.concatenate([array, whole / 3], 1)
    module.replace_leaf(weight, adapted.astype(array.dtype))
    module.input_sizes = ((None, channels, *(module.input_sizes or ((None, None, None, None),))[0][2:]),)
