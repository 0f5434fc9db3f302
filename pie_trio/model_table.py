"""The models of one engine, made from its settings: files, tokenizer, template, launcher.

Owns nothing: what it makes belongs to the engine. Nothing is running yet when it returns, so a
model whose files are missing refuses here, before a worker has been started.
"""

from __future__ import annotations

from collections.abc import Callable

from pie_trio.config import ModelSettings, Settings
from pie_trio.ports import Ports
from pie_trio.served_model import ServedModel
from pie_trio.services.chat_template import ChatTemplate
from pie_trio.services.model_files import StoredModel
from pie_trio.services.model_store import DEFAULT_MODEL, ModelStore, pretend_model
from pie_trio.services.tokenizer import Tokenizer
from pie_trio.services.worker_link import WorkerLauncher, WorkerSpec

Progress = Callable[[str], None]


def open_models(
    settings: Settings,
    ports: Ports,
    store: ModelStore,
    launcher: WorkerLauncher,
    say: Progress,
) -> dict[str, ServedModel]:
    """One served model for each that the settings name; none of them has a worker yet."""
    models = {}
    for service_id, wanted in enumerate(settings.models):
        stored = _stored_model(store, wanted, say)
        spec = WorkerSpec(wanted, stored.path, settings.limits, ports)
        models[wanted.name] = ServedModel(
            spec,
            service_id,
            stored.facts.description,
            stored.facts.stop_tokens,
            ChatTemplate(stored.facts.chat_template),
            Tokenizer.from_file(stored.path / "tokenizer.json"),
            settings.batching,
            launcher,
        )
    return models


def _stored_model(store: ModelStore, wanted: ModelSettings, say: Progress) -> StoredModel:
    if wanted.pretend:
        return pretend_model()
    if wanted.name == DEFAULT_MODEL:
        return store.ensure_default(_by_stage(say))
    return store.open(wanted.name)


def _by_stage(say: Progress) -> Callable[[str, int, int], None]:
    """One line a stage of a conversion."""
    stages: list[str] = []

    def note(stage: str, _done: int, _total: int) -> None:
        if stage not in stages:
            stages.append(stage)
            say(f"converting the default model: {stage}")

    return note
