"""How the border is compiled.

Owns nothing but the recipe. An installation runs this file by its path, before there is any
package: it must never import anything that needs more than Python.
"""

from pathlib import Path
from typing import Final

from gpu_worker.c_library import Recipe

BORDER: Final = Recipe(
    "border",
    Path(__file__).parent,
    ("-O2", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"),
)
