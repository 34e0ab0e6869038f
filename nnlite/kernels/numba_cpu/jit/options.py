"""How kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

from nnlite.layout import Array

F = TypeVar("F", bound=Callable[..., Any])

# Of fast-math only contraction: a multiplication and the addition that follows become one FMA, which
# rounds once less and is what makes a convolution twice as fast. It never reorders a sum.
CONTRACT = {"contract"}


def parallel(function: F) -> F:
    """A kernel whose ``prange`` runs on Numba's threads; its machine code is cached on disk."""
    return cast(F, njit(parallel=True, cache=True, fastmath=CONTRACT, nogil=True)(function))


def helper(function: F) -> F:
    """What kernels of the same file call.

    Numba takes a file's cached code for good as long as that file does not change: helpers that lived
    in another file could change without their callers noticing.
    """
    return cast(F, njit(fastmath=CONTRACT, nogil=True)(function))


def _borrow(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = cgutils.create_struct_proxy(array)(context, builder, value=arguments[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()

    return array(array), generate


# The same array without an owner, for use within a kernel. A slice counts as a reference to the owner of
# its array, with an atomic operation on one counter that all threads share: with two threads a 1x1
# convolution ran at half the speed that it has with one. Slices of this are free.
borrow = cast(Callable[[Array], Array], intrinsic(_borrow))
