"""One defect as a patch of the source: where, what, why it is wrong, and where it was seen.

Pure data and text. A patch that does not fit today's source is an error, never a mutant that does
nothing. Nothing here touches a file or an imported module.
"""

from __future__ import annotations

import attrs


class PatchDoesNotFit(Exception):
    """The text to be replaced does not occur exactly once."""


@attrs.frozen
class Mutant:
    """A defect that somebody made once, or could make tomorrow."""

    name: str
    file: str  # from the root of the repository
    before: str
    after: str
    why: str  # what goes wrong, told as a fact
    source: str  # where it was seen: our own history, a public bug, the contract
    ground: str = ""  # the scenario in which it is hunted; none: that of its area

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")

    def apply(self, text: str) -> str:
        """The source with the defect. Raises `PatchDoesNotFit`."""
        found = text.count(self.before)
        if found != 1:
            raise PatchDoesNotFit(f"{self.name}: its text occurs {found} times in {self.file}")
        return text.replace(self.before, self.after)
