"""The table of everything: what must have a row, what its body is, and which test misses it.

`inventory` reads what exists, `rows` what is claimed, `taking_out` proves a claim on a copy of the
tree. Nothing here touches the working tree but the two files that it generates.
"""
