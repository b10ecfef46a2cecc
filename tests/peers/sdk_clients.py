"""The SDK clients of the suite, behind one function: run(client, url, headers, steps, ask)."""
import json
import subprocess

from clients import python_client
from programs import DEADLINE, HERE, MODULES, NODE, STREAM_DEADLINE

# Name: SDK and protocol negotiation. `auto` asks for 2026-07-28 and falls back to initialize.
CLIENTS = {
    "python-legacy": ("python", "legacy"),
    "python-auto": ("python", "auto"),
    "ts-v2-legacy": ("ts", "legacy"),
    "ts-v2-auto": ("ts", "auto"),
    "ts-v1": ("ts-v1", "legacy"),
}


def run(client: str, url: str, headers: dict, steps: list, ask: dict | None = None) -> dict:
    sdk, mode = CLIENTS[client]
    if sdk == "python":
        return python_client.run(url, headers, mode, steps, ask)
    job = {"modules": str(MODULES), "v1": sdk == "ts-v1", "url": url, "headers": headers, "mode": mode, "steps": steps, "ask": ask,
           "streamDeadline": STREAM_DEADLINE}
    done = subprocess.run([NODE, HERE / "clients" / "ts_client.mjs"], input=json.dumps(job), text=True, capture_output=True, timeout=2 * DEADLINE)
    assert done.returncode == 0, f"{client} failed:\n{done.stderr}"
    return json.loads(done.stdout.rpartition("\n")[2])  # the SDK may say something of its own before
