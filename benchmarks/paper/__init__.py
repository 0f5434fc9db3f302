"""The evaluation of the original system's paper, on our engine: `pie-trio bench paper`."""
