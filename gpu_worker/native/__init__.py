"""The kernels in C: how they are compiled, loaded and called.

`source/` holds them; they are compiled when the package is installed, or on a worker's first start.
"""
