"""The gateway itself, spoken to with plain HTTP: its key, its checks of Host and Origin, its session
ids, and its refusal to carry a session from one server to another.
"""
import http.client
import json
import urllib.parse

import pytest

from programs import MASTER_KEY

KEY = {"x-litellm-api-key": f"Bearer {MASTER_KEY}"}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "peers", "version": "1.0.0"}}}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}


def send(url: str, method: str, message: dict | None = None, headers: dict | None = None):
    """One request on a connection of its own; returns (status, headers, body)."""
    to = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(to.hostname, to.port, timeout=30)
    try:
        connection.request(method, to.path, json.dumps(message) if message else None,
                           {"content-type": "application/json", "accept": "application/json, text/event-stream", **(headers or {})})
        answer = connection.getresponse()
        # A GET that is answered is a stream without end.
        return answer.status, answer.headers, b"" if method == "GET" else answer.read()
    finally:
        connection.close()


def open_session(gateway, server: str) -> dict:
    status, headers, body = send(f"{gateway.url}/{server}/mcp", "POST", INITIALIZE, KEY)
    assert status == 200 and b"reference-server" in body, body
    session = {**KEY, "mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    status, _, _ = send(f"{gateway.url}/{server}/mcp", "POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    assert status == 202
    return session


@pytest.mark.parametrize("headers", [{}, {"x-litellm-api-key": "Bearer sk-wrong"}, {"authorization": "Bearer sk-wrong"}],
                         ids=["no key", "wrong key", "wrong key as authorization"])
@pytest.mark.parametrize("server", ["ref", "m2m"])
def test_without_the_key_nothing_reaches_the_upstream(server, headers, keyed, taps, token_endpoint):
    before = len(taps[server].requests), len(token_endpoint.forms)
    status, _, _ = send(f"{keyed.url}/{server}/mcp", "POST", INITIALIZE, headers)
    assert status == 401
    assert (len(taps[server].requests), len(token_endpoint.forms)) == before


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"host": "127.0.0.1.evil.example:80"}, {"origin": "http://evil.example"}, {"origin": "null"}],
                         ids=lambda h: " ".join(*h.items()))
def test_other_sites_cannot_reach_an_open_gateway(headers, open_gateway, taps):
    # The conformance suite sends both headers at once, so an upstream that checks one would hide a gap.
    before = len(taps["ref"].requests)
    status, _, _ = send(f"{open_gateway.url}/ref/mcp", "POST", INITIALIZE, headers)
    assert status == 403
    assert len(taps["ref"].requests) == before


def test_the_client_gets_another_session_id_than_the_gateway(keyed, taps):
    session = open_session(keyed, "ref")
    upstream = taps["ref"].session_ids[-1]
    assert upstream not in session["mcp-session-id"]

    status, _, body = send(f"{keyed.url}/ref/mcp", "POST", LIST, session)
    assert status == 200 and b"test_simple_text" in body
    assert taps["ref"].requests[-1].values("mcp-session-id") == [upstream]

    before = len(taps["ref"].requests)
    status, _, _ = send(f"{keyed.url}/ref/mcp", "POST", LIST, {**session, "mcp-session-id": upstream})
    assert status == 404, "the upstream's own session id must mean nothing to the gateway"
    assert len(taps["ref"].requests) == before


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_session_of_one_server_is_unknown_to_another(method, keyed, taps):
    session = open_session(keyed, "ref")
    before = len(taps["other"].requests), len(taps["ref"].requests)
    status, _, _ = send(f"{keyed.url}/other/mcp", method, LIST if method == "POST" else None, session)
    assert status == 404
    assert (len(taps["other"].requests), len(taps["ref"].requests)) == before

    status, _, _ = send(f"{keyed.url}/ref/mcp", "POST", LIST, session)
    assert status == 200, "the session must live on where it belongs"


def test_a_session_ends_with_delete(keyed, taps):
    session = open_session(keyed, "ref")
    status, _, _ = send(f"{keyed.url}/ref/mcp", "DELETE", None, session)
    assert status in (200, 204)
    assert taps["ref"].requests[-1].method == "DELETE"
    status, _, _ = send(f"{keyed.url}/ref/mcp", "POST", LIST, session)
    assert status == 404
