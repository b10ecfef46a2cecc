"""People sign in at an authorization server that is not ours; the gateway exchanges what they got there, and an MCP
server that verifies signatures sees who the person is and who acts for them.
"""
import contextlib
import json
import urllib.error
import urllib.request

import pytest

from authorization import KEY_HEADER, AuthorizationServer, Client, opener, protected_server, send
from browser import Browser
from programs import DEADLINE, MASTER_KEY, Gateway
from tap import Tap

CLIENT, SECRET = "exchange-client", "canary-exchange-secret-9be1"
SECOND, SECOND_SECRET = "resource-client", "canary-resource-secret-44d0"
ENTRANCE = "http://gateway.example/mcp"  # the resource that people's own tokens are for


def exchanging(client: str, secret: str, *options: str) -> AuthorizationServer:
    return AuthorizationServer("--exchange", "--client-id", client, "--client-secret", secret, "--redirect-uri", Client.redirect_uri, *options)


def sign_in(server: AuthorizationServer, person: str, **asked: str) -> dict:
    client = Client(server.url, CLIENT, SECRET)
    return client.redeem(client.authorize(Browser(person), **asked)["code"])


def call(url: str, tool: str, token: str | None) -> tuple[int, dict]:
    """One stateless `tools/call`: the status and the answer, which may be an event."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    headers = {KEY_HEADER: MASTER_KEY, "content-type": "application/json", "accept": "application/json, text/event-stream",
               "mcp-protocol-version": "2025-11-25"} | ({"authorization": f"Bearer {token}"} if token else {})
    try:
        answer = opener().open(urllib.request.Request(url, json.dumps(message).encode(), headers), timeout=DEADLINE)
    except urllib.error.HTTPError as e:
        answer = e
    body = answer.read().decode()
    events = [line.removeprefix("data:") for line in body.splitlines() if line.startswith("data:")]
    return answer.status, json.loads(events[-1] if events else body)


def text(got: tuple[int, dict]) -> str:
    status, answer = got
    assert status == 200, answer
    return answer["result"]["content"][0]["text"]


@contextlib.contextmanager
def running(directory, server_yaml: str):
    with Gateway(directory, f"general_settings: {{master_key: {MASTER_KEY}}}\nmcp_servers:\n  one:\n{server_yaml}") as gateway:
        yield gateway


@contextlib.contextmanager
def upstream(issuer: str):
    with Tap() as tap, protected_server("--issuer", issuer, "--resource", f"{tap.url}/mcp", "--signed", "--stateless") as server:
        tap.toward(server.url)
        yield tap


@pytest.mark.parametrize("discovered", [False, True], ids=["configured endpoint", "discovered endpoint"])
def test_the_server_sees_the_person_and_who_acts_for_them(discovered, tmp_path):
    with exchanging(CLIENT, SECRET) as server, upstream(server.url) as tap:
        endpoint = "" if discovered else f"    token_exchange_endpoint: {server.url}/token\n"
        config = f"""
    url: {tap.url}/mcp
    auth_type: oauth2_token_exchange
{endpoint}    client_id: {CLIENT}
    client_secret: {SECRET}
    resource: auto
    scopes: [mcp:tools]
    subject_token_issuer: {server.url}
    subject_token_audience: {ENTRANCE}
"""
        people = {name: sign_in(server, name, resource=ENTRANCE)["access_token"] for name in ("alice", "bob")}
        foreign = sign_in(server, "mallory", resource="http://other.example/mcp")["access_token"]
        with running(tmp_path, config) as gateway:
            gateway.secrets += [SECRET, foreign, *people.values()]
            before = server.seen()
            for name, token in list(people.items()) * 2:
                assert text(call(f"{gateway.url}/one/mcp", "whoami", token)) == name
                assert text(call(f"{gateway.url}/one/mcp", "actor", token)) == CLIENT
            asked = server.seen(before).token_requests
            assert [r["grant_type"] for r in asked] == ["urn:ietf:params:oauth:grant-type:token-exchange"] * 2, "one exchange a person"

            status, answer = call(f"{gateway.url}/one/mcp", "whoami", None)
            assert (status, answer["error"]["data"]["code"]) == (401, "subject_token_required")
            status, answer = call(f"{gateway.url}/one/mcp", "whoami", foreign)
            assert (status, answer["error"]["data"]["code"]) == (401, "subject_token_refused")
            status, document = send(f"{gateway.url}/.well-known/oauth-protected-resource/one/mcp")
            assert (status, document["authorization_servers"]) == (200, [server.url])
            assert len(server.seen(before).token_requests) == 2
        assert not tap.leaks([MASTER_KEY, SECRET, foreign, *people.values()])
        # Without the exchange the server takes neither token: it does look.
        for token in [people["alice"], foreign]:
            assert call(f"{tap.url}/mcp", "whoami", token)[0] == 401


def test_an_identity_assertion_is_redeemed_where_the_server_belongs(tmp_path):
    with exchanging(CLIENT, SECRET, "--assertion-client", SECOND) as provider, \
            exchanging(SECOND, SECOND_SECRET, "--trust", provider.url) as resource, upstream(resource.url) as tap:
        config = f"""
    url: {tap.url}/mcp
    auth_type: oauth2_id_jag
    token_exchange_endpoint: {provider.url}/token
    client_id: {CLIENT}
    client_secret: {SECRET}
    audience: {resource.url}
    scopes: [mcp:tools]
    subject_token_issuer: {provider.url}
    subject_token_audience: {CLIENT}
    id_jag_resource: auto
    id_jag_resource_token_endpoint: {resource.url}/token
    id_jag_resource_client_id: {SECOND}
    id_jag_resource_client_secret: {SECOND_SECRET}
"""
        people = {name: sign_in(provider, name, scope="openid mcp:tools")["id_token"] for name in ("alice", "bob")}
        with running(tmp_path, config) as gateway:
            gateway.secrets += [SECRET, SECOND_SECRET, *people.values()]
            for name, token in list(people.items()) * 2:
                assert text(call(f"{gateway.url}/one/mcp", "whoami", token)) == name
                assert text(call(f"{gateway.url}/one/mcp", "actor", token)) == SECOND
            redeemed = resource.seen().token_requests
            assert len({r["assertion"] for r in redeemed}) == len(redeemed) == 2, "a grant is used once"
            assert {r["client_id"] for r in redeemed} == {SECOND}
            gateway.secrets += [r["assertion"] for r in redeemed]
            leaked = tap.leaks([MASTER_KEY, SECRET, SECOND_SECRET, *people.values(), *(r["assertion"] for r in redeemed)])
            assert not leaked, leaked
            status, answer = call(f"{gateway.url}/one/mcp", "whoami", None)
            assert (status, answer["error"]["data"]["code"]) == (401, "subject_token_required")
