"""What Numba compiles for a GPU; imported when the first kernel is launched."""
