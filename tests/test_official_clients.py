"""The unmodified official Python clients against our gateway, over loopback, in their own process.

Each version is installed once into the test cache; what it does is in `official_client_driver.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from pie_trio.services.gateway import open_listeners, serve_gateway
from tests.support.gateway import open_world
from tests.support.scripted_engine import ScriptedInstance
from tests.world import open_world as open_engine_world

SUPPORT = Path(__file__).parent / "support"
INFERLETS = Path(__file__).parents[1] / "inferlets"
STEPS = [
    "authenticate",
    "ping",
    "query",
    "query of an unknown subject",
    "empty list",
    "install and check",
    "refused installs",
    "launch and stream",
    "input and signal",
    "errors",
    "terminate",
    "fifty launches",
    "files both ways",
    "list",
    "attach",
    "strangers",
]
STEPS_OF_VERSION = {
    "0.4.0": ["check of hashes", "many processes", "what is not served"],
    "0.5.3": ["run of a decorated function", "run by name"],
}

STEPS_ON_ENGINE = [
    "authenticate",
    "query",
    "install and launch",
    "streamed text",
    "Python source",
    "signal, list, attach",
    "terminate",
]
STEPS_ON_ENGINE_OF_VERSION = {"0.4.0": "many processes", "0.5.3": "a decorated function"}


@pytest.fixture(scope="session")
def client_packages(request: pytest.FixtureRequest) -> dict[str, Path]:
    """Where each version of the official client is installed, with all that it needs."""
    cache = request.config.cache
    assert cache is not None
    root = cache.mkdir("official-clients")
    found = {}
    for version in STEPS_OF_VERSION:
        target = root / version
        if not (target / "complete").exists():
            _install(version, target)
        found[version] = target
    return found


def _install(version: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target)]
    subprocess.run([*pip, f"pie-client=={version}"], check=True, timeout=240)
    (target / "complete").touch()


async def arguments(instance: ScriptedInstance) -> str:
    return " ".join(instance.arguments)


async def drive(driver: str, url: str, version: str, packages: Path, *more: str) -> set[str]:
    """The steps that held; the driver's complaint if one did not."""
    finished = await trio.run_process(
        [sys.executable, str(SUPPORT / driver), url, version, *more],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(SUPPORT)])},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout.decode() + finished.stderr.decode()
    return set(finished.stdout.decode().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("version", STEPS_OF_VERSION)
async def test_an_unmodified_official_client_is_served(
    version: str, client_packages: dict[str, Path], tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        world.engine.add("arguments", arguments)
        packages = client_packages[version]
        steps = await drive("official_client_driver.py", world.url, version, packages)
        assert steps == {*STEPS, *STEPS_OF_VERSION[version]}
        assert all(instance.is_finished for instance in world.engine.instances())


@pytest.mark.slow
@pytest.mark.parametrize("version", STEPS_ON_ENGINE_OF_VERSION)
async def test_an_unmodified_official_client_runs_real_guests(
    version: str, client_packages: dict[str, Path], tmp_path: Path
) -> None:
    async with open_engine_world(tmp_path) as world, trio.open_nursery() as nursery:
        engine = world.engine
        [listener] = await open_listeners("127.0.0.1", 0, engine.settings.limits)
        nursery.start_soon(serve_gateway, engine, [listener], engine.settings, engine.ports)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        component = str(INFERLETS / "helloworld" / "helloworld.wasm")
        packages = client_packages[version]
        steps = await drive("official_client_on_engine.py", url, version, packages, component)
        assert steps == {*STEPS_ON_ENGINE, STEPS_ON_ENGINE_OF_VERSION[version]}
        assert engine.instances() == []
        nursery.cancel_scope.cancel()
