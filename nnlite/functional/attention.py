"""Attention."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np

from nnlite.errors import ShapeError
from nnlite.functional.activation import softmax
from nnlite.functional.arithmetic import where
from nnlite.functional.conv import matmul
from nnlite.functional.norm import dropout
from nnlite.tensors import Tensor


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ · scale + mask) for query [...,L,E], key [...,S,E]; see the function below."""
    if query.ndim < 2 or key.ndim < 2 or query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"attention: query {list(query.shape)} and key {list(key.shape)} must be [...,L,E] and [...,S,E]"
        )
    factor = 1 / sqrt(query.shape[-1]) if scale is None else scale
    scores = matmul(query * factor, key.transpose(-1, -2))
    if is_causal:
        allowed = np.tri(query.shape[-2], key.shape[-2], dtype=bool)
        scores = where(Tensor(allowed), scores, -inf)
    if attn_mask is not None:
        scores = where(attn_mask, scores, -inf) if attn_mask.dtype == np.bool_ else scores + attn_mask
    return softmax(scores, -1)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(query keyᵀ · scale + mask) value for query [...,L,E], key [...,S,E], value [...,S,V].

    ``scale`` is 1/√E by default. A mask [...,L,S] of truth values lets True take part, one of numbers is
    added; ``is_causal`` lets place l see places 0 to l. Source: Vaswani et al. 2017, arXiv:1706.03762.
    """
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return matmul(dropout(weights, dropout_p) if dropout_p else weights, value)
