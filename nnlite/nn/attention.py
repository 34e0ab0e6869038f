"""Multi-head attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.nn.init import xavier_uniform_
from nnlite.nn.layers import Linear
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor


def _blocked(mask: Tensor) -> Tensor:
    """PyTorch's mask here says where attention is not allowed; as numbers to be added."""
    return Tensor(np.where(mask.numpy(), -np.inf, 0.0).astype(np.float32)) if mask.dtype == np.bool_ else mask


class MultiheadAttention(Module):
    """Attention of num_heads heads side by side: y = concat(heads) W_o, each head on embed_dim/num_heads.

    query [L,N,E], key and value [S,N,E] (batch first if asked for). Returns the output and, with
    ``need_weights``, the weights [N,L,S] averaged over the heads. Masks that are True, and -inf in masks
    of numbers, keep a place out. Source: Vaswani et al. 2017, arXiv:1706.03762; torch.nn.MultiheadAttention.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        batch_first: bool = False,
    ) -> None:
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ConfigError(
                f"MultiheadAttention: embed_dim={embed_dim} must be a multiple of num_heads={num_heads}"
            )
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.dropout = dropout
        self.in_proj_weight = xavier_uniform_(Parameter(np.zeros((3 * embed_dim, embed_dim), np.float32)))
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            self.out_proj.bias.assign(np.zeros(embed_dim))

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """Projection number ``part`` of x [N,L,E] as [N,heads,L,E/heads]."""
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        y = F.linear(x, self.in_proj_weight[rows], bias)
        return y.reshape(0, 0, self.num_heads, self.embed_dim // self.num_heads).permute(0, 2, 1, 3)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Any:
        """The output and the weights (None without ``need_weights``).

        ``key_padding_mask`` [N,S], ``attn_mask`` [L,S] or [N·heads,L,S]; ``is_causal`` lets place l see
        places 0 to l.
        """
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x.ndim != 3 or x.shape[2] != self.embed_dim:
                raise ShapeError(
                    f"MultiheadAttention: {name} has shape {list(x.shape)} but must have three axes, the "
                    f"last of size {self.embed_dim}"
                )
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._heads(x, i) for i, x in enumerate((query, key, value)))
        mask = None if attn_mask is None else _blocked(attn_mask)
        if mask is not None and mask.ndim == 3:
            mask = mask.reshape(-1, self.num_heads, *mask.shape[1:])
        if key_padding_mask is not None:
            padding = _blocked(key_padding_mask).reshape(-1, 1, 1, key_padding_mask.shape[1])
            mask = padding if mask is None else mask + padding
        weights = F.attention_weights(q, k, mask, is_causal)
        if self.dropout and self.training and not self.frozen:
            weights = F.dropout(weights, self.dropout)
        y = F.matmul(weights, v).permute(0, 2, 1, 3).flatten(2)
        y = self.out_proj(y)
        if not self.batch_first:
            y = y.transpose(0, 1)
        if not need_weights:
            return y, None
        return y, weights.mean(1) if average_attn_weights else weights

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.embed_dim}, {self.num_heads}, batch_first={self.batch_first}"
