"""prefix-caching: computes a long system prompt once; later runs import its pages."""

from argparse import Namespace

from inferlet import ArgumentParser, Context, send

LABEL = "prefix-caching"
SYSTEM = (
    "You are the assistant of a small public library, and you answer its visitors. The library "
    "is open from nine to six on weekdays, from ten to two on Saturdays, and closed on Sundays. "
    "A visitor may borrow six books, two films and one board game at a time. Books may be kept "
    "for four weeks, films for one week, games for two weeks. Everything can be renewed twice, "
    "unless somebody else waits for it. What comes back late costs twenty cents a day for a "
    "book and fifty for a film or game. A lost item is replaced by its borrower, or paid for. "
    "Children under twelve pay nothing for delays. The reading room on the first floor is "
    "quiet; the cafe beside the entrance is not. Computers may be used for one hour a day with "
    "a library card, which is free for everybody who lives in the town. Rooms for groups are "
    "booked at the desk, at most two weeks ahead. Printing costs ten cents a page. Every first "
    "Tuesday of the month there is a reading for children, every third Thursday an evening for "
    "adults with an author. Books that we do not have can be ordered from other libraries, "
    "which takes about one week. Gifts of books are welcome if they are clean and not older "
    "than ten years. You answer in one or two short sentences, politely, and only from these "
    "rules. When the rules do not say, you say that you do not know and that the desk will "
    "help."
)


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("prefix-caching", "answers under a long system prompt, computed once")
    parser.add_argument("--prompt", default="How many books may I borrow?", help="the question")
    parser.add_model("which model answers")
    parser.add_number("--max-tokens", 64, "at most so many tokens")
    parser.add_argument("--invalidate", action="store_true", help="forget the prefix and end")
    return parser.parse_args(args)


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(wanted.model)
    context.fill_system(SYSTEM)
    if wanted.invalidate:
        return {"forgotten": await context.release_prefix(LABEL)}
    imported = await context.import_prefix(LABEL)
    tokens = imported or await context.export_prefix(LABEL)
    context.fill_user(wanted.prompt)
    answer = context.generate(wanted.max_tokens)
    async for piece in answer.chunks():
        send(piece)
    return {"prefix": "imported" if imported else "computed", "tokens": tokens, "text": answer.text}
