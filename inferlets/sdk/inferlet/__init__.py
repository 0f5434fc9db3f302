"""inferlet: the kit for writing inferlets in Python.

    from inferlet import Context, get_model, send

    async def main(args):
        context = Context(get_model())
        context.fill_user("What is the capital of France?")
        async for piece in context.generate(tokens_max=64).chunks():
            send(piece)

Everything waits with `await`; run several contexts at once with `asyncio.gather`.
"""

from inferlet import kvs
from inferlet.arguments import ArgumentParser
from inferlet.beam import Beam
from inferlet.brle import Brle, causal_mask
from inferlet.child import Child, ChildFailed, start_child
from inferlet.constraint import Constraint, Matcher
from inferlet.context import Context
from inferlet.errors import BudgetExceeded, Cancelled, OutOfPages, PassFailed, Refused, WorkerLost
from inferlet.fetch import FetchFailed, Response, fetch
from inferlet.forward import Distribution, ForwardPass, PassResult
from inferlet.generation import Drafter, Generation, Verified
from inferlet.messaging import Subscription, broadcast, receive, send, subscribe
from inferlet.model import Model, Tokenizer, get_model, get_models
from inferlet.queue import KvPage, Priority, Queue
from inferlet.runtime import get_instance_id, get_version, query, set_return
from inferlet.sampler import Sampler
from inferlet.stop import StopCondition, any_of, ends_with, max_tokens, stop_tokens
from inferlet.tasks import TaskGroup, task_group
from inferlet.text import TextStream

__all__ = [
    "ArgumentParser",
    "Beam",
    "Brle",
    "BudgetExceeded",
    "Cancelled",
    "Child",
    "ChildFailed",
    "Constraint",
    "Context",
    "Distribution",
    "Drafter",
    "FetchFailed",
    "ForwardPass",
    "Generation",
    "KvPage",
    "Matcher",
    "Model",
    "OutOfPages",
    "PassFailed",
    "PassResult",
    "Priority",
    "Queue",
    "Refused",
    "Response",
    "Sampler",
    "StopCondition",
    "Subscription",
    "TaskGroup",
    "TextStream",
    "Tokenizer",
    "Verified",
    "WorkerLost",
    "any_of",
    "broadcast",
    "causal_mask",
    "ends_with",
    "fetch",
    "get_instance_id",
    "get_model",
    "get_models",
    "get_version",
    "kvs",
    "max_tokens",
    "query",
    "receive",
    "send",
    "set_return",
    "start_child",
    "stop_tokens",
    "subscribe",
    "task_group",
]
