#!/usr/bin/env python3
"""Sign-in through FastMCP's client with `auth="oauth"` (see driver.py): nothing of it is replaced."""
import asyncio
import json
import os
import warnings

import driver

os.environ["BROWSER"] = driver.browser_command(os.environ["BROWSER"])
warnings.filterwarnings("ignore", message="Using in-memory token storage.*")

from fastmcp import Client  # noqa: E402
from fastmcp.client.transports import StreamableHttpTransport  # noqa: E402


async def main() -> None:
    args = driver.arguments()
    async with Client(StreamableHttpTransport(args.url, headers=args.headers, auth="oauth"), timeout=30) as client:
        async def list_tools() -> list[str]:
            return [t.name for t in await client.list_tools()]

        async def call(name: str, arguments: dict) -> str:
            return (await client.call_tool(name, arguments)).content[0].text

        print(json.dumps(await driver.rounds(args, list_tools, call)))


asyncio.run(main())
