-- The tools/call an MCP SDK sends. The body is the file named by BENCH_BODY; the gateway's key comes with -H.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
wrk.headers["accept"] = "application/json, text/event-stream"
wrk.headers["mcp-protocol-version"] = "2025-11-25"

-- One line for scripts/bench; times are in microseconds.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'bench: {"requests": %d, "micros": %d, "p50": %.1f, "p99": %.1f, "socket_errors": %d, "status_errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
