"""speculative-decoding: what followed these words before is guessed to follow them again."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Sequence

from inferlet import ArgumentParser, Context, send

PROMPT = "Print the word hello ten times."


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("speculative-decoding", "guesses by n-grams, and writes the same text")
    parser.add_argument("--prompt", default=PROMPT, help="the question")
    parser.add_number("--look-back", 1, "tokens that must be the same", least=1)
    parser.add_number("--look-ahead", 4, "at most so many guesses")
    parser.add_number("--memory", 1000, "so many places are remembered")
    parser.add_number("--max-tokens", 256, "at most so many tokens")
    parser.add_model("which model writes")
    return parser.parse_args(args)


class Ngrams:
    """Where each few tokens were seen last; the longest unused are forgotten first."""

    def __init__(self, look_back: int, look_ahead: int, memory: int) -> None:
        self._look_back, self._look_ahead, self._memory = look_back, look_ahead, memory
        self._places: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._read = look_back
        self.passes = 0

    def draft(self, tokens: Sequence[int]) -> Sequence[int]:
        self.passes += 1
        for end in range(self._read, len(tokens)):
            key = tuple(tokens[end - self._look_back : end])
            self._places[key] = end
            self._places.move_to_end(key)
            if len(self._places) > self._memory:
                self._places.popitem(last=False)
        self._read = max(len(tokens), self._look_back)
        place = self._places.get(tuple(tokens[-self._look_back :]))
        return tokens[place : place + self._look_ahead] if place else ()


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_user(wanted.prompt)
    await context.flush()
    ngrams = Ngrams(wanted.look_back, wanted.look_ahead, wanted.memory)
    answer = context.generate(wanted.max_tokens, drafter=ngrams.draft)
    async for piece in answer.chunks():
        send(piece)
    return {"text": answer.text, "tokens": len(answer.tokens), "passes": ngrams.passes}
