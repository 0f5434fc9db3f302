"""What the engines are asked: questions with long answers, as text and as the model's tokens."""

from __future__ import annotations

from pathlib import Path

from pie_trio.services.chat_template import ChatTemplate
from pie_trio.services.model_files import open_model
from pie_trio.services.tokenizer import Tokenizer

TOPICS = (
    "the sea", "bread", "bridges", "the moon", "clocks", "forests", "glass", "trains",
    "honey", "maps", "rivers", "paper", "whales", "volcanoes", "chess", "cotton",
    "libraries", "snow", "bicycles", "salt", "gardens", "kites", "tea", "mountains",
    "lighthouses", "copper", "owls", "theatre", "deserts", "rain", "canals", "music",
)  # fmt: skip


def questions(count: int) -> list[str]:
    topics = [TOPICS[index % len(TOPICS)] for index in range(count)]
    return [f"Write a long and detailed story about {topic}." for topic in topics]


def tokens_of(model: Path, texts: list[str]) -> list[list[int]]:
    """As the shipped text completion hands them to the model."""
    stored = open_model(model)
    template = ChatTemplate(stored.facts.chat_template)
    rendered = [
        template.render([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in texts
    ]
    tokenizer = Tokenizer.from_file(model / "tokenizer.json")
    return [tokenizer.encode(each) for each in rendered]
