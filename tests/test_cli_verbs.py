"""Each verb of the command line does what it says, as a user sees it: text, streams, exit code."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Serving, environment, pie, serving, slow_config

ROOT = Path(__file__).resolve().parent.parent
VERBS = ("run", "serve", "submit", "list", "attach", "abort", "ping", "build", "new")
GROUPS = ("model list", "model add", "model show", "model remove", "config init", "config show")
COMPLETE = ("text-completion", "--", "--prompt", "hello", "--max-tokens", "12")
ENDLESS = ("text-completion", "--", "--prompt", "hello", "--max-tokens", "4000")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server"), "--pretend") as running:
        yield running


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("slow-server")
    with serving(folder, "--config", str(slow_config(folder))) as running:
        yield running


@pytest.mark.parametrize("verb", [*VERBS, *GROUPS])
def test_every_verb_has_help_with_an_example(tmp_path: Path, verb: str) -> None:
    ended = pie(tmp_path, *verb.split(), "--help")
    assert ended.returncode == 0
    assert f"Example: pie-trio {verb}" in ended.stdout


def test_the_help_names_every_exit_code(tmp_path: Path) -> None:
    told = " ".join(pie(tmp_path, "--help").stdout.split())
    for code in ("0 done", "1 the instance", "2 wrong", "3 no server", "4 no such", "70 a bug"):
        assert code in told


def test_run_streams_the_text_and_says_how_it_went(tmp_path: Path) -> None:
    several_chunks = (*COMPLETE[:-1], "200")  # fewer may all be there when the program first wakes
    ended = pie(tmp_path, "run", "--pretend", "--seed", "1", *several_chunks)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.strip()) > 0
    closing = ended.stderr.splitlines()[-1]
    pattern = r"first token after \d+\.\d\d s · \d+ tokens · .*tokens a second · returned"
    assert re.fullmatch(pattern, closing), closing


def test_the_same_seed_gives_the_same_text(tmp_path: Path) -> None:
    hot = (*COMPLETE, "--temperature", "1.0")
    texts = [pie(tmp_path, "run", "--pretend", "--seed", s, *hot).stdout for s in ("5", "5", "6")]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_run_takes_a_file_too(tmp_path: Path) -> None:
    component = ROOT / "inferlets" / "text-completion" / "text-completion.wasm"
    ended = pie(tmp_path, "run", "--pretend", str(component), *COMPLETE[1:])
    assert (ended.returncode, bool(ended.stdout.strip())) == (0, True), ended.stderr


def test_run_on_a_server_gives_the_same_text_as_here(tmp_path: Path, server: Serving) -> None:
    here = pie(tmp_path, "run", "--pretend", *COMPLETE)
    there = pie(tmp_path, "run", "--server", server.address, *COMPLETE)
    assert (there.returncode, there.stdout) == (0, here.stdout), there.stderr
    assert "pieces" in there.stderr


def test_an_option_that_the_server_decides_is_refused_with_2(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--server", "ws://127.0.0.1:1", "--seed", "1", "helloworld")
    assert (ended.returncode, "--seed" in ended.stderr) == (2, True)


def test_a_program_that_fails_ends_with_1_and_its_reason(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--pretend", "text-completion", "--", "--no-such-option")
    assert ended.returncode == 1
    assert "pie-trio: text-completion: " in ended.stderr


def test_a_program_that_is_not_there_ends_with_4_and_names_those_that_are(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--pretend", "no-such-program")
    assert ended.returncode == 4
    assert "text-completion" in ended.stderr


def test_a_file_that_is_not_there_ends_with_4(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--pretend", "./nothing.wasm")
    assert (ended.returncode, "does not exist" in ended.stderr) == (4, True)


def test_a_model_that_is_not_there_ends_with_4(tmp_path: Path) -> None:
    ended = pie(tmp_path, "run", "--model", "no-such-model", "text-completion")
    assert (ended.returncode, "no-such-model" in ended.stderr) == (4, True)


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    assert pie(tmp_path, "runn").returncode == 2


def test_a_wrong_configuration_ends_with_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[limits]\nmailboxx = 1\n", "utf-8")
    ended = pie(tmp_path, "serve", "--config", str(path))
    assert ended.returncode == 2
    assert "did you mean mailbox?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serve_refuses_an_address_that_is_not_loopback(tmp_path: Path) -> None:
    ended = pie(tmp_path, "serve", "--pretend", "--host", "0.0.0.0")
    assert (ended.returncode, "loopback" in ended.stderr) == (2, True)


def test_serve_says_in_one_line_where_it_listens(server: Serving) -> None:
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", server.address)


def test_a_port_that_is_taken_ends_with_3(tmp_path: Path, server: Serving) -> None:
    port = server.address.rpartition(":")[2]
    ended = pie(tmp_path, "serve", "--pretend", "--port", port)
    assert (ended.returncode, f"port {port}" in ended.stderr) == (3, True)


def test_ping_tells_how_long_the_answer_took(tmp_path: Path, server: Serving) -> None:
    ended = pie(tmp_path, "ping", "--server", server.address)
    assert ended.returncode == 0
    assert re.search(r"answered in \d+\.\d ms", ended.stdout)


def test_ping_without_a_server_ends_with_3(tmp_path: Path) -> None:
    ended = pie(tmp_path, "ping", "--server", "ws://127.0.0.1:1")
    assert (ended.returncode, "127.0.0.1:1" in ended.stderr) == (3, True)


def test_submit_follows_to_the_end(tmp_path: Path, server: Serving) -> None:
    ended = pie(tmp_path, "submit", "--server", server.address, *COMPLETE)
    assert (ended.returncode, bool(ended.stdout.strip())) == (0, True)
    assert re.search(r"launched [0-9a-f]{8}", ended.stderr)


def test_a_detached_instance_is_listed_attached_to_and_aborted(
    tmp_path: Path, slow_server: Serving
) -> None:
    at = ("--server", slow_server.address)
    identity = pie(tmp_path, "submit", *at, "--detached", *ENDLESS).stdout.strip()
    assert identity in pie(tmp_path, "list", *at).stdout
    aborted = pie(tmp_path, "abort", *at, identity[:13])
    assert (aborted.returncode, identity in aborted.stderr) == (0, True)
    attached = pie(tmp_path, "attach", *at, identity[:13])
    assert attached.returncode == 1
    assert "Signal" in attached.stderr
    assert attached.stdout.strip(), "what it said before it was aborted is still there"


def test_another_user_sees_nothing(tmp_path: Path, slow_server: Serving) -> None:
    at = ("--server", slow_server.address)
    identity = pie(tmp_path, "submit", *at, "--detached", *ENDLESS).stdout.strip()
    assert identity not in pie(tmp_path, "list", *at, "--user", "somebody-else").stdout
    assert pie(tmp_path, "abort", *at, "--user", "somebody-else", identity).returncode == 4
    assert pie(tmp_path, "abort", *at, identity).returncode == 0


def test_a_prefix_of_two_instances_is_refused_with_2(tmp_path: Path, slow_server: Serving) -> None:
    at = ("--server", slow_server.address)
    found = [pie(tmp_path, "submit", *at, "--detached", *ENDLESS).stdout.strip() for _ in range(2)]
    ended = pie(tmp_path, "abort", *at, "")
    assert (ended.returncode, "not unique" in ended.stderr) == (2, True)
    for identity in found:
        assert pie(tmp_path, "abort", *at, identity).returncode == 0


def test_config_init_writes_a_file_that_show_reads(tmp_path: Path) -> None:
    path = tmp_path / "made" / "config.toml"
    made = pie(tmp_path, "config", "init", str(path))
    assert (made.returncode, made.stdout.strip()) == (0, str(path))
    again = pie(tmp_path, "config", "init", str(path))
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    shown = pie(tmp_path, "config", "show", "--config", str(path)).stdout
    assert shown == pie(tmp_path, "config", "show").stdout


def test_every_key_of_a_new_file_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    pie(tmp_path, "config", "init", str(path))
    head, _, rest = path.read_text("utf-8").partition("\n[server]")
    text = "[server]" + re.sub(r"^# ", "", rest, flags=re.MULTILINE)
    assert head.startswith("#")
    path.write_text(text, "utf-8")
    shown = pie(tmp_path, "config", "show", "--config", str(path))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == pie(tmp_path, "config", "show").stdout


def test_config_show_tells_where_each_value_is_from(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = 9000\n", "utf-8")
    more = {"PIE_TRIO_LOG": "json", "PIE_TRIO_CONFIG": str(path)}
    shown = pie(tmp_path, "config", "show", "--origin", more=more).stdout
    assert f"server.port = 9000  # file {path}" in shown
    assert 'server.log = "json"  # environment PIE_TRIO_LOG' in shown
    assert 'server.host = "127.0.0.1"  # default' in shown


def test_a_model_is_added_shown_listed_and_removed(tmp_path: Path) -> None:
    more = {"PIE_TRIO_HOME": str(tmp_path / "home")}
    missing = pie(tmp_path, "model", "show", "tiny", more=more)
    assert (missing.returncode, "tiny" in missing.stderr) == (4, True)
    added = pie(tmp_path, "model", "add", str(_tiny_model(tmp_path)), "--name", "tiny", more=more)
    assert (added.returncode, added.stdout.strip()) == (0, "tiny"), added.stderr
    assert pie(tmp_path, "model", "list", more=more).stdout.startswith("tiny\t")
    shown = pie(tmp_path, "model", "show", "tiny", "--verify", more=more).stdout
    assert 'name = "tiny"' in shown
    assert pie(tmp_path, "model", "remove", "tiny", more=more).returncode == 0
    assert pie(tmp_path, "model", "list", more=more).stdout == ""


def _tiny_model(folder: Path) -> Path:
    """A Llama of two layers with random weights, as Hugging Face writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    target = folder / "tiny-llama"
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(target)
    pretend = ROOT / "pie_trio" / "services" / "pretend_model"
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy2(pretend / name, target / name)
    return target


def test_build_writes_the_component_that_is_shipped(tmp_path: Path) -> None:
    folder = ROOT / "inferlets" / "text-completion"
    target = tmp_path / "built.wasm"
    ended = pie(tmp_path, "build", str(folder), "-o", str(target))
    assert ended.returncode == 0, ended.stderr
    assert target.read_bytes() == (folder / "text-completion.wasm").read_bytes()


def test_build_of_nothing_ends_with_4(tmp_path: Path) -> None:
    ended = pie(tmp_path, "build", str(tmp_path / "none"), "-o", str(tmp_path / "x"))
    assert (ended.returncode, "is not a folder" in ended.stderr) == (4, True)


@pytest.mark.parametrize(
    "command", ["config show", "run --pretend text-completion -- --prompt hi --max-tokens 4000"]
)
def test_a_reader_that_goes_away_is_nobodys_error(tmp_path: Path, command: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} {command} 2>errors | head -c 3; cat errors"],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stdout
    assert "BrokenPipe" not in ended.stdout
