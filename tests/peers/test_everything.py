"""@modelcontextprotocol/server-everything behind the gateway: tools, prompts, resources, progress,
and what the server sends of its own accord (SSE). Everything equals what the client sees directly.
"""
import json
import re

import pytest

import plans
import sdk_clients
from programs import MASTER_KEY

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RANDOM_LOG = re.compile(r"^(Debug|Info|Notice|Warning|Error|Critical|Alert|Emergency)[- ]level[- ]message - SessionId <session>$")


@pytest.fixture
def both(everything, keyed):
    """Runs the steps directly and through the gateway."""

    def run(client: str, steps: list, ask: dict | None = None) -> tuple[dict, dict]:
        direct = sdk_clients.run(client, f"{everything.url}/mcp", {}, steps, ask)
        through = sdk_clients.run(client, f"{keyed.url}/everything/mcp", {"x-litellm-api-key": f"Bearer {MASTER_KEY}"}, steps, ask)
        return comparable(direct), comparable(through)

    return run


def comparable(seen: dict) -> dict:
    """Replaces what differs between two runs without a gateway, too.

    - The server writes its own session id, new for every session, into texts.
    - The simulated log message has a random level.
    - The change of the tool list is announced while the client opens its GET stream; if it is
      not open yet the server drops the message.
    """
    seen = json.loads(UUID.sub("<session>", json.dumps(seen)))
    seen["notifications"] = [n for n in seen["notifications"] if n["method"] != "notifications/tools/list_changed"]
    for n in seen["notifications"]:
        if n["method"] == "notifications/message" and RANDOM_LOG.match(str(n["params"]["data"])):
            n["params"] |= {"level": "<random>", "data": "<random>"}
    return seen


@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_requests(client, both):
    direct, through = both(client, plans.EVERYTHING_REQUESTS)
    assert through == direct

    got: dict = {}  # by method and first argument; the first of its kind
    for (what, *args), step in zip(plans.EVERYTHING_REQUESTS, through["steps"]):
        got.setdefault(" ".join([what, *(a for a in args[:1] if isinstance(a, str))]), step)
    assert {"echo", "get-sum", "get-tiny-image"} <= {t["name"] for t in got["tools/list"]["tools"]}
    assert got["tools/call echo"]["result"]["content"][0]["text"] == "Echo: " + plans.TEXT
    assert got["tools/call get-sum"]["result"]["content"][0]["text"] == "The sum of 2.5 and 40 is 42.5."
    assert got["tools/call get-tiny-image"]["result"]["content"][1]["mimeType"] == "image/png"
    assert got["tools/call get-structured-content"]["result"]["structuredContent"] == {
        "temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82}
    progress = got["tools/call trigger-long-running-operation"]["progress"]
    assert [p["progress"] if isinstance(p, dict) else p[0] for p in progress] == [1, 2, 3, 4, 5]
    assert len(got["prompts/list"]["prompts"]) == 4
    assert len(got["resources/templates/list"]["resourceTemplates"]) == 2


@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_pushes_on_the_get_stream(client, both):
    direct, through = both(client, plans.EVERYTHING_PUSHES)
    assert through == direct

    methods = [n["method"] for n in through["notifications"]]
    assert methods.count("notifications/resources/updated") == 2
    assert methods.count("notifications/message") == 3
    assert methods.count("notifications/resources/list_changed") == 1


@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_questions_of_the_server(client, both):
    direct, through = both(client, plans.EVERYTHING_QUESTIONS, plans.ANSWERS)
    for seen in (direct, through):
        # The server asks for the roots on a timer of its own besides the tool: once or twice.
        for part in ("asked", "notifications"):
            seen[part] = sorted({json.dumps(entry, sort_keys=True) for entry in seen[part]})
    assert through == direct

    assert {json.loads(entry)[0] for entry in through["asked"]} == {"sampling/createMessage", "elicitation/create", "roots/list"}
    assert "Paris" in through["steps"][2]["result"]["content"][0]["text"]
    assert "file:///peers" in through["steps"][4]["result"]["content"][0]["text"]
