"""From the figures to the text of BENCHMARKS.md. Nothing is measured here."""

# The share of the machine's CPU time that other programs may take before the figures under load say little.
QUIET = 0.05
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

NAMES = {
    "direct": "direct to the upstream",
    "nginx": "nginx, plain proxy",
    "hyper": "bare hyper proxy",
    "gateway": "**vestibule**",
    "unrecorded": "vestibule, calls not recorded",
}

HEAD = f"""# Benchmarks

What a call costs on its way through the gateway, beside what it can be compared with on the same machine in the same
run: no proxy at all, nginx as a plain reverse proxy, and a hyper proxy that parses nothing. The gateway alone checks a
key, attaches a machine token on the way, and writes a row of its record for each call behind it; without those rows
(`vestibule.audit.calls: false`) it has a line of its own.

The load tool, the upstream and the target share the cores, so only the ratios carry over to another machine. Requests
per second are the honest figure and move with the machine; instructions per call are the steady one, for comparing one
commit with the next.

Everything between the two markers is written by `scripts/bench`.

{BEGIN}
{END}
"""


def section(results):
    """The text between the markers."""
    parts = [
        f"Measured with `{results['command']}` at {results['commit']}, {results['date']}.",
        _machine(results),
        *_load(results),
        *_roads(results),
        *_single_figures(results),
        "### Goals\n\n" + _table(["goal", "measured", "verdict"], goals(results)),
    ]
    return "\n\n".join(parts)


def insert(document, text):
    """The document with the part between the markers replaced."""
    before, begin, rest = document.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are not there")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def goals(results):
    """(goal, measured, verdict) for each of the goals, the verdict computed from the figures."""
    cells, rows = results["cells"], []

    def row(goal, measured, missed_by, connections=None):
        verdict = "met" if missed_by is None else f"missed by {missed_by}"
        compared = [cells[f"{target}/{connections}"] for target in ("nginx", "gateway")] if connections else []
        if any(cell["others"] > QUIET for cell in compared):
            verdict += ", but the machine was not quiet"
        rows.append((goal, measured, verdict))

    def unknown(goal):
        rows.append((goal, "not measured", ""))

    for connections in (16, 64, 256):
        goal = f"requests/s at {connections} connections at least nginx's"
        ratio = cells.get(f"gateway/{connections}", {}).get("rps_of_nginx")
        if ratio is None:
            unknown(goal)
        else:
            missed_by = None if ratio >= 1 else f"{(1 - ratio) * 100:.1f} %"
            row(goal, f"{ratio:.3f} of nginx's", missed_by, connections)

    goal = "p50 at 1 connection at most nginx's + 15 µs"
    added = cells.get("gateway/1", {}).get("p50_over_nginx")
    if added is None:
        unknown(goal)
    else:
        row(goal, f"nginx's {added:+.1f} µs", None if added <= 15 else f"{added - 15:.1f} µs", connections=1)

    single = results["single"].get("gateway", {})
    for goal, key, unit, is_met, excess in (
        ("RSS under 40 MB at 256 connections", "peak_rss", " MB", lambda v: v < 40, lambda v: v - 40),
        ("1 upstream round trip per call", "round_trips", "", lambda v: v == 1, lambda v: v - 1),
        ("start to first answered call under 100 ms", "start_ms", " ms", lambda v: v < 100, lambda v: v - 100),
    ):
        value = single.get(key)
        if value is None:
            unknown(goal)
        else:
            row(goal, f"{value:.4g}{unit}", None if is_met(value) else f"{excess(value):.4g}{unit}")
    return rows


def _machine(results):
    machine = results["machine"]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}; nginx {machine['nginx']}, "
        f"wrk {machine['wrk']}, rustc {machine['rustc']}."
    )


def _load(results):
    if not results["cells"]:
        return
    yield (
        f"### Under load\n\ntools/call with a body of {results['body_bytes']} bytes; wrk with one thread; "
        f"{results['seconds']} s for each target at each number of connections, {results['rounds']} rounds in turn, "
        "the median of the rounds; what compares with nginx is taken within a round, then the median. No call failed, and the upstream had counted every one. p50 and p99 are as wrk sees "
        "them; CPU per call is user and system time of the target's processes, for \"direct\" the upstream's."
    )

    def ratio(cell, key):
        return f"{cell[key]:.2f}" if key in cell else ""

    rows = []
    for connections in results["connections"]:
        for target in results["targets"]:
            cell = results["cells"][f"{target}/{connections}"]
            rows.append((
                str(connections),
                NAMES[target],
                f"{cell['rps']:,.0f}",
                ratio(cell, "rps_of_nginx"),
                f"{cell['p50']:,.0f} µs",
                ratio(cell, "p50_of_nginx"),
                f"{cell['p99']:,.0f} µs",
                f"{cell['cpu']:.1f} µs",
            ))
    yield _table(
        ["connections", "target", "requests/s", "of nginx's", "p50", "of nginx's", "p99", "CPU per call"], rows
    )
    full = [cell for cell, figures in results["cells"].items() if figures["wrk"] > 0.9]
    if full:
        names = ", ".join(f"{NAMES[target]} at {number}" for target, _, number in (cell.partition("/") for cell in full))
        yield f"wrk's own thread was busy more than nine tenths of the time, so that it may be the limit, here: {names}."
    others = max(cell["others"] for cell in results["cells"].values())
    if others > QUIET:
        yield (
            f"**The machine was not quiet:** programs outside the benchmark took up to {others:.0%} of its CPU time "
            "while a cell was measured (median of its rounds)."
        )


def _roads(results):
    if results.get("roads"):
        rows = [
            (
                name,
                f"{cell['rps']:,.0f}",
                f"{cell['of_plain']:.2f}" if "of_plain" in cell else "1.00",
                f"{cell['p50']:,.0f} µs",
                f"{cell['p99']:,.0f} µs",
                f"{cell['cpu']:.1f} µs",
            )
            for name, cell in results["roads"].items()
        ]
        yield (
            "### The gateway's roads\n\nAt 64 connections, in one process of the gateway, the rounds as above. Each call is one request "
            "upstream, a list of three servers is three."
        )
        yield _table(["road", "requests/s", "of one server's", "p50", "p99", "CPU per call"], rows)
    if results.get("streams"):
        rows = [(NAMES[name], f"{held['kb_per_stream']:.1f} kB") for name, held in results["streams"].items()]
        number = next(iter(results["streams"].values()))["streams"]
        yield (
            f"### Open streams\n\nMemory (VmRSS) for each of {number:,} event streams on which nothing happens, both sides' connections "
            "included; the program had answered one call before."
        )
        yield _table(["target", "for each stream"], rows)


def _single_figures(results):
    rows = []
    for target in results["targets"]:
        if target == "direct":
            continue
        figures = results["single"].get(target, {})

        def show(key, form, figures=figures):
            return form.format(figures[key]) if key in figures else ""

        rows.append((
            NAMES[target],
            show("start_ms", "{:.1f} ms"),
            show("idle_rss", "{:.1f} MB"),
            show("peak_rss", "{:.1f} MB"),
            show("round_trips", "{:g}"),
            show("instructions", "{:,.0f}"),
        ))
    if not rows:
        return
    heads = ["target", "start", "RSS idle", "RSS peak", "upstream round trips per call", "instructions per call"]
    yield "### Beside the load\n\n" + _table(heads, rows)
    yield (
        "Start is from exec to the first answered call, in an empty directory, the median of 10. RSS idle is before the "
        "first call, RSS peak (VmHWM) after all the load; MB are 10^6 bytes, nginx's is the sum over its processes and "
        "counts shared pages again in each. Instructions are callgrind's, user space only: the difference between two "
        "runs of different length on one connection, divided by the calls between them."
    )


def _table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
