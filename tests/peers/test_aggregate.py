"""The official SDK clients list and call across three servers at one endpoint. Each result equals the one that the client
gets from that server directly, under the server's name.
"""
import functools

import pytest

import plans
import programs
import sdk_clients
from programs import CLIENT_ID, CLIENT_SECRET, ISSUED_TOKEN, MASTER_KEY

KEY_HEADERS = {"x-litellm-api-key": f"Bearer {MASTER_KEY}"}
OUTCOMES = "litellm.ai/server_outcomes"
LISTS = [["tools/list"], ["prompts/list"], ["resources/list"], ["resources/templates/list"]]
MEMBERS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources", "resources/templates/list": "resourceTemplates"}
MOCK = [["tools/call", "echo", {"message": plans.TEXT}], ["tools/call", "add", {"a": 2, "b": 40}], ["tools/call", "no_such_tool", {}]]


@pytest.fixture(scope="module")
def mock():
    with programs.mock() as server:
        yield server


@pytest.fixture(scope="module")
def several(gateway, taps, token_endpoint, mock):
    """Three servers: one with a machine token, one without a credential, one of another make."""
    return gateway(f"""
general_settings: {{master_key: {MASTER_KEY}}}
mcp_servers:
  m2m: {{url: "{taps['m2m'].url}/mcp", auth_type: oauth2, client_id: {CLIENT_ID}, client_secret: {CLIENT_SECRET}, token_url: "{token_endpoint.url}", scopes: [mcp:tools]}}
  everything: {{url: "{taps['everything'].url}/mcp"}}
  mock: {{url: "{mock.url}/mcp", auth_type: oauth2, client_id: test-client, client_secret: test-secret, token_url: "{mock.url}/oauth/token"}}
""")


@pytest.fixture(scope="module")
def direct(protected_reference, everything, mock, several):
    """What a client sees at one server without the gateway; asked once for each client, server and plan."""

    @functools.cache
    def run(client: str, server: str, plan: str) -> dict:
        steps, ask = {"lists": (LISTS, None)}.get(plan) or CALLS[server]
        if server == "mock":  # its token is behind its own token endpoint, so it is asked through its own route
            return sdk_clients.run(client, f"{several.url}/mock/mcp", KEY_HEADERS, steps, ask)
        headers = {"authorization": f"Bearer {ISSUED_TOKEN}"} if server == "m2m" else {}
        url = {"m2m": protected_reference.url, "everything": everything.url}[server]
        return sdk_clients.run(client, f"{url}/mcp", headers, steps, ask)

    return run


def calls(steps: list) -> list:
    """Without what is asked of all servers, and without what no server has: those answers are the gateway's own."""
    of_all = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "ping", "wait for")
    nobodys = ("test://no-such-resource", "demo://resource/none")
    return [step for step in steps if step[0] not in of_all and not (step[0] == "resources/read" and step[1] in nobodys)]


CALLS = {
    "m2m": (calls(plans.REFERENCE), plans.ANSWERS),
    "everything": (calls(plans.EVERYTHING_REQUESTS), plans.ANSWERS),
    "mock": (MOCK, None),
}


def served(server: str, name: str) -> str:
    return f"{server}-{name}"


def at_the_gateway(server: str, step: list) -> list:
    """The same step with the name that the gateway serves."""
    match step:
        case [("tools/call" | "prompts/get") as what, name, *rest]:
            return [what, served(server, name), *rest]
        case ["completion/complete", {"type": "ref/prompt", "name": name} as ref, argument]:
            return ["completion/complete", {**ref, "name": served(server, name)}, argument]
    return step


@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_lists_are_those_of_the_servers_one_after_the_other(client, several, direct):
    through = sdk_clients.run(client, f"{several.url}/mcp", KEY_HEADERS, LISTS)["steps"]
    for at, [method] in enumerate(LISTS):
        member = MEMBERS[method]
        wanted = []
        for server in CALLS:
            listed = direct(client, server, "lists")["steps"][at].get(member, [])
            wanted += [{**item, "name": served(server, item["name"])} for item in listed]
        assert list(map(plain, through[at][member])) == list(map(plain, wanted)), method
        assert {name: outcome["status"] for name, outcome in through[at]["_meta"][OUTCOMES].items()} == dict.fromkeys(CALLS, "ok")
    assert len(through[0]["tools"]) > 30


def plain(item: dict) -> dict:
    """Without what the TypeScript SDK keeps from servers of one era alone."""
    schema = {name: value for name, value in item.get("inputSchema", {}).items() if name != "$schema"}
    return {**{name: value for name, value in item.items() if name != "execution"}, "inputSchema": schema}


def without_hop(answer: dict) -> dict:
    """Without what each hop of 2026-07-28 says of itself, which an older server behind the gateway does not say."""
    result = answer.get("result", answer)
    kept = {name: value for name, value in result.items() if name not in ("resultType", "ttlMs", "cacheScope")}
    if meta := {name: value for name, value in (kept.pop("_meta", None) or {}).items() if not name.endswith("/serverInfo")}:
        kept["_meta"] = meta
    return {**answer, "result": kept} if "result" in answer else kept


def notified(seen: dict) -> list:
    """Without what server-everything says of those roots; progress tokens are numbered by the client."""
    told = [(n["method"], {name: value for name, value in (n.get("params") or {}).items() if name != "progressToken"}) for n in seen["notifications"]]
    return sorted(str(message) for message in told if "Roots updated" not in str(message[1].get("data")))


def asked(seen: dict) -> list:
    """Without the roots that server-everything asks for at the start of each session, whatever is called."""
    return [question for question in seen["asked"] if question != ["roots/list", None]]


@pytest.mark.parametrize("server", CALLS)
@pytest.mark.parametrize("client", sdk_clients.CLIENTS)
def test_results_equal_those_of_the_server_itself(client, server, several, direct):
    steps, ask = CALLS[server]
    through = sdk_clients.run(client, f"{several.url}/mcp", KEY_HEADERS, [at_the_gateway(server, step) for step in steps], ask)
    alone = direct(client, server, "calls")
    for step, got, wanted in zip(steps, through["steps"], alone["steps"], strict=True):
        assert without_hop(got) == without_hop(wanted), step
    assert asked(through) == asked(alone)
    assert notified(through) == notified(alone)
