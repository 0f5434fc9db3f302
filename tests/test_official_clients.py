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

from tests.support.gateway import open_world
from tests.support.scripted_engine import ScriptedInstance

DRIVER = Path(__file__).parent / "support" / "official_client_driver.py"
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


@pytest.mark.slow
@pytest.mark.parametrize("version", STEPS_OF_VERSION)
async def test_an_unmodified_official_client_is_served(
    version: str, client_packages: dict[str, Path], tmp_path: Path
) -> None:
    async with open_world(tmp_path) as world:
        world.engine.add("arguments", arguments)
        finished = await trio.run_process(
            [sys.executable, str(DRIVER), world.url, version],
            env={**os.environ, "PYTHONPATH": str(client_packages[version])},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        errors = finished.stderr.decode()
        assert finished.returncode == 0, errors
        assert set(finished.stdout.decode().splitlines()) == {*STEPS, *STEPS_OF_VERSION[version]}
        assert all(instance.is_finished for instance in world.engine.instances())
