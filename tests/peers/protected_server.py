#!/usr/bin/env python3
"""MCP server, on Python `mcp`, that accepts only the tokens of one authorization server.

    protected_server.py --issuer URL [--resource URL] [--stateless] [--any-audience | --signed]

The SDK's own resource server does the work: 401 with `resource_metadata`, RFC 9728 metadata, and each
token is introspected on each request. `--resource` is the URL that clients use when a hop stands in
front. `--any-audience` is for authorization servers without resource indicators: tokens without an
audience count too; one for somebody else never does. `--signed` is for signed access tokens: the server
verifies them by the authorization server's keys, and its tool `actor` says who acts for the person.
Prints `listening on http://127.0.0.1:PORT`.
"""
import argparse
import asyncio
import json
import logging
import socket
import sys

import httpx2
import jwt
import uvicorn
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings

SCOPE = "mcp:tools"


class Introspection:
    """Asks the authorization server about every token, so that what is revoked stops to count."""

    def __init__(self, issuer: str, resource: str, any_audience: bool) -> None:
        self.resource, self.any_audience = resource, any_audience
        self.http = httpx2.AsyncClient(auth=("resource-server", "resource-server-secret"), trust_env=False, timeout=20)
        self.endpoint = f"{issuer}/token/introspection"

    async def verify_token(self, token: str) -> AccessToken | None:
        got = (await self.http.post(self.endpoint, data={"token": token, "token_type_hint": "access_token"})).raise_for_status().json()
        audience = got.get("aud") or []
        audience = [audience] if isinstance(audience, str) else audience
        if not got.get("active") or not (self.resource in audience or self.any_audience and not audience):
            print(f"refused: {json.dumps(got)}", file=sys.stderr, flush=True)
            return None
        return AccessToken(token=token, client_id=got["client_id"], scopes=got.get("scope", "").split(), subject=got["sub"],
                           resource=self.resource, claims={"iss": got["iss"]})


class Signed:
    """Verifies tokens by the issuer's keys: RFC 9068, and who acts (RFC 8693 section 4.1)."""

    def __init__(self, issuer: str, resource: str) -> None:
        self.issuer, self.resource, self.keys = issuer, resource, jwt.PyJWKClient(f"{issuer}/jwks")

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            if jwt.get_unverified_header(token)["typ"] != "at+jwt":
                raise jwt.InvalidTokenError("it is no access token")
            key = await asyncio.to_thread(self.keys.get_signing_key_from_jwt, token)
            claims = jwt.decode(token, key.key, algorithms=["RS256"], issuer=self.issuer, audience=self.resource, options={"require": ["exp", "sub"]})
        except jwt.InvalidTokenError as e:
            print(f"refused: {e}", file=sys.stderr, flush=True)
            return None
        return AccessToken(token=token, client_id=claims["act"]["sub"], scopes=claims["scope"].split(), subject=claims["sub"],
                           resource=self.resource, claims=claims)


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--issuer", required=True)
    p.add_argument("--resource")
    p.add_argument("--stateless", action="store_true")
    p.add_argument("--any-audience", action="store_true")
    p.add_argument("--signed", action="store_true")
    args = p.parse_args()
    logging.disable(logging.INFO)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    resource = args.resource or f"{url}/mcp"
    verifier = Signed(args.issuer, resource) if args.signed else Introspection(args.issuer, resource, args.any_audience)
    server = MCPServer("protected-server", token_verifier=verifier, auth=AuthSettings(
        issuer_url=args.issuer, resource_server_url=resource, required_scopes=[SCOPE], validate_token_resource=True))

    @server.tool()
    def echo(message: str) -> str:
        return message

    @server.tool()
    def add(a: float, b: float) -> float:
        return a + b

    @server.tool()
    def whoami() -> str:
        return get_access_token().subject

    if args.signed:
        @server.tool()
        def actor() -> str:
            return get_access_token().claims["act"]["sub"]

    app = server.streamable_http_app(stateless_http=args.stateless,
                                     transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False))
    print(f"listening on {url}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listener])


if __name__ == "__main__":
    main()
