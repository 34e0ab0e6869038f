"""Windows as columns, and embeddings."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from nnlite import functional as F
from nnlite import random
from nnlite.errors import ConfigError, ShapeError
from nnlite.functional import Size
from nnlite.layout import Array
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor


class Unfold(Module):
    """Every window of x [N,C,H,W] as a column of y [N,C·R·S,P·Q]."""

    def __init__(self, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> None:
        self.options = (kernel_size, dilation, padding, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The columns."""
        return F.unfold(x, *self.options)


class Fold(Module):
    """Columns x [N,C·R·S,P·Q] added up as windows of y [N,C,*output_size]."""

    def __init__(
        self,
        output_size: Size,
        kernel_size: Size,
        dilation: Size = 1,
        padding: Size = 0,
        stride: Size = 1,
    ) -> None:
        self.options = (output_size, kernel_size, dilation, padding, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the windows."""
        return F.fold(x, *self.options)


E = TypeVar("E", bound="Embedding")


class Embedding(Module):
    """Rows of weight [num_embeddings, embedding_dim] by integers, drawn from a normal distribution.

    The row of ``padding_idx`` is 0 and stays so. With ``max_norm`` rows that are used are first shrunk to
    that norm (of order ``norm_type``), in the weight itself. Raises ConfigError for a size below 1.
    Source: op ``gather``; torch.nn.Embedding.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> None:
        if num_embeddings < 1 or embedding_dim < 1:
            raise ConfigError("Embedding: num_embeddings and embedding_dim must be at least 1")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ConfigError(f"Embedding: padding_idx={padding_idx} is not one of {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, max_norm, norm_type
        weight = random.generator().standard_normal((num_embeddings, embedding_dim))
        if padding_idx is not None:
            weight[padding_idx] = 0
        self.weight = Parameter(weight.astype(np.float32))

    @classmethod
    def from_pretrained(
        cls: type[E],
        embeddings: Tensor | Array,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> E:
        """A layer with given rows [num_embeddings, embedding_dim], frozen unless ``freeze`` is False."""
        if embeddings.ndim != 2:
            raise ShapeError(f"Embedding: embeddings {list(embeddings.shape)} must be rows of numbers")
        rows, width = embeddings.shape
        layer = cls(rows, width, padding_idx, max_norm, norm_type)
        layer.weight = Parameter(embeddings, requires_grad=not freeze)
        return layer

    def forward(self, indices: Tensor | Array) -> Tensor:
        """The rows that the integers name."""
        return F.embedding(indices, self.weight, self.padding_idx, self.max_norm, self.norm_type)

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        for name in ("padding_idx", "max_norm"):
            if getattr(self, name) is not None:
                text += f", {name}={getattr(self, name)}"
        return text
