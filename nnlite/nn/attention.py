"""Multi-head attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.nn.init import xavier_normal_, xavier_uniform_
from nnlite.nn.layers import Linear
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor, beside


def _blocked(mask: Tensor, dtype: Any) -> Tensor:
    """PyTorch's mask here says where attention is not allowed; as numbers to be added."""
    return Tensor(np.where(mask.array, -np.inf, 0.0).astype(dtype)) if mask.dtype == np.bool_ else mask


class MultiheadAttention(Module):
    """Attention of num_heads heads side by side: y = concat(heads) W_o, each head on embed_dim/num_heads.

    query [L,N,E], key [S,N,kdim] and value [S,N,vdim] (batch first if asked for, or without N); kdim and
    vdim are E by default. Returns the output and, with ``need_weights``, the weights [N,L,S] averaged over
    the heads. Masks that are True, and -inf in masks of numbers, keep a place out. ``add_bias_kv`` appends
    a learned key and value, ``add_zero_attn`` a key and value of zeros, which every query may see.
    Source: Vaswani et al. 2017, arXiv:1706.03762; torch.nn.MultiheadAttention.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ) -> None:
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ConfigError(
                f"MultiheadAttention: embed_dim={embed_dim} must be a multiple of num_heads={num_heads}"
            )
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.add_zero_attn = dropout, add_zero_attn
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = xavier_uniform_(Parameter(np.zeros((3 * embed_dim, embed_dim), np.float32)))
        else:
            sizes = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
            for name, size in sizes.items():
                weight = xavier_uniform_(Parameter(np.zeros((embed_dim, size), np.float32)))
                setattr(self, f"{name}_proj_weight", weight)
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            self.out_proj.bias.assign(np.zeros(embed_dim))
        self.bias_k: Parameter | None = None
        self.bias_v: Parameter | None = None
        if add_bias_kv:
            self.bias_k = xavier_normal_(Parameter(np.zeros((1, 1, embed_dim), np.float32)))
            self.bias_v = xavier_normal_(Parameter(np.zeros((1, 1, embed_dim), np.float32)))

    def _projected(self, x: Tensor, part: int) -> Tensor:
        """Projection number ``part`` of x [N,L,...] to [N,L,E]."""
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        own: Tensor | None = getattr(self, f"{'qkv'[part]}_proj_weight", None)
        return F.linear(x, self.in_proj_weight[rows] if own is None else own, bias)

    def _heads(self, x: Tensor) -> Tensor:
        """x [N,L,E] as [N,heads,L,E/heads]."""
        return x.reshape(0, 0, self.num_heads, self.embed_dim // self.num_heads).permute(0, 2, 1, 3)

    def _appended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [N,S,E] with those that every query may see."""
        batch = (k.shape[0], 1, self.embed_dim)
        if self.bias_k is not None and self.bias_v is not None:
            k = F.cat([k, F.expand(self.bias_k, batch)], 1)
            v = F.cat([v, F.expand(self.bias_v, batch)], 1)
        if self.add_zero_attn:
            zeros = beside(np.zeros(batch, k.dtype), k)
            k, v = F.cat([k, zeros], 1), F.cat([v, zeros], 1)
        return k, v

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
        widths = {"query": self.embed_dim, "key": self.kdim, "value": self.vdim}
        for (name, width), x in zip(widths.items(), (query, key, value), strict=True):
            if x.ndim != query.ndim or x.ndim not in (2, 3) or x.shape[-1] != width:
                raise ShapeError(
                    f"MultiheadAttention: {name} has shape {list(x.shape)} but must end in {width} and have "
                    "three axes, or two without a batch, as the others"
                )
        alone = query.ndim == 2
        if alone:
            query, key, value = (F.unsqueeze(x, 0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = F.unsqueeze(key_padding_mask, 0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._projected(x, i) for i, x in enumerate((query, key, value)))
        mask = self._mask(key_padding_mask, attn_mask, is_causal, q, k)
        k, v = self._appended(k, v)
        if mask is not None and (extra := k.shape[1] - key.shape[1]):
            mask = F.pad(mask, (0, extra))
        weights = F.attention_weights(self._heads(q), self._heads(k), mask)
        if self.dropout and self.training and not self.frozen:
            weights = F.dropout(weights, self.dropout)
        y = F.matmul(weights, self._heads(v)).permute(0, 2, 1, 3).flatten(2)
        y = self.out_proj(y)
        shown = weights.mean(1) if average_attn_weights else weights
        if alone:
            y, shown = F.squeeze(y, 0), F.squeeze(shown, 0)
        elif not self.batch_first:
            y = y.transpose(0, 1)
        return y, shown if need_weights else None

    def _mask(
        self, padding: Tensor | None, attn_mask: Tensor | None, is_causal: bool, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """All masks in one, to be added to the scores [N,heads,L,S] of q [N,L,E] and k [N,S,E]."""
        masks = []
        if attn_mask is not None:
            numbers = _blocked(attn_mask, q.dtype)
            several = numbers.ndim == 3  # [N·heads,L,S]
            masks.append(numbers.reshape(-1, self.num_heads, *numbers.shape[1:]) if several else numbers)
        if is_causal:
            later = Tensor(~np.tri(q.shape[1], k.shape[1], dtype=bool))
            masks.append(_blocked(later, q.dtype))
        if padding is not None:
            masks.append(_blocked(padding, q.dtype).reshape(-1, 1, 1, padding.shape[1]))
        return sum(masks[1:], masks[0]) if masks else None

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"{self.embed_dim}, {self.num_heads}, batch_first={self.batch_first}"
