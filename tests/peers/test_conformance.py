"""The official conformance suite's server scenarios: through the gateway they pass exactly where
they pass directly against the same reference server.
"""
import functools
import json
import os
import pathlib
import re
import subprocess

import pytest

from programs import HERE, MODULES, NODE

# Requirement set: scenarios that pass. The others of 2026-07-28 are those of the Tasks
# extension, which the reference server does not have.
PASSING = {"2025-11-25": 33, "2026-07-28": 40}

SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
STAMP = re.compile(r"-\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}-\d{3}Z$")


def outcomes(url: str, requirements: str, directory: pathlib.Path) -> dict[str, str]:
    """Runs the suite; per scenario `pass`, `skipped`, or the checks that failed."""
    env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    done = subprocess.run(
        [NODE, "--import", HERE / "bind-loopback.mjs", SUITE, "server", "--url", url, "--requirements", requirements, "-o", directory],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    found = {}
    for file in sorted(directory.rglob("checks.json")):
        scenario = STAMP.sub("", file.parent.relative_to(directory).as_posix()).removeprefix("server-")
        checks = json.loads(file.read_text())
        failed = sorted({c["id"] for c in checks if c["status"] == "FAILURE"})
        passed = any(c["status"] == "SUCCESS" for c in checks)
        skipped = not passed and any(c["status"] == "SKIPPED" for c in checks)
        found[scenario] = f"failed: {', '.join(failed)}" if failed else "skipped" if skipped else "pass"
    assert found, f"the conformance suite wrote no results:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return found


@pytest.fixture(scope="module")
def direct(reference, tmp_path_factory):
    return functools.cache(lambda requirements: outcomes(f"{reference.url}/mcp", requirements, tmp_path_factory.mktemp("direct")))


@pytest.mark.parametrize("server", ["ref", "m2m"])
@pytest.mark.parametrize("requirements", PASSING)
def test_scenarios_pass_where_they_pass_directly(requirements, server, direct, open_gateway, tmp_path):
    # The suite cannot send a key, so the gateway has none; it reaches it on the loopback interface.
    through = outcomes(f"{open_gateway.url}/{server}/mcp", requirements, tmp_path)
    assert through == direct(requirements)
    assert list(through.values()).count("pass") == PASSING[requirements]
