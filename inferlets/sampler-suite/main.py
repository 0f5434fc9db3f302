"""sampler-suite: draws with every sampler and compares with what each is defined to draw from."""

import asyncio
from argparse import Namespace
from collections import Counter

from inferlet import ArgumentParser, Context, Distribution, Sampler, send

PROMPT = "My favourite colour is"
HEAT = 0.7
REST = -1
SAMPLERS = {
    "greedy": Sampler.greedy(),
    "multinomial": Sampler.multinomial(HEAT),
    "top-k": Sampler.for_top_k(HEAT, 5),
    "top-p": Sampler.for_top_p(HEAT, 0.5),
    "min-p": Sampler.for_min_p(HEAT, 0.2),
    "top-k-top-p": Sampler.for_top_k_top_p(HEAT, 5, 0.5),
    "custom": Sampler.custom(lambda likely: likely.ids[1]),
}


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("sampler-suite", "checks every sampler against its definition")
    parser.add_number("--draws", 100, "so many tokens by each", least=1)
    parser.add_model("which model draws")
    return parser.parse_args(args)


def reference(name: str, sampler: Sampler, likely: Distribution) -> dict[int, float]:
    """The shares that the definition gives to each token; REST is all that is not listed."""
    if name in ("greedy", "custom"):
        return {likely.ids[name == "custom"]: 1.0}
    top = likely.probabilities[: sampler.top_k]
    whole = sum(top) if sampler.top_k else 1.0
    kept, mass = {}, 0.0
    for token, share in zip(likely.ids, top, strict=False):
        if share < (sampler.min_p or 0) * top[0] or mass >= (sampler.top_p or 2) * whole:
            break
        kept[token], mass = share, mass + share
    if name == "multinomial":
        kept[REST], mass = 1.0 - mass, 1.0
    return {token: share / mass for token, share in kept.items()}


async def draw(trunk: Context, sampler: Sampler, draws: int) -> Counter[int]:
    branch, drawn = trunk.fork(), Counter[int]()
    for _ in range(draws):
        drawn[await branch.decode_step(sampler)] += 1
        branch.truncate(len(trunk.tokens))
    return drawn


def compared(drawn: Counter[int], right: dict[int, float]) -> dict[str, float]:
    """How many draws cannot be, and half the sum of the differences of the shares."""
    listed = Counter({token: count for token, count in drawn.items() if token in right})
    rest = drawn.total() - listed.total()
    if REST in right:
        listed[REST], rest = rest, 0
    apart = (abs(listed[token] / drawn.total() - share) for token, share in right.items())
    return {"impossible": rest, "distance": round(sum(apart) / 2, 4)}


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    trunk = Context(wanted.model)
    trunk.fill(PROMPT)
    await trunk.flush()
    counts = await asyncio.gather(*(draw(trunk, s, wanted.draws) for s in SAMPLERS.values()))
    likely = await trunk.fork().decode_step_dist(HEAT)
    report: dict[str, object] = {}
    for (name, sampler), drawn in zip(SAMPLERS.items(), counts, strict=True):
        report[name] = compared(drawn, reference(name, sampler, likely))
        send(f"{name}: {report[name]}\n")
    return report
