"""Where pie-trio keeps what it may rebuild: models, programs, compiled components.

One directory, private to its user, because compiled components are native code. Deleting it loses
nothing but time, except for programs that clients have installed and models added by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import platformdirs

ENVIRONMENT_VARIABLE = "PIE_TRIO_HOME"


@attrs.frozen
class Home:
    """The cache directory and its rooms; each room exists once it has been asked for."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        named = os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(Path(named) if named else platformdirs.user_cache_path("pie-trio"))

    @property
    def models(self) -> Path:
        return self._room("models")

    @property
    def programs(self) -> Path:
        return self._room("programs")

    @property
    def compiled(self) -> Path:
        return self._room("compiled")

    @property
    def interpreter(self) -> Path:
        return self._room("interpreter")

    @property
    def native(self) -> Path:
        return self._room("native")

    def _room(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
