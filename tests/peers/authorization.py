"""The authorization server and the servers behind it as child programs, the sign-in drivers, and a
sign-in of our own for what no client lets us see.
"""
import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from browser import Browser, query
from programs import DEADLINE, HERE, MODULES, NODE, Program

KEY_HEADER = "x-litellm-api-key"


@dataclasses.dataclass
class Log:
    """What an authorization server was asked, and what came of it."""

    requests: list[dict]
    events: list[dict]

    def count(self, event: str, grant_type: str | None = None) -> int:
        return sum(e["name"] == event and grant_type in (None, e["grant_type"]) for e in self.events)

    def asked(self, method: str, path: str) -> list[dict]:
        return [r for r in self.requests if r["method"] == method and r["path"].partition("?")[0] == path]

    @property
    def authorizations(self) -> list[dict[str, str]]:
        return [query(r["path"]) for r in self.asked("GET", "/auth")]

    @property
    def registrations(self) -> list[dict]:
        return [r["body"] for r in self.asked("POST", "/reg") if r["status"] == 201]

    @property
    def token_requests(self) -> list[dict]:
        return [r["body"] for r in self.asked("POST", "/token")]

    @property
    def errors(self) -> list[dict]:
        return [e for e in self.events if e["error"]]

    @property
    def secrets(self) -> list[str]:
        """Everything in the log that no log of a gateway may hold."""
        named = ("access_token", "refresh_token", "id_token", "code", "code_verifier", "client_secret", "registration_access_token")
        found = [part[name] for r in self.requests if r["path"] in ("/token", "/reg") for part in (r["body"] or {}, r["answer"] or {})
                 for name in named if part.get(name)]
        return sorted(set(found))


class AuthorizationServer(Program):
    """oidc-provider; the options are those of authorization_server.mjs."""

    def __init__(self, *options: str) -> None:
        super().__init__("the authorization server", [NODE, HERE / "authorization_server" / "authorization_server.mjs", MODULES, *options])

    @property
    def control(self) -> str:
        return f"{self.url}/control"

    def seen(self, since: Log | None = None) -> Log:
        log = Log(**get_json(self.control))
        return log if since is None else Log(log.requests[len(since.requests):], log.events[len(since.events):])

    def allow_redirect(self, uri: str) -> None:
        post_json(f"{self.control}/redirect-uris", {"uri": uri})

    def advance(self, seconds: int) -> None:
        post_json(f"{self.control}/advance", {"seconds": seconds})


def protected_server(*options: str) -> Program:
    return Program("the protected server", [sys.executable, HERE / "protected_server.py", *options])


def opener():
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def send(url: str, raw: bytes | None = None, headers: dict | None = None) -> tuple[int, dict]:
    """One request; the answer's status and its JSON."""
    try:
        answer = opener().open(urllib.request.Request(url, raw, headers or {}), timeout=DEADLINE)
    except urllib.error.HTTPError as e:
        answer = e
    body = answer.read()
    return answer.status, json.loads(body) if body else {}


def get_json(url: str) -> dict:
    return send(url)[1]


def post_json(url: str, body: dict) -> tuple[int, dict]:
    return send(url, json.dumps(body).encode(), {"content-type": "application/json"})


def post_form(url: str, form: dict) -> tuple[int, dict]:
    return send(url, urllib.parse.urlencode(form).encode(), {"content-type": "application/x-www-form-urlencoded"})


# Name: what runs it. Each signs in on its own, with nothing but a URL.
DRIVERS = {
    "python-sdk": [sys.executable, HERE / "sign_in" / "python_sdk.py"],
    "ts-sdk-v1": [NODE, HERE / "sign_in" / "typescript_sdk.mjs", "--v1"],
    "ts-sdk-v2": [NODE, HERE / "sign_in" / "typescript_sdk.mjs"],
    "fastmcp": [sys.executable, HERE / "sign_in" / "fastmcp_client.py"],
    "mcp-remote": [sys.executable, HERE / "sign_in" / "mcp_remote.py"],
}


@dataclasses.dataclass
class Run:
    code: int
    seen: dict  # what the driver printed
    errors: str
    visits: list[dict]  # what the browser did, one for each time it was opened

    @property
    def hops(self) -> list[str]:
        assert len(self.visits) == 1, f"the browser was opened {len(self.visits)} times:\n{self.errors}"
        assert "error" not in self.visits[0], self.visits[0]
        return [hop["url"] for hop in self.visits[0]["hops"]]


def drive(driver: str, url: str, directory: pathlib.Path, key: str | None = None, expire: str | None = None, user: str = "alice",
          deny: bool = False, ca: pathlib.Path | None = None) -> Run:
    program, script, *options = map(str, DRIVERS[driver])
    argv = [program, script, url, *options] + (["--key", key] if key else []) + (["--expire", expire] if expire else [])
    visits = directory / "browser.jsonl"
    env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY") and k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    env |= {"HOME": str(directory), "MCP_REMOTE_CONFIG_DIR": str(directory / "mcp-remote"), "MODULES": str(MODULES), "NODE": str(NODE),
            "PEERS_PYTHON": sys.executable, "BROWSER": str(HERE / "sign_in" / "browser.sh"), "BROWSER_LOG": str(visits), "BROWSER_USER": user,
            "BROWSER_DENY": "1" if deny else "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if ca:
        env |= {"SSL_CERT_FILE": str(ca), "NODE_EXTRA_CA_CERTS": str(ca), "BROWSER_CA": str(ca)}
    done = subprocess.run(argv, env=env, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * DEADLINE)
    opened = [json.loads(line) for line in visits.read_text().splitlines()] if visits.exists() else []
    return Run(done.returncode, json.loads(done.stdout) if done.returncode == 0 else {}, done.stderr, opened)


@dataclasses.dataclass
class Client:
    """A client that does what it is told, one step of the flow at a time."""

    server: str
    client_id: str
    client_secret: str | None = None
    redirect_uri: str = "http://127.0.0.1:1/callback"  # nothing listens: the code is read off the redirect

    @classmethod
    def registered(cls, server: str):
        status, answer = post_json(f"{server}/reg", {"redirect_uris": [cls.redirect_uri], "token_endpoint_auth_method": "none", "application_type": "native",
                                                     "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"]})
        assert status == 201, answer
        return cls(server, answer["client_id"])

    def authorize(self, browser: Browser, **more: str) -> dict[str, str]:
        self.verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {"response_type": "code", "client_id": self.client_id, "redirect_uri": self.redirect_uri, "code_challenge": challenge,
                 "code_challenge_method": "S256", "scope": "mcp:tools", "state": "s"} | more
        return query(browser.visit(f"{self.server}/auth?{urllib.parse.urlencode(asked)}", stop=self.redirect_uri).url)

    def token(self, **form: str) -> tuple[int, dict]:
        known = {"client_id": self.client_id} | ({"client_secret": self.client_secret} if self.client_secret else {})
        return post_form(f"{self.server}/token", known | form)

    def redeem(self, code: str) -> dict:
        status, tokens = self.token(grant_type="authorization_code", code=code, redirect_uri=self.redirect_uri, code_verifier=self.verifier)
        assert status == 200, tokens
        return tokens

    def refresh(self, refresh_token: str) -> tuple[int, dict]:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token)

    def revoke(self, token: str) -> None:
        known = {"client_id": self.client_id} | ({"client_secret": self.client_secret} if self.client_secret else {})
        status, answer = post_form(f"{self.server}/token/revocation", known | {"token": token})
        assert status == 200, answer
