"""Other people's OAuth clients sign in at an authorization server that is not ours either, call tools, and
refresh: directly against the MCP server, and through the gateway.
"""
import contextlib
import dataclasses
import json
import urllib.error
import urllib.request

import pytest

import sdk_clients
from authorization import DRIVERS, KEY_HEADER, AuthorizationServer, Client, drive, get_json, opener, protected_server
from browser import Browser, query
from nginx import Nginx
from programs import MASTER_KEY, Gateway
from tap import Tap


FIXED_ID, FIXED_SECRET = "fixed-client", "canary-fixed-client-secret-71d0"
ROUND = {"echo": "Grüße – 你好", "add": 42.5, "whoami": "alice"}


@dataclasses.dataclass
class Place:
    """Where a client signs in: the MCP server's URL as it sees it, and who stands behind it."""

    url: str
    authorization_server: AuthorizationServer
    tap: Tap  # in front of the MCP server
    key: str | None = None
    gateway: Gateway | None = None
    public_origin: str = ""  # the gateway's
    ca: str | None = None

    @property
    def resource(self) -> str:
        """What the MCP server calls itself."""
        return f"{self.tap.url}/mcp"

    def drive(self, driver: str, directory, **more):
        return drive(driver, self.url, directory, key=self.key, ca=self.ca, expire=self.authorization_server.control, **more)


@contextlib.contextmanager
def upstream(*server_options: str, options: tuple = ()):
    """An authorization server, an MCP server that takes its tokens only, and a tap in front of that."""
    with AuthorizationServer(*options) as authorization_server, Tap() as tap:
        with protected_server("--issuer", authorization_server.url, "--resource", f"{tap.url}/mcp", *server_options) as server:
            tap.toward(server.url)
            yield authorization_server, tap


@pytest.fixture(scope="module")
def stateful():
    with upstream() as up:
        yield up


@pytest.fixture(scope="module")
def stateless():
    with upstream("--stateless") as up:
        yield up


@pytest.fixture(scope="module")
def fixed():
    """As at GitHub: a client from a console, no registration, no resource indicators."""
    with upstream("--any-audience", options=("--no-registration", "--no-resource-indicators", "--client-id", FIXED_ID, "--client-secret", FIXED_SECRET)) as up:
        yield up


@pytest.fixture(scope="module")
def denying():
    with upstream(options=("--deny",)) as up:
        yield up


@pytest.fixture(scope="module")
def direct(stateful):
    return Place(f"{stateful[1].url}/mcp", *stateful)


@pytest.fixture(scope="module")
def direct_stateless(stateless):
    return Place(f"{stateless[1].url}/mcp", *stateless)


@pytest.fixture(scope="module")
def direct_denying(denying):
    return Place(f"{denying[1].url}/mcp", *denying)


@pytest.fixture(scope="module")
def direct_nginx(tmp_path_factory):
    """The MCP server itself behind nginx: proves the proxy and the authority before the gateway is there."""
    proxy = Nginx(tmp_path_factory.mktemp("nginx-direct"))
    try:
        with AuthorizationServer() as authorization_server, Tap() as tap, protected_server(
                "--issuer", authorization_server.url, "--resource", f"{proxy.url}/mcp") as server:
            tap.toward(server.url)
            proxy.start(tap.url)
            yield Place(f"{proxy.url}/mcp", authorization_server, tap, ca=proxy.ca)
    finally:
        proxy.stop()


@pytest.fixture(scope="module")
def sign_in_yaml(stateful, fixed, denying) -> str:
    (_, github), (fixed_server, fixed_tap), (_, refusing) = stateful, fixed, denying
    return f"""
general_settings: {{master_key: {MASTER_KEY}}}
vestibule: {{keep_tokens_for_master_key: true}}
mcp_servers:
  github_mcp: {{url: "{github.url}/mcp", auth_type: oauth2}}
  denying_mcp: {{url: "{refusing.url}/mcp", auth_type: oauth2}}
  fixed_mcp:
    url: "{fixed_tap.url}/mcp"
    auth_type: oauth2
    client_id: {FIXED_ID}
    client_secret: {FIXED_SECRET}
    authorization_url: "{fixed_server.url}/auth"
    token_url: "{fixed_server.url}/token"
    scopes: [mcp:tools]
"""


@pytest.fixture
def gateway_sign_in(sign_in_yaml, stateful, fixed, denying, tmp_path_factory):
    """The gateway on a free port, its address taken from the request; gives a Place by the server's name.

    One for each test: it may keep the tokens for the person whose key it sees, and then nobody signs in again.
    """
    with Gateway(tmp_path_factory.mktemp("gateway"), sign_in_yaml) as started:
        yield places(started, started.url, stateful, fixed, denying)


@pytest.fixture
def gateway_nginx(sign_in_yaml, stateful, fixed, denying, tmp_path_factory):
    """The same behind nginx, which ends TLS; PROXY_BASE_URL says what people see."""
    proxy = Nginx(tmp_path_factory.mktemp("nginx"))
    try:
        with Gateway(tmp_path_factory.mktemp("gateway"), sign_in_yaml, proxy.url) as started:
            proxy.start(started.url)
            yield places(started, proxy.url, stateful, fixed, denying, proxy.ca)
    finally:
        proxy.stop()


def places(started: Gateway, origin: str, stateful, fixed, denying, ca=None):
    fixed[0].allow_redirect(f"{origin}/callback")
    started.secrets.append(FIXED_SECRET)
    return {name: Place(f"{origin}/{name}/mcp", *up, MASTER_KEY, started, origin, ca)
            for name, up in (("github_mcp", stateful), ("fixed_mcp", fixed), ("denying_mcp", denying))}


def place_of(request, target: str) -> Place:
    fixture, _, server = target.partition(":")
    found = request.getfixturevalue(fixture)
    return found[server] if server else found


TARGETS = ["direct", "direct_stateless", "direct_nginx", "gateway_sign_in:github_mcp",
           "gateway_sign_in:fixed_mcp", "gateway_nginx:github_mcp", "gateway_nginx:fixed_mcp"]
# Node verifies TLS and Python does: one client of each is enough for what a proxy changes.
BEHIND_NGINX = ("python-sdk", "ts-sdk-v1")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_signs_in_calls_and_refreshes(driver, target, request, tmp_path):
    if "nginx" in target and driver not in BEHIND_NGINX:
        pytest.skip("the other clients verify TLS the same way")
    place = place_of(request, target)
    before, asked_before = place.authorization_server.seen(), len(place.tap.requests)

    run = place.drive(driver, tmp_path)

    assert run.code == 0, run.errors
    assert run.seen["tools"] == ["add", "echo", "whoami"]
    assert run.seen["first"] == run.seen["second"] == ROUND

    # One sign-in and one refresh, whatever stands between.
    log = place.authorization_server.seen(since=before)
    assert not log.errors
    assert [t["grant_type"] for t in log.token_requests] == ["authorization_code", "refresh_token"]
    assert (log.count("authorization.success"), log.count("refresh_token.consumed")) == (1, 1)
    assert len(log.registrations) <= 1 and (target.endswith("fixed_mcp") or place.gateway or log.registrations)

    # The browser ended at the client's own listener, with the client's own state.
    asked, answered = query(run.hops[0]), query(run.hops[-1])
    assert run.hops[-1].startswith(asked["redirect_uri"])
    assert answered["state"] == asked["state"] and "code" in answered
    assert asked["code_challenge_method"] == "S256"

    if place.gateway:
        check_what_went_upstream(place, log, place.tap.requests[asked_before:], asked, answered, fixed=target.endswith("fixed_mcp"))
    else:
        assert asked["resource"] == place.url and {t["resource"] for t in log.token_requests} == {place.url}


def check_what_went_upstream(place: Place, log, calls, asked: dict, answered: dict, fixed: bool) -> None:
    callback = f"{place.public_origin}/callback"
    name = place.url.removeprefix(place.public_origin).split("/")[1]
    assert asked.get("resource") == place.url
    assert answered["iss"] == f"{place.public_origin}/{name}"

    if fixed:
        assert not log.registrations
    for registration in log.registrations:
        assert registration["redirect_uris"] == [callback]
    for upstream_request in log.authorizations:
        assert upstream_request["redirect_uri"] == callback
        assert upstream_request["state"] != asked["state"]
        assert upstream_request["code_challenge_method"] == "S256"
        if not fixed:
            assert upstream_request["resource"] == place.resource
    for token_request in log.token_requests:
        assert token_request.get("resource", place.resource) == place.resource

    place.gateway.secrets += log.secrets  # none of them may be in its log when it ends

    # The gateway's key reaches nobody, and the MCP server is only ever called with its own tokens.
    everything = json.dumps([log.requests]) + "".join(str(call) for call in calls)
    assert MASTER_KEY not in everything
    assert not [r for r in log.requests if KEY_HEADER in r["headers"]]
    issued = {r["answer"]["access_token"] for r in log.asked("POST", "/token")}
    assert {v.removeprefix("Bearer ") for call in calls for v in call.values("authorization")} <= issued


@pytest.mark.parametrize("target", ["direct_denying", "gateway_sign_in:denying_mcp"])
@pytest.mark.parametrize("driver", ["python-sdk", "ts-sdk-v1", "ts-sdk-v2"])
def test_a_denial_reaches_the_client(driver, target, request, tmp_path):
    place = place_of(request, target)
    before = place.authorization_server.seen()
    run = place.drive(driver, tmp_path)
    assert run.code != 0 and "access_denied" in run.errors
    assert query(run.hops[-1])["error"] == "access_denied"
    assert not place.authorization_server.seen(since=before).token_requests


def test_who_says_no_to_the_gateway_never_meets_the_provider(gateway_sign_in, tmp_path):
    place = gateway_sign_in["fixed_mcp"]
    before = place.authorization_server.seen()
    run = place.drive("ts-sdk-v1", tmp_path, deny=True)
    assert run.code != 0 and "access_denied" in run.errors
    assert query(run.hops[-1])["error"] == "access_denied"
    assert not place.authorization_server.seen(since=before).requests


@pytest.mark.parametrize("server", ["github_mcp", "fixed_mcp"])
def test_later_calls_need_only_the_key(server, gateway_sign_in, tmp_path):
    """This client sends the key with the token request too, so the gateway knows whose tokens these are."""
    place = gateway_sign_in[server]
    assert place.drive("ts-sdk-v1", tmp_path).code == 0
    key = {KEY_HEADER: f"Bearer {MASTER_KEY}"}
    whoami = [["tools/call", "whoami", {}]]
    for _ in range(2):
        assert sdk_clients.run("ts-v1", place.url, key, whoami)["steps"][0]["result"]["content"][0]["text"] == "alice"
        place.authorization_server.advance(7200)  # the gateway learns it from the server's 401


# What these clients send, as the gateway will be sent it. A new version that does otherwise fails here first.
STATE = {"python-sdk": 43, "fastmcp": 43, "ts-sdk-v1": 36, "ts-sdk-v2": 36, "mcp-remote": 36}
METHOD = {"python-sdk": None, "fastmcp": "none", "ts-sdk-v1": "none", "ts-sdk-v2": "none", "mcp-remote": "none"}
OFFLINE = {"python-sdk", "fastmcp", "ts-sdk-v2", "mcp-remote"}  # add offline_access, and prompt=consent, where the metadata has it
KEY_EVERYWHERE = {"ts-sdk-v1", "ts-sdk-v2", "mcp-remote"}  # the key goes to discovery, registration and token endpoint
LOOK_FIRST = {"fastmcp"}  # asks for the authorization URL itself before the browser does


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_clients_send(driver, direct, tmp_path):
    server = direct.authorization_server
    before, calls_before = server.seen(), len(direct.tap.requests)
    run = drive(driver, direct.url, tmp_path, key="sk-for-the-gateway", expire=server.control)
    assert run.code == 0, run.errors
    log, calls = server.seen(since=before), direct.tap.requests[calls_before:]
    asked = query(run.hops[0])

    assert all(call.values(KEY_HEADER) == ["Bearer sk-for-the-gateway"] for call in calls if call.target == "/mcp")
    [registered], [registration] = log.asked("POST", "/reg"), log.registrations
    tokens = log.asked("POST", "/token")
    for request in [registered, *tokens]:
        assert (KEY_HEADER in request["headers"]) == (driver in KEY_EVERYWHERE)
    assert registration.get("token_endpoint_auth_method") == METHOD[driver]
    assert set(registration["grant_types"]) == {"authorization_code", "refresh_token"} and registration["response_types"] == ["code"]
    assert registration["redirect_uris"] == [asked["redirect_uri"]]
    assert all(("authorization" in request["headers"]) == (METHOD[driver] is None) for request in tokens)

    assert len(asked["state"]) == STATE[driver]
    assert asked["scope"] == registration["scope"] == ("mcp:tools offline_access" if driver in OFFLINE else "mcp:tools")
    assert asked.get("prompt") == ("consent" if driver in OFFLINE else None)
    assert len(log.asked("GET", "/auth")) == (2 if driver in LOOK_FIRST else 1)


def test_refresh_tokens_rotate_and_a_stolen_one_ends_the_grant(stateful):
    server, tap = stateful
    client = Client.registered(server.url)
    first = client.redeem(client.authorize(Browser(), resource=f"{tap.url}/mcp")["code"])
    assert accepted(tap, first)

    status, second = client.refresh(first["refresh_token"])
    assert status == 200 and second["refresh_token"] != first["refresh_token"] and accepted(tap, second)
    status, answer = client.refresh(first["refresh_token"])
    assert (status, answer["error"]) == (400, "invalid_grant")
    status, answer = client.refresh(second["refresh_token"])
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert not accepted(tap, second)


def test_tokens_end_by_age_by_revocation_and_at_other_servers(stateful, stateless):
    server, tap = stateful
    client, browser = Client.registered(server.url), Browser("bob")
    tokens = client.redeem(client.authorize(browser, resource=f"{tap.url}/mcp")["code"])
    assert accepted(tap, tokens) and not accepted(stateless[1], tokens)
    server.advance(tokens["expires_in"] + 1)
    assert not accepted(tap, tokens)

    tokens = client.redeem(client.authorize(browser, resource=f"{tap.url}/mcp")["code"])
    client.revoke(tokens["refresh_token"])
    assert not accepted(tap, tokens)
    assert client.refresh(tokens["refresh_token"])[0] == 400

    elsewhere = client.redeem(client.authorize(browser, resource="https://elsewhere.example/mcp")["code"])
    assert not accepted(tap, elsewhere)


def test_the_configured_client_of_a_server_without_registration(fixed):
    server, tap = fixed
    assert "registration_endpoint" not in get_json(f"{server.url}/.well-known/oauth-authorization-server")
    callback = "http://127.0.0.1:2/callback"
    client = Client(server.url, FIXED_ID, FIXED_SECRET, callback)
    assert "redirect_uri" in Browser().get(f"{server.url}/auth?response_type=code&client_id={FIXED_ID}&redirect_uri={callback}").body
    server.allow_redirect(callback)
    assert client.authorize(Browser(deny=True))["error"] == "access_denied"
    tokens = client.redeem(client.authorize(Browser())["code"])
    assert accepted(tap, tokens)


def test_an_issuer_with_a_path_is_found_at_both_spellings():
    with AuthorizationServer("--issuer-path", "/tenant") as server:
        issuer = f"{server.url}/tenant"
        for address in (f"{server.url}/.well-known/oauth-authorization-server/tenant", f"{issuer}/.well-known/openid-configuration"):
            assert get_json(address)["issuer"] == issuer
        client = Client.registered(issuer)
        assert client.redeem(client.authorize(Browser())["code"])["access_token"]


def accepted(tap: Tap, tokens: dict) -> bool:
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "peers", "version": "1.0.0"}}}
    request = urllib.request.Request(f"{tap.url}/mcp", json.dumps(message).encode(), {
        "content-type": "application/json", "accept": "application/json, text/event-stream", "authorization": f"Bearer {tokens['access_token']}"})
    try:
        with opener().open(request, timeout=30):
            return True
    except urllib.error.HTTPError as e:
        assert e.status == 401 and "resource_metadata=" in e.headers["www-authenticate"]
        return False
