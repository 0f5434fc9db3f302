"""What contexts do beyond reading and writing: guesses, hiding, dropping, keeping, beams.

On a whole engine with a pretend worker: its tokens are a checksum of what a pass reads through its
pages, so text that is the same twice was computed from the same tokens in the same places.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.test_inferlet_pretend import error_of, value_of, write
from tests.world import open_world

FILLED = """
def filled(tokens):
    context = Context(get_model())
    context.fill_tokens(tokens)
    return context

async def steps(context, count):
    return [await context.decode_step() for _ in range(count)]

"""


@pytest.mark.parametrize("kept", [32, 35, 47, 48, 50])
async def test_a_context_cut_anywhere_goes_on_as_if_the_rest_had_never_been(
    kept: int, tmp_path: Path
) -> None:
    body = f"""{FILLED}
cut, other = filled(range(60, 110)), filled(range(60, 60 + {kept}))
await cut.flush()
cut.truncate({kept})
kept = cut.sequence.held
return [await steps(cut, 20), await steps(other, 20), kept]
"""
    cut, other, held = await value_of(tmp_path, body)
    assert cut == other
    assert held == kept - 1, "a page of its own is cut, not computed anew"


async def test_a_page_that_a_fork_shares_is_not_written_again(tmp_path: Path) -> None:
    body = f"""{FILLED}
trunk = filled(range(60, 110))
await trunk.flush()
branch = trunk.fork()
trunk.truncate(40)
trunk.fill_tokens([7] * 12)
return [await steps(trunk, 4), await steps(branch, 4), await steps(filled(range(60, 110)), 4)]
"""
    trunk, branch, alone = await value_of(tmp_path, body)
    assert branch == alone
    assert trunk != alone


async def test_contexts_that_refer_to_themselves_are_collected_with_their_pages(
    tmp_path: Path,
) -> None:
    """The collector closes a queue and its pages in an order that nobody knows."""
    body = f"""{FILLED}
import gc
for number in range(20):
    context = filled(range(60, 110))
    await context.flush()
    context.myself = [context, context.fork()]
    generation = context.generate(4)
    await generation.collect()
    generation.context, generation.itself = context, generation
    del context, generation
    gc.collect()
pages = get_model().create_queue().allocate_pages(510)  # of 512
return len(pages)
"""
    assert await value_of(tmp_path, body) == 510


@pytest.mark.parametrize("right", [0, 1, 3, 5])
async def test_guesses_change_no_token(right: int, tmp_path: Path) -> None:
    """The first `right` guesses are what the model says, the others are not."""
    body = f"""{FILLED}
truth = await steps(filled(range(60, 100)), 12)
guessing = filled(range(60, 100))
guesses = truth[:{right}] + [token + 1 for token in truth[{right}:5]]
first = (await guessing.verify(guesses)).tokens
return [truth, first, await steps(guessing, 12 - len(first))]
"""
    truth, first, rest = await value_of(tmp_path, body)
    assert first + rest == truth
    assert len(first) == right + 1


async def test_a_drafter_changes_no_text(tmp_path: Path) -> None:
    body = f"""{FILLED}
plain = filled(range(60, 100)).generate(24)
await plain.collect()
right = iter(plain.tokens)
asked = []

def draft(tokens):
    asked.append(len(tokens))
    written = len(tokens) - 40
    return plain.tokens[written : written + 2] + [1]

drafted = filled(range(60, 100))
text = await drafted.generate(24, drafter=draft).collect()
return [plain.text, text, len(asked), drafted.tokens[40:], plain.tokens]
"""
    plain, drafted, asked, kept, tokens = await value_of(tmp_path, body)
    assert plain == drafted
    assert asked == 8, "each pass brings two guesses and one token more"
    assert kept == tokens, "what was written beyond the limit is forgotten"


async def test_a_custom_sampler_chooses_here(tmp_path: Path) -> None:
    body = f"""{FILLED}
likeliest = Sampler.custom(lambda distribution: distribution.ids[0])
second = Sampler.custom(lambda distribution: distribution.ids[1], top_k=2)
context, other = filled(range(60, 100)), filled(range(60, 100))
shown = await other.decode_step_dist(top_k=2)
return [await context.decode_step(second), shown.ids, shown.probability(shown.ids[1])]
"""
    chosen, ids, probability = await value_of(tmp_path, body)
    assert chosen == ids[1]
    assert 0 < probability < 1


async def test_a_pass_that_was_executed_is_empty_and_may_be_described_anew(tmp_path: Path) -> None:
    body = """
queue = get_model().create_queue()
(page,) = queue.allocate_pages(1)
one = queue.forward_pass()
found = []
for place, sampler in enumerate([Sampler(logprobs=2), Sampler.custom(lambda d: 7), Sampler()]):
    for again in (one, queue.forward_pass()):
        again.kv_cache([page], place + 1)
        again.input_tokens([60 + place], [place])
        again.output_tokens([0], sampler)
        result = await again.execute()
        found.append([result.tokens, len(result.distributions), len(result.logprobs)])
return found
"""
    found = await value_of(tmp_path, body)
    assert found[::2] == found[1::2]
    assert [each[1:] for each in found[::2]] == [[0, 1], [1, 0], [0, 0]]


async def test_a_pass_that_was_never_sent_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    """Its description ends where the engine refuses more log-probabilities than there may be."""
    body = f"""{FILLED}
context, other = filled(range(60, 77)), filled(range(60, 77))
found = [await steps(context, 2), await steps(other, 2)]
try:
    await context.decode_step(Sampler(logprobs=100_000))
except Exception as error:
    found.append(str(error))
return [*found, await steps(context, 3), await steps(other, 3)]
"""
    begun, other_begun, error, after, other_after = await value_of(tmp_path, body)
    assert "logprobs_max" in error
    assert begun == other_begun
    assert after == other_after


async def test_a_hidden_token_no_longer_counts(tmp_path: Path) -> None:
    body = f"""{FILLED}
def hiding(token):
    context = filled(list(range(60, 70)) + [token] + list(range(70, 90)))
    context.mask_tokens(10, 11)
    return context

seen = filled(list(range(60, 70)) + [33] + list(range(70, 90)))
return [await steps(each, 6) for each in (hiding(33), hiding(44), seen)]
"""
    one, other, seen = await value_of(tmp_path, body)
    assert one == other
    assert one != seen


async def test_dropping_hidden_pages_gives_them_back_and_changes_no_token(tmp_path: Path) -> None:
    body = f"""{FILLED}
async def hiding(drop):
    context = filled(range(60, 160))
    await context.flush()
    context.mask_tokens(10, 70)
    dropped = context.drop_masked_pages() if drop else 0
    sequence = context.sequence
    return dropped, len(sequence.pages), await steps(context, 20), sequence.positions[-1]

return [await hiding(True), await hiding(False)]
"""
    dropping, keeping = await value_of(tmp_path, body)
    assert dropping[0] == 3
    assert dropping[1] == keeping[1] - 3
    assert dropping[2:] == keeping[2:]


async def test_a_token_with_a_row_of_its_own_sees_that_row(tmp_path: Path) -> None:
    body = f"""{FILLED}
async def last_sees(token):
    context = filled([65, token, 67, 68])
    context.fill_tokens([69], rows=[Brle([1, 1, 2])])
    return await context.decode_step()

plain = await filled([65, 99, 67, 68, 69]).decode_step()
return [await last_sees(98), await last_sees(99), plain]
"""
    one, other, plain = await value_of(tmp_path, body)
    assert one == other
    assert other != plain


@pytest.mark.parametrize("call", ["mask_tokens(3, 99)", "fill_tokens([1], positions=[1, 2])"])
async def test_a_call_that_makes_no_sense_is_refused(call: str, tmp_path: Path) -> None:
    assert "Error" in await error_of(tmp_path, f"{FILLED}\nfilled([1, 2, 3, 4]).{call}")


async def test_a_saved_context_goes_on_in_another_program(tmp_path: Path) -> None:
    save = f"""{FILLED}
context = filled(range(60, 160))
await context.flush()
context.mask_tokens(5, 40)
context.drop_masked_pages()
context.fill_tokens([50, 51])
await context.save("notes")
return await steps(context, 8)
"""
    read = """
context = await Context.open(get_model(), "notes")
held = context.sequence.held
return [held, [await context.decode_step() for _ in range(8)]]
"""
    async with open_world(tmp_path / "home") as world:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        saved = await world.run(write(tmp_path / "one", save))
        first = await world.run(write(tmp_path / "two", read))
        again = await world.run(write(tmp_path / "two", read))
    assert saved.error is None, saved.error
    assert first.value == f"[80, {saved.value}]"
    assert again.value == first.value, "what one program writes behind it is not the other's"


async def test_what_was_never_saved_is_not_found(tmp_path: Path) -> None:
    assert await value_of(tmp_path, 'return await Context.open(get_model(), "no") is None')


async def test_a_beam_of_one_is_greedy(tmp_path: Path) -> None:
    body = f"""{FILLED}
greedy = await steps(filled(range(60, 100)), 10)
best = await filled(range(60, 100)).beam_search(1, 10, stop=max_tokens(10))
return [greedy, best.tokens]
"""
    greedy, best = await value_of(tmp_path, body)
    assert greedy == best


async def test_the_score_of_a_beam_is_that_of_its_tokens(tmp_path: Path) -> None:
    """The likeliest way is never lost, and the context that was searched from stays as it is."""
    body = f"""{FILLED}
async def rescored(tokens):
    context, shares = filled(range(60, 100)), []
    for token in tokens:
        shares.append((await context.decode_step_dist(top_k=8)).probability(token))
        context.fill_tokens([token])
    return shares

start = filled(range(60, 100))
wide = await start.beam_search(4, 6, stop=max_tokens(6))
narrow = await start.beam_search(1, 6, stop=max_tokens(6))
is_untouched = list(start.tokens) == list(range(60, 100))
return [wide.score, narrow.score, await rescored(wide.tokens), is_untouched]
"""
    wide, narrow, shares, is_untouched = await value_of(tmp_path, body)
    assert math.isclose(wide, narrow)
    assert math.isclose(wide, sum(map(math.log, shares)), rel_tol=1e-4)
    assert is_untouched


async def test_a_failing_branch_stops_its_siblings(tmp_path: Path) -> None:
    body = """
ended = []

async def branch(fails):
    context = Context(get_model())
    context.fill("hello")
    try:
        await context.generate(4 if fails else 4000).collect()
    finally:
        ended.append(fails)
    if fails:
        raise LookupError("nothing found")

try:
    async with asyncio.TaskGroup() as branches:
        for fails in (False, True, False):
            branches.create_task(branch(fails))
except* LookupError as failures:
    reason = str(failures.exceptions[0])
return [reason, sorted(ended)]
"""
    reason, ended = await value_of(tmp_path, body)
    assert reason == "nothing found"
    assert ended == [False, False, True]


async def test_a_score_is_the_probability_that_was_told(tmp_path: Path) -> None:
    body = f"""{FILLED}
import json
import math
tokens = await steps(filled(range(60, 100)), 6)
scored, told = filled(range(60, 100)), []
await scored.flush()
scores = await scored.score(tokens)
asked = filled(range(60, 100))
for token in tokens:
    told.append(math.log((await asked.decode_step_dist()).probability(token)))
    asked.fill_tokens([token])
same_tokens = list(scored.tokens) == list(asked.tokens)
return [scores, told, same_tokens, await steps(scored, 3) == await steps(asked, 3)]
"""
    scores, told, same_tokens, goes_on = await value_of(tmp_path, body)
    assert scores == pytest.approx(told)
    assert same_tokens
    assert goes_on


async def test_before_each_step_a_context_may_forget(tmp_path: Path) -> None:
    """A window over what is read: the same as by hand."""
    body = f"""{FILLED}
by_hand, generated = filled(range(60, 160)), filled(range(60, 160))

def forget(context):
    context.mask_tokens(0, len(context.tokens) - 20)
    context.drop_masked_pages()

tokens = []
for _ in range(40):
    forget(by_hand)
    tokens.append(await by_hand.decode_step())
generation = generated.generate(40, stop=max_tokens(40), before_step=lambda: forget(generated))
await generation.collect()
return [tokens, generation.tokens, len(generated.sequence.pages)]
"""
    by_hand, generated, pages = await value_of(tmp_path, body)
    assert by_hand == generated
    assert pages <= 3


async def test_the_start_of_an_answer_is_read_behind_its_question(tmp_path: Path) -> None:
    body = """
context = Context(get_model())
context.fill_user("hello")
context.fill("Thought:")
first = await context.generate(8, stop=max_tokens(8)).collect()
context.fill("Observation:")
second = await context.generate(8, stop=max_tokens(8)).collect()
context.fill_user("more")
await context.flush()
return [context.model.tokenizer.decode(context.tokens), first, second]
"""
    whole, first, second = await value_of(tmp_path, body)
    answer = f"Thought:{first}Observation:{second}"
    assert whole.index("hello") < whole.index(answer) < whole.index("more")


async def test_tokens_behind_messages_wait_for_a_flush(tmp_path: Path) -> None:
    body = "context = Context(get_model())\ncontext.fill_user('hello')\ncontext.fill_tokens([1])"
    assert "await flush() first" in await error_of(tmp_path, body)


async def test_a_fork_computes_nothing_again(tmp_path: Path) -> None:
    body = f"""{FILLED}
trunk = filled(range(60, 103))
await trunk.flush()
branches = [trunk.fork() for _ in range(2)]
held = [branch.sequence.held for branch in branches]
branches[0].fill_tokens([7])
return [held, await steps(branches[0], 7), await steps(filled([*range(60, 103), 7]), 7),
        await steps(trunk, 7), await steps(branches[1], 7)]
"""
    held, forked, alone, trunk, twin = await value_of(tmp_path, body)
    assert held == [42, 42]
    assert forked == alone
    assert trunk == twin


async def test_a_program_in_c_is_told_that_there_are_no_pages(tmp_path: Path) -> None:
    async with open_world(tmp_path, pages=4) as world:
        end = await world.run("text-completion", "--prompt", "long " * 60, "--max-tokens", "3")
    assert end.error == "out of pages"


async def test_a_program_can_catch_that_there_are_no_pages(tmp_path: Path) -> None:
    body = """
model = get_model()
context, spare = Context(model), model.create_queue().allocate_pages(3)
context.fill_tokens(range(60, 90))
try:
    await context.decode_step()
except OutOfPages as error:
    seen = [error.needed, error.free, error.held_by_you, error.capacity]
del spare
return [seen, await context.decode_step() > 0]
"""
    async with open_world(tmp_path / "home", pages=4) as world:
        end = await world.run(write(tmp_path, body))
    assert end.error is None, end.error
    assert json.loads(end.value) == [[2, 1, 3, 4], True]
