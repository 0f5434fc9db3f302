"""What one instance tells, shown as it comes, and what can be said about it when it has ended.

It owns the text shown so far and the times of its first and last piece. Tokens are counted by the
model's tokenizer where one is at hand; otherwise pieces are counted, and called pieces.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pie_trio.cli.output import Output


@attrs.define(eq=False)
class Transcript:
    """Shows events; the return value too, unless it repeats what was shown."""

    output: Output
    now: Callable[[], float]
    started_at: float
    text: list[str] = attrs.field(factory=list, init=False)
    first_at: float | None = attrs.field(default=None, init=False)
    last_at: float = attrs.field(default=0.0, init=False)

    def show(self, kind: str, value: str, data: bytes = b"") -> None:
        match kind:
            case "message":
                self._piece(value)
            case "stdout":
                self.output.piece(value)
            case "stderr":
                self.output.complaint_of_guest(value)
            case "file":
                self.output.say(f"received a file of {len(data)} bytes (not kept)")
            case "return" if value and value.strip() != "".join(self.text).strip():
                self.output.line(value)
            case "return" | "error":
                self.output.end_line()
            case _:
                self.output.say(f"{kind}: {value}")

    def closing_line(self, outcome: str, count: Callable[[str], int] | None = None) -> str:
        """Time to the first token, tokens a second, how the instance ended."""
        if self.first_at is None:
            return f"no message · {outcome} after {self.now() - self.started_at:.2f} s"
        amount = count("".join(self.text)) if count is not None else len(self.text)
        at_first = count(self.text[0]) if count is not None else 1
        unit = "token" if count is not None else "piece"
        first = self.first_at - self.started_at
        rate = _rate(amount - at_first, self.last_at - self.first_at, unit)
        return f"first {unit} after {first:.2f} s · {amount} {unit}s · {rate} · {outcome}"

    def _piece(self, text: str) -> None:
        self.last_at = self.now()
        if self.first_at is None:
            self.first_at = self.last_at
        self.text.append(text)
        self.output.piece(text)


def _rate(amount: int, duration: float, unit: str) -> str:
    """Of what came after the first piece: neither the prompt nor a long first piece counts."""
    if amount < 1 or duration <= 0:
        return "too few to tell a rate"
    return f"{amount / duration:.1f} {unit}s a second"
