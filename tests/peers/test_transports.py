"""@modelcontextprotocol/server-everything over HTTP+SSE and over standard input and output, behind the gateway, as clients
of Streamable HTTP see it: what it answers and what it asks.
"""
import contextlib
import json

import pytest

import plans
import sdk_clients
from programs import EVERYTHING, MASTER_KEY, NODE, Gateway, server_everything

# Its dynamic resources carry the time of day.
FIXED_TIME = "data:text/javascript,Date.prototype.toLocaleTimeString=()=>'12:00:00 PM'"


@pytest.fixture(scope="module")
def bridged(tmp_path_factory):
    """A gateway with the servers `over_sse` and `over_stdio`; no program is left when it has ended."""
    with contextlib.ExitStack() as stack:
        sse = stack.enter_context(server_everything("sse"))
        config = {
            "general_settings": {"master_key": MASTER_KEY},
            "mcp_servers": {
                "over_sse": {"url": f"{sse.url}/sse", "transport": "sse"},
                "over_stdio": {"transport": "stdio", "command": "node",
                          "args": ["--import", FIXED_TIME, str(EVERYTHING / "index.js"), "stdio"],
                          "env": {"PATH": str(NODE.parent)}},
            },
        }
        env = {"VESTIBULE_ENABLE_STDIO": "true"}
        yield stack.enter_context(Gateway(tmp_path_factory.mktemp("bridged"), json.dumps(config), env=env))


@pytest.mark.parametrize("server", ["over_sse", "over_stdio"])
@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_requests_and_questions(client, server, everything, bridged):
    headers = {"x-litellm-api-key": f"Bearer {MASTER_KEY}"}
    direct = sdk_clients.run(client, f"{everything.url}/mcp", {}, plans.EVERYTHING_REQUESTS)
    through = sdk_clients.run(client, f"{bridged.url}/{server}/mcp", headers, plans.EVERYTHING_REQUESTS)
    assert through["steps"] == direct["steps"]

    seen = sdk_clients.run(client, f"{bridged.url}/{server}/mcp", headers, plans.EVERYTHING_QUESTIONS, plans.ANSWERS)
    direct = sdk_clients.run(client, f"{everything.url}/mcp", {}, plans.EVERYTHING_QUESTIONS, plans.ANSWERS)
    assert seen["steps"] == direct["steps"]
