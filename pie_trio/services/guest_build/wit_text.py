"""Functions and types of a resolved WIT as WIT writes them, for comments in generated headers.

Pure: what `wasm-tools component wit --json` says goes in, one line of text comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def signature_text(resolved: Mapping[str, Any], function: Mapping[str, Any]) -> str:
    parameters = ", ".join(
        f"{parameter['name']}: {_wit_text(resolved, parameter['type'])}"
        for parameter in function["params"]
        if parameter["name"] != "self"
    )
    arrow = f" -> {_wit_text(resolved, function['result'])}" if "result" in function else ""
    name = re.sub(r"^\[(\w+)\]", "", function["name"])
    return f"{name}: func({parameters}){arrow}"


def _wit_text(resolved: Mapping[str, Any], wit: int | str | None) -> str:
    if wit is None:
        return "_"
    if isinstance(wit, str):
        return wit
    entry = resolved["types"][wit]
    if entry["name"]:
        return str(entry["name"])
    ((shape, content),) = entry["kind"].items()
    if shape == "handle":
        ((how, resource),) = content.items()
        text = _wit_text(resolved, resource)
        return f"borrow<{text}>" if how == "borrow" else text
    if shape == "tuple":
        return f"tuple<{', '.join(_wit_text(resolved, item) for item in content['types'])}>"
    if shape == "result":
        return (
            f"result<{_wit_text(resolved, content['ok'])}, {_wit_text(resolved, content['err'])}>"
        )
    return f"{shape}<{_wit_text(resolved, content)}>"
