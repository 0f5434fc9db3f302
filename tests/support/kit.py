"""The pure modules of the Python kit, under the Python that runs the tests.

The kit's package imports the host's bindings, which exist in a guest only, so an empty package with
the same path stands in for it: a module that is not pure fails to import.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

INFERLETS = Path(__file__).parents[2] / "inferlets"


def kit(module: str) -> ModuleType:
    package = ModuleType("inferlet")
    package.__path__ = [str(INFERLETS / "sdk" / "inferlet")]
    sys.modules.setdefault("inferlet", package)
    return importlib.import_module(f"inferlet.{module}")
