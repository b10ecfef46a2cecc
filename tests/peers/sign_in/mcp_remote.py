#!/usr/bin/env python3
"""Sign-in through mcp-remote (see driver.py), run over stdio as a host without OAuth runs it.

$NODE and $MODULES name Node and its modules, $MCP_REMOTE_CONFIG_DIR where mcp-remote keeps its tokens.
"""
import asyncio
import json
import os
import sys

import driver


async def main() -> None:
    args = driver.arguments()
    command = [os.environ["NODE"], f"{os.environ['MODULES']}/mcp-remote/dist/proxy.js", args.url]
    for name, value in args.headers.items():
        command += ["--header", f"{name}:{value}"]
    child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr)
    number = 0

    async def ask(method: str, params: dict) -> dict:
        nonlocal number
        number += 1
        await say({"id": number, "method": method, "params": params})
        while line := await child.stdout.readline():
            message = json.loads(line)
            if message.get("id") == number and "method" not in message:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
        raise RuntimeError("mcp-remote ended")

    async def say(message: dict) -> None:
        child.stdin.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
        await child.stdin.drain()

    async def list_tools() -> list[str]:
        return [t["name"] for t in (await ask("tools/list", {}))["tools"]]

    async def call(name: str, arguments: dict) -> str:
        return (await ask("tools/call", {"name": name, "arguments": arguments}))["content"][0]["text"]

    try:
        first = await ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "host", "version": "1"}})
        await say({"method": "notifications/initialized"})
        seen = await driver.rounds(args, list_tools, call, driver.move_clock)
        print(json.dumps(seen | {"protocol": first["protocolVersion"]}))
    finally:
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), 10)
        except asyncio.TimeoutError:
            child.kill()
            await child.wait()


asyncio.run(main())
