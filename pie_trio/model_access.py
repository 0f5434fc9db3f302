"""One model as its instance sees it: the `ModelHandle` that host functions use."""

from __future__ import annotations

import json

import trio

from pie_trio.errors import GuestFault
from pie_trio.handles import ModelFacts, TokenizerLike
from pie_trio.instance_scope import InstanceScope
from pie_trio.queue_access import InstanceQueue
from pie_trio.served_model import ServedModel
from pie_trio.services.grammar import Grammar, GrammarKind


class InstanceModel:
    """Implements `handles.ModelHandle`."""

    def __init__(self, model: ServedModel, scope: InstanceScope) -> None:
        self.model = model
        self.scope = scope

    @property
    def facts(self) -> ModelFacts:
        return self.model.facts

    @property
    def tokenizer(self) -> TokenizerLike:
        return self.model.tokenizer

    def render_chat(self, request_json: str) -> str:
        try:
            request = json.loads(request_json)
            messages = request["messages"]
            add_prompt = bool(request.get("add_generation_prompt", True))
            if not isinstance(messages, list):
                raise TypeError("messages is not a list")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise GuestFault(
                f'render-chat wants {{"messages": [...], "add_generation_prompt": true}}: {error!r}'
            ) from error
        return self.model.template.render(messages, add_prompt)

    async def compile_grammar(self, kind: GrammarKind, source: str) -> Grammar:
        """In a thread, which is bounded and ends also when its instance is gone."""
        model = self.model
        return await trio.to_thread.run_sync(
            model.grammars.compile, kind, source, self.facts.vocab_size, limiter=model.compiling
        )

    def create_queue(self) -> InstanceQueue:
        number = self.scope.queues_opened
        self.scope.queues_opened += 1
        return InstanceQueue(self, number)
