"""The Python and TypeScript SDK clients list and call tools through the gateway, which gets the
machine token for the upstream. Every result equals the one that the client gets directly.
"""
import functools

import pytest

import plans
import sdk_clients
from programs import CLIENT_ID, CLIENT_SECRET, ISSUED_TOKEN, MASTER_KEY

KEY_HEADERS = {"x-litellm-api-key": f"Bearer {MASTER_KEY}"}
MODERN = "2026-07-28"


@pytest.fixture(scope="module")
def direct(protected_reference):
    """What a client sees with the token and without the gateway; each client asks once."""

    @functools.cache
    def run(client: str) -> dict:
        return sdk_clients.run(client, f"{protected_reference.url}/mcp", {"authorization": f"Bearer {ISSUED_TOKEN}"}, plans.REFERENCE, plans.ANSWERS)

    return run


@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_results_with_a_machine_token_equal_those_without_the_gateway(client, direct, keyed, taps):
    before = len(taps["m2m"].requests)
    through = sdk_clients.run(client, f"{keyed.url}/m2m/mcp", KEY_HEADERS, plans.REFERENCE, plans.ANSWERS)
    # Nothing is normalised: these results hold no id, time or address that the gateway must change.
    assert through == direct(client)

    assert through["connection"]["version"] == (MODERN if client.endswith("auto") else "2025-11-25")
    assert len(through["steps"][0]["tools"]) > 20
    assert through["steps"][1]["result"]["content"] == [{"type": "text", "text": "This is a simple text response for testing."}]
    requests = taps["m2m"].requests[before:]
    assert len(requests) > len(plans.REFERENCE) - 2
    assert {tuple(r.values("authorization")) for r in requests} == {(f"Bearer {ISSUED_TOKEN}",)}


def test_the_machine_token_is_asked_for_once(gateway, servers_yaml, token_endpoint):
    before = len(token_endpoint.forms)
    fresh = gateway(f"general_settings: {{master_key: {MASTER_KEY}}}\n{servers_yaml}")
    for client in ("python-auto", "ts-v1"):
        sdk_clients.run(client, f"{fresh.url}/m2m/mcp", KEY_HEADERS, plans.REFERENCE[:2])
    assert token_endpoint.forms[before:] == [{
        "grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": "mcp:tools"}]
    assert not any(MASTER_KEY in value for headers in token_endpoint.headers for value in headers.values())


@pytest.mark.parametrize("path", ["/ref/mcp", "/mcp/ref"])
@pytest.mark.parametrize("name", ["x-litellm-api-key", "authorization"])
def test_the_gateway_key_ends_at_the_gateway(path, name, reference, keyed, taps):
    before = len(taps["ref"].requests)
    steps = plans.REFERENCE[:3]
    through = sdk_clients.run("ts-v1", keyed.url + path, {name: f"Bearer {MASTER_KEY}"}, steps)
    assert through == sdk_clients.run("ts-v1", f"{reference.url}/mcp", {}, steps)
    requests = taps["ref"].requests[before:]
    assert requests and not any(r.values("authorization") for r in requests)
