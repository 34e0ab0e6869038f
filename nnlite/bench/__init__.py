"""Measuring kernels, training steps and inference beside other engines, in one process."""

from __future__ import annotations

from nnlite.bench.cases import KERNEL_CASES, KernelCase
from nnlite.bench.machine import Machine, describe_machine
from nnlite.bench.row import Row
from nnlite.bench.run import bench

__all__ = ["KERNEL_CASES", "KernelCase", "Machine", "Row", "bench", "describe_machine"]
