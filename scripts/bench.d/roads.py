"""The gateway's other roads beside the plain one, in one process of it: the same call through the endpoint of several
servers, with a token that the caller's was exchanged for, the list of three servers; and what open streams hold.
"""

import http.client
import json
import os
import socket
import statistics
import tempfile

from processes import Failed

CONNECTIONS = 64
STREAMS = 1_000
SUBJECT = "bench-subject-0123456789abcdef"
CONFIG = """\
general_settings: {{master_key: {key}}}
mcp_servers:
  bench: {{url: "http://127.0.0.1:{port}/mcp", auth_type: oauth2, client_id: bench, client_secret: bench-secret, token_url: "http://127.0.0.1:{port}/oauth/token"}}
  second: {{url: "http://127.0.0.1:{port}/mcp"}}
  third: {{url: "http://127.0.0.1:{port}/mcp"}}
  exchange: {{url: "http://127.0.0.1:{port}/mcp", auth_type: oauth2_token_exchange, client_id: bench, client_secret: bench-secret, token_exchange_endpoint: "http://127.0.0.1:{port}/oauth/token"}}
"""
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


class Road:
    """One way through the gateway: the path, what the request carries, and the upstream requests of each call."""

    def __init__(self, name, path, body, headers=(), upstream_calls=1):
        self.name, self.path, self.body, self.headers, self.upstream_calls = name, path, body, list(headers), upstream_calls


def measure(bench, rounds):
    """(figures of each road, figures of the streams)."""
    program = bench.start_gateway(CONFIG, "roads")
    roads = _roads(bench, program)
    samples = {road.name: [] for road in roads}
    for road in roads:
        bench.load("gateway", program, CONNECTIONS, 1, road)
    for turn in range(1, rounds + 1):
        for road in roads:
            sample = bench.sample("gateway", program, CONNECTIONS, road)
            samples[road.name].append(sample)
            bench.say(f"round {turn}  {road.name:40}{sample['rps']:10,.0f}/s{sample['p50']:10,.1f} us")
    for road in roads[1:]:
        for sample, plain in zip(samples[road.name], samples[roads[0].name]):
            sample["of_plain"] = sample["rps"] / plain["rps"]
    figures = {
        name: {key: statistics.median(sample[key] for sample in turns) for key in turns[0]}
        for name, turns in samples.items()
    }
    program.stop()
    return figures, _streams(bench)


def _roads(bench, program):
    with open(bench.body, encoding="utf-8") as file:
        call = json.load(file)
    named = {**call, "params": {**call["params"], "name": f"second-{call['params']['name']}"}}
    session = _initialize(program, bench.key_header)
    several = [f"mcp-session-id: {session}", "x-mcp-servers: bench,second,third"]
    return [
        Road("tools/call, one server, machine token", "/bench/mcp", bench.body),
        Road("tools/call, token exchanged, cached", "/exchange/mcp", bench.body, [f"authorization: Bearer {SUBJECT}"]),
        Road("tools/call, endpoint of three servers", "/mcp", _file(bench, named), several),
        Road("tools/list, endpoint of three servers", "/mcp", _file(bench, LIST), several, upstream_calls=3),
    ]


def _file(bench, message):
    handle, path = tempfile.mkstemp(suffix=".json", dir=bench.directory)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(message, file)
    return path


def _initialize(program, key_header):
    name, _, value = key_header.partition(": ")
    headers = {
        name: value,
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "x-mcp-servers": "bench,second,third",
    }
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=10)
    try:
        connection.request("POST", "/mcp", json.dumps(INITIALIZE), headers)
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    session = response.getheader("mcp-session-id")
    if response.status != 200 or not session:
        raise Failed(f"no session on /mcp: {response.status} {answer[:300]!r}\n{program.log_tail()}")
    return session


def _streams(bench):
    """Open event streams on which nothing happens, and the memory that they take, by target. nginx holds a head back until
    there is a body."""
    held = {}
    for name in ("hyper", "gateway"):
        if name not in bench.options.targets:
            continue
        program = bench.start(name)
        bench.call_once(name, program)
        before = program.memory_mb("VmRSS")
        sockets = [_open_stream(bench, name, program) for _ in range(STREAMS)]
        held[name] = {"streams": STREAMS, "kb_per_stream": (program.memory_mb("VmRSS") - before) * 1000 / STREAMS}
        bench.say(f"{STREAMS} open streams  {name:8}{held[name]['kb_per_stream']:8.1f} kB each")
        for each in sockets:
            each.close()
        program.stop()
    return held


def _open_stream(bench, name, program):
    key = f"{bench.key_header}\r\n" if name == "gateway" else ""
    request = f"GET {bench.path(name)} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n{key}\r\n"
    stream = socket.create_connection(("127.0.0.1", program.port), timeout=10)
    stream.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = stream.recv(4096)
        if not part:
            raise Failed(f"{name} closed a stream: {answer[:300]!r}\n{program.log_tail()}")
        answer += part
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failed(f"{name} refused a stream: {answer[:300]!r}\n{program.log_tail()}")
    return stream
