"""An OAuth token endpoint for the client_credentials grant, on a free port of 127.0.0.1.

Takes a form body with client_id and client_secret and counts what it was asked.
"""
import http.server
import json
import threading
import urllib.parse

from programs import CLIENT_ID, CLIENT_SECRET, ISSUED_TOKEN


class TokenEndpoint:
    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []

    def __enter__(self):
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
                form = dict(urllib.parse.parse_qsl(raw))
                endpoint.forms.append(form)
                endpoint.headers.append({k.lower(): v for k, v in self.headers.items()})
                if self.path != "/token" or not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                    return self.reply(400, {"error": "invalid_request"})
                if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
                    return self.reply(401, {"error": "invalid_client"})
                if form.get("grant_type") != "client_credentials":
                    return self.reply(400, {"error": "unsupported_grant_type"})
                self.reply(200, {"access_token": ISSUED_TOKEN, "token_type": "Bearer", "expires_in": 3600, "scope": form.get("scope", "")})

            def reply(self, status: int, body: dict) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("cache-control", "no-store")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc) -> None:
        self.server.shutdown()
        self.server.server_close()
