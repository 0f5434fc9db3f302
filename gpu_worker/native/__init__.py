"""The kernels in C: how they are compiled, loaded and called.

`source/` holds them; they are compiled on the machine that runs them, on a worker's first start.
"""
