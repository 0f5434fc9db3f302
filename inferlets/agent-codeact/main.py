"""agent-codeact: the model writes code, it runs in a sandbox here, the model reads the result."""

import ast
import re
from argparse import Namespace

from inferlet import ArgumentParser, Context, get_model, send

SYSTEM = "You answer by writing one short Python program in a code block. It prints the answer."
FUNCTIONS = (abs, divmod, enumerate, float, int, len, list, max, min, round, sorted, str, sum, zip)
ALLOWED = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.Name, ast.Constant, ast.Call, ast.For),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.If, ast.IfExp, ast.List, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Subscript, ast.Slice),
)
REFUSED = (ast.Pow, ast.LShift)  # numbers as long as the memory
STEPS_MAX, CHARACTERS_MAX = 1000, 500


def read_arguments(args: list[str]) -> Namespace:
    parser = ArgumentParser("agent-codeact", "answers by writing code and running it")
    parser.add_argument("--question", default="What is 12 * 34 + 5?", help="the task")
    parser.add_argument("--turns", type=int, default=2, help="at most so many programs")
    parser.add_argument("--code", action="append", help="a program in place of the model's")
    parser.add_argument("--max-tokens", type=int, default=96, help="at most so many a turn")
    parser.add_argument("--model", help="which model writes (default: the first)")
    return parser.parse_args(args)


def run(code: str) -> str:
    """What the program prints. It has numbers, lists and a few functions, and nothing else."""
    said: list[str] = []
    functions: dict[str, object] = {function.__name__: function for function in FUNCTIONS}
    functions |= {"print": lambda *values: said.append(" ".join(map(str, values)))}
    functions |= {"range": lambda *ends: range(*ends)[:STEPS_MAX]}
    try:
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if not isinstance(node, ALLOWED) or isinstance(node, REFUSED):
                raise SyntaxError(f"{type(node).__name__} is not allowed here")
        exec(compile(tree, "answer.py", "exec"), {"__builtins__": functions})
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
    return "\n".join(said)[:CHARACTERS_MAX]


async def main(args: list[str]) -> dict[str, object]:
    wanted = read_arguments(args)
    context = Context(get_model(wanted.model))
    context.fill_system(SYSTEM)
    context.fill_user(wanted.question)
    results = []
    for turn in range(wanted.turns):
        text = await context.generate(wanted.max_tokens).collect()
        scripted = (wanted.code or [])[turn : turn + 1]
        blocks = scripted or re.findall(r"```(?:python)?\n(.*?)(?:```|\Z)", text, re.DOTALL)
        if not blocks:
            break
        results.append(run(blocks[0]))
        send(f"{blocks[0].strip()}\n-> {results[-1]}\n")
        context.fill_user(f"The program said: {results[-1]}")
    answer = await context.generate(wanted.max_tokens).collect()
    return {"results": results, "answer": answer}
