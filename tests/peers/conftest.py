"""Fixtures: the upstreams and taps of the whole run, gateways by configuration, and two gateways
that most tests share. After every test no upstream may have seen a secret of the gateway.
"""
import contextlib

import pytest

import programs
from programs import CLIENT_ID, CLIENT_SECRET, ISSUED_TOKEN, MASTER_KEY, Gateway
from tap import Tap
from token_endpoint import TokenEndpoint


def pytest_configure(config) -> None:
    """Without a gateway program the run fails at once, with one sentence that says why."""
    try:
        programs.gateway_program()
    except AssertionError as e:
        raise pytest.UsageError(str(e)) from None


@pytest.fixture(scope="session")
def reference():
    with programs.reference_server() as server:
        yield server


@pytest.fixture(scope="session")
def protected_reference():
    """The same server behind the bearer token that the token endpoint issues."""
    with programs.reference_server("--bearer", ISSUED_TOKEN) as server:
        yield server


@pytest.fixture(scope="session")
def everything():
    with programs.server_everything() as server:
        yield server


@pytest.fixture(scope="session")
def token_endpoint():
    with TokenEndpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def taps(reference, protected_reference, everything):
    """One tap per server name of the gateway's configuration."""
    upstreams = {"ref": reference, "other": reference, "m2m": protected_reference, "everything": everything}
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Tap(upstream.url)) for name, upstream in upstreams.items()}


@pytest.fixture(autouse=True)
def nothing_leaks(taps):
    yield
    for name, tap in taps.items():
        leaks = tap.leaks([MASTER_KEY, CLIENT_SECRET] + ([] if name == "m2m" else [ISSUED_TOKEN]))
        assert not leaks, f"the upstream of {name} was sent {leaks}"


@pytest.fixture(scope="session")
def servers_yaml(taps, token_endpoint) -> str:
    return f"""
mcp_servers:
  ref: {{url: "{taps['ref'].url}/mcp"}}
  other: {{url: "{taps['other'].url}/mcp"}}
  everything: {{url: "{taps['everything'].url}/mcp"}}
  m2m:
    url: "{taps['m2m'].url}/mcp"
    auth_type: oauth2
    client_id: {CLIENT_ID}
    client_secret: {CLIENT_SECRET}
    token_url: "{token_endpoint.url}"
    scopes: [mcp:tools]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Starts a gateway from a configuration; all of a module's are stopped, and judged, at its end."""
    running = []

    def start(config_yaml: str, public_origin: str | None = None) -> Gateway:
        one = Gateway(tmp_path_factory.mktemp("gateway"), config_yaml, public_origin).__enter__()
        running.append(one)
        return one

    yield start
    failures = []
    for one in running:
        try:
            one.__exit__(None, None, None)
        except AssertionError as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def keyed(gateway, servers_yaml) -> Gateway:
    """A gateway that wants its key."""
    return gateway(f"general_settings: {{master_key: {MASTER_KEY}}}\n{servers_yaml}")


@pytest.fixture(scope="module")
def open_gateway(gateway, servers_yaml) -> Gateway:
    """A gateway without a key: anyone on the loopback interface may use it."""
    return gateway(servers_yaml)
