#!/usr/bin/env python3
"""Sign-in through the Python SDK's OAuthClientProvider (see driver.py). [--mode auto|legacy]"""
import asyncio
import json
import os
import subprocess
import urllib.parse

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

import driver


class Memory(TokenStorage):
    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens) -> None:
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info) -> None:
        self.client = client_info


class Listener:
    """The loopback listener of a native client: takes one answer."""

    async def __aenter__(self):
        self.answer = asyncio.get_running_loop().create_future()
        self.server = await asyncio.start_server(self.connection, "127.0.0.1", 0)
        self.uri = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/callback"
        return self

    async def __aexit__(self, *exc) -> None:
        self.server.close()

    async def connection(self, reader, writer) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(head.split(" ")[1]).query))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 9\r\nconnection: close\r\n\r\nSigned in")
        await writer.drain()
        writer.close()
        if not self.answer.done():
            self.answer.set_result(query)


async def main() -> None:
    args = driver.arguments()
    store = Memory()
    async with Listener() as listener:
        async def redirect(url: str) -> None:
            subprocess.Popen([os.environ["BROWSER"], url], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        async def callback() -> AuthorizationCodeResult:
            got = await asyncio.wait_for(listener.answer, 30)
            if "error" in got:
                raise RuntimeError(f"the answer to the sign-in: {json.dumps(got)}")
            return AuthorizationCodeResult(code=got["code"], state=got.get("state"), iss=got.get("iss"))

        metadata = OAuthClientMetadata(client_name="Python SDK", redirect_uris=[listener.uri])
        auth = OAuthClientProvider(args.url, metadata, store, redirect, callback)
        async with httpx2.AsyncClient(auth=auth, headers=args.headers, follow_redirects=True, timeout=30) as http:
            async with Client(streamable_http_client(args.url, http_client=http)) as client:
                async def list_tools() -> list[str]:
                    return [t.name for t in (await client.list_tools()).tools]

                async def call(name: str, arguments: dict) -> str:
                    return (await client.call_tool(name, arguments)).content[0].text

                seen = await driver.rounds(args, list_tools, call)
                seen["protocol"] = client.protocol_version
    print(json.dumps(seen | {"scope": store.tokens.scope}))


asyncio.run(main())
