"""agent-codeact: the model writes code, it runs in a sandbox here, the model reads the result."""

import ast
import re
from argparse import Namespace

from inferlet import ArgumentParser, Context, Refused, send, start_child

SYSTEM = "You answer by writing one short Python program in a code block. It prints the answer."
FUNCTIONS = (abs, divmod, enumerate, float, int, len, list, max, min, range, round, sorted, str)
ALLOWED = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.Name, ast.Constant, ast.Call, ast.For),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.If, ast.IfExp, ast.List, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Subscript, ast.Slice),
    *(ast.While, ast.Break, ast.Continue, ast.Pass),
)
CHARACTERS_MAX = 500


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("agent-codeact", "answers by writing code and running it")
    parser.add_argument("--question", default="What is 12 * 34 + 5?", help="the task")
    parser.add_number("--turns", 2, "at most so many programs")
    parser.add_argument("--code", action="append", help="a program in place of the model's")
    parser.add_number("--seconds", 5.0, "so long may a program run")
    parser.add_number("--max-tokens", 96, "at most so many a turn")
    parser.add_model("which model writes")
    parser.add_argument("--only-run", metavar="CODE", help="be the sandbox: run this, say no more")
    return parser.parse_args(args)


def run_here(code: str) -> str:
    """What the program prints. It has numbers, lists and a few functions, and nothing else."""
    said: list[str] = []
    functions: dict[str, object] = {function.__name__: function for function in FUNCTIONS}
    functions |= {"sum": sum, "print": lambda *values: said.append(" ".join(map(str, values)))}
    try:
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if not isinstance(node, ALLOWED):
                raise SyntaxError(f"{type(node).__name__} is not allowed here")
        exec(compile(tree, "answer.py", "exec"), {"__builtins__": functions})
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    return "\n".join(said)[:CHARACTERS_MAX].encode(errors="replace").decode()


async def run(code: str, seconds: float) -> str:
    """The same in a child: whatever the program does, it ends in time, and alone."""
    try:
        async with start_child("", "--only-run", code, deadline=seconds) as sandbox:
            return await sandbox.outcome()
    except Refused as end:
        return f"Error: {end}".splitlines()[0]


async def main(args: list[str]) -> dict[str, object] | str:
    wanted = read_arguments(args)
    if wanted.only_run is not None:
        return run_here(wanted.only_run)
    context = Context(wanted.model)
    context.fill_system(SYSTEM)
    context.fill_user(wanted.question)
    results = []
    for turn in range(wanted.turns):
        text = await context.generate(wanted.max_tokens).collect()
        scripted = (wanted.code or [])[turn : turn + 1]
        blocks = scripted or re.findall(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
        if not blocks:
            break
        results.append(await run(blocks[0], wanted.seconds))
        send(f"{blocks[0].strip()}\n-> {results[-1]}\n")
        context.fill_user(f"The program said: {results[-1]}")
    answer = await context.generate(wanted.max_tokens).collect()
    return {"results": results, "answer": answer}
