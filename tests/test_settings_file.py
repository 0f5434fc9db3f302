"""The configuration file: what is refused, and how the refusal helps."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from pie_trio.config import BatchTrigger, Limits, Numeric, Settings
from pie_trio.errors import BadConfig
from pie_trio.settings_file import ConfigFile, dump_settings, load_settings


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, "utf-8")
    return path


def _refusal(folder: Path, text: str) -> str:
    with pytest.raises(BadConfig) as caught:
        load_settings(_write(folder, text), {})
    return str(caught.value)


def test_without_a_file_every_setting_is_the_default() -> None:
    assert load_settings(None, {}).settings == Settings()


def test_the_hosts_that_may_be_fetched_from_are_a_list(tmp_path: Path) -> None:
    path = _write(tmp_path, '[fetch]\nallow = ["example.com", "127.0.0.1:8000"]\n')
    loaded = load_settings(path, {})
    assert loaded.settings.fetch_allow == ("example.com", "127.0.0.1:8000")
    shown = dict(dump_settings(loaded.file))
    assert shown["fetch.allow"] == '["example.com", "127.0.0.1:8000"]'
    assert dict(dump_settings(ConfigFile()))["fetch.allow"] == "[]"
    assert "fetch.allow" in loaded.origins
    for wrong in ('"example.com"', "[1]", "{}"):
        assert "must be a list of texts" in _refusal(tmp_path, f"[fetch]\nallow = {wrong}\n")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings(_write(tmp_path, ""), {}).settings == Settings()


def test_each_table_reaches_its_setting(tmp_path: Path) -> None:
    text = """
        [server]
        host = "::1"
        port = 9000
        log = "json"
        [runtime]
        seed = 7
        [batching]
        trigger = "k-or-t"
        k = 4
        [limits]
        page_wait_seconds = 3
        [[model]]
        name = "one"
        pretend = true
        [[model]]
        name = "two"
        numeric = "int8"
        pages_max = 12
    """
    settings = load_settings(_write(tmp_path, text), {}).settings
    assert (settings.host, settings.port, settings.log, settings.seed) == ("::1", 9000, "json", 7)
    assert (settings.batching.trigger, settings.batching.k) == (BatchTrigger.K_OR_T, 4)
    assert settings.limits == attrs.evolve(Limits(), page_wait_seconds=3.0)
    assert [model.name for model in settings.models] == ["one", "two"]
    assert (settings.models[0].pretend, settings.models[1].pages_max) == (True, 12)
    assert [model.numeric for model in settings.models] == [Numeric.BF16, Numeric.INT8]


def test_an_unknown_key_is_refused_with_file_key_and_nearest_name(tmp_path: Path) -> None:
    text = _refusal(tmp_path, "[limits]\npage_wait_second = 3.0\n")
    assert "config.toml" in text
    assert "limits.page_wait_second " in text
    assert "did you mean page_wait_seconds?" in text


def test_an_unknown_table_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert "known here: server, runtime" in _refusal(tmp_path, "[zebra]\nx = 1\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[server]\nport = "80"\n', "server.port: must be a whole number, got '80'"),
        ("[server]\nport = 80.5\n", "server.port: must be a whole number"),
        ("[server]\nport = true\n", "server.port: must be a whole number, got True"),
        ("[server]\nport = 70000\n", "server.port must be 0 to 65535"),
        ('[server]\nlog = "loud"\n', "server.log must be"),
        ("[limits]\nmailbox = 0\n", "limits.mailbox must be greater than 0"),
        (
            "[limits]\ndecode_steps_max = 1025\n",
            "limits.decode_steps_max must be at most 1024, got 1025",
        ),
        ('[[model]]\nname = "a"\npretend = 1\n', "pretend: must be true or false"),
        ("[[model]]\npretend = true\n", "name"),
        ('[[model]]\nname = "a"\n[[model]]\nname = "a"\n', "a is listed twice"),
        ('[batching]\ntrigger = "never"\n', "batching.trigger"),
        ('[[model]]\nname = "one"\nnumeric = "fp4"\n', "model[0].numeric"),
        ("[batching]\nk = 0\n", "k must be at least 1"),
        ("server = 1\n", "server"),
        ("= 1\n", "is not TOML"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaint in _refusal(tmp_path, text)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = _refusal(tmp_path, '[server]\nport = "80"\n[limits]\nmailboxes = 1\n')
    assert "server.port" in text
    assert "limits.mailboxes" in text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        load_settings(tmp_path / "none.toml", {})


def test_the_environment_outranks_the_file_and_its_origin_is_told(tmp_path: Path) -> None:
    path = _write(tmp_path, '[server]\nport = 9000\nhost = "::1"\n')
    loaded = load_settings(path, {"PIE_TRIO_PORT": "9001"})
    assert (loaded.settings.port, loaded.settings.host) == (9001, "::1")
    assert loaded.origins["server.port"] == "environment PIE_TRIO_PORT"
    assert loaded.origins["server.host"] == f"file {path}"
    assert "runtime.seed" not in loaded.origins


def test_a_variable_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadConfig, match="PIE_TRIO_SEED must be a whole number, got 'x'"):
        load_settings(None, {"PIE_TRIO_SEED": "x"})


def test_every_limit_is_shown_with_its_value() -> None:
    shown = dict(dump_settings(ConfigFile()))
    for field in attrs.fields(Limits):
        assert shown[f"limits.{field.name}"] == str(field.default)
    assert shown["model[0].name"] == '"smollm2-135m"'
    assert shown["batching.trigger"] == '"adaptive"'
