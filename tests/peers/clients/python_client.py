"""The Python SDK's client, driven by a list of steps (see plans.py); returns what it saw as JSON values."""
import asyncio
import warnings

import httpx2
import mcp.types as t
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

from programs import DEADLINE, STREAM_DEADLINE


def plain(model) -> dict:
    """As on the wire: only what was sent, under the names of the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def run(url: str, headers: dict, mode: str, steps: list, ask: dict | None) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)  # what 2026-07-28 removed is still what older servers speak
        return asyncio.run(asyncio.wait_for(drive(url, headers, mode, steps, ask), 2 * DEADLINE))


async def drive(url: str, headers: dict, mode: str, steps: list, ask: dict | None) -> dict:
    notifications: list = []
    asked: list = []
    stream_open = asyncio.Event()

    async def on_response(response) -> None:
        if response.request.method == "GET" and response.status_code == 200:
            stream_open.set()

    async def on_message(message) -> None:
        if isinstance(message, Exception):
            raise message
        notifications.append(plain(message))

    def answering(kind: str, result_type):
        async def answer(context, params=None):
            asked.append([kind, plain(params) if params is not None else None])
            return result_type.model_validate(ask[kind])

        return answer

    callbacks = {} if ask is None else {
        "sampling_callback": answering("sampling/createMessage", t.CreateMessageResult),
        "elicitation_callback": answering("elicitation/create", t.ElicitResult),
        "list_roots_callback": answering("roots/list", t.ListRootsResult),
    }

    async def step(client, what: str, *args):
        match what:
            case "tools/list":
                return plain(await client.list_tools())
            case "tools/call":
                name, arguments, *meta = args
                progress: list = []

                async def on_progress(done, total, message) -> None:
                    progress.append([done, total, message])

                got = await client.call_tool(name, arguments, progress_callback=on_progress, meta=meta[0] if meta else None)
                return {"result": plain(got), "progress": progress}
            case "prompts/list":
                return plain(await client.list_prompts())
            case "prompts/get":
                return plain(await client.get_prompt(*args))
            case "resources/list":
                return plain(await client.list_resources())
            case "resources/templates/list":
                return plain(await client.list_resource_templates())
            case "resources/read":
                return plain(await client.read_resource(*args))
            case "resources/subscribe":
                return plain(await client.subscribe_resource(*args))
            case "completion/complete":
                ref, argument = args
                kind = t.PromptReference if ref["type"] == "ref/prompt" else t.ResourceTemplateReference
                return plain(await client.complete(kind.model_validate(ref), argument))
            case "logging/setLevel":
                return plain(await client.set_logging_level(*args))
            case "ping":
                return plain(await client.send_ping())
            case "stream open":
                await asyncio.wait_for(stream_open.wait(), STREAM_DEADLINE)
            case "wait for":
                method, count = args
                while sum(n["method"] == method for n in notifications) < count:
                    await asyncio.sleep(0.01)
            case _:
                raise ValueError(what)

    out = []
    async with httpx2.AsyncClient(headers=headers, timeout=DEADLINE, trust_env=False, event_hooks={"response": [on_response]}) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode, message_handler=on_message, **callbacks) as client:
            connection = {
                "version": client.protocol_version, "server": plain(client.server_info) if client.server_info else None,
                "capabilities": plain(client.server_capabilities), "instructions": client.instructions,
            }
            for what, *args in steps:
                try:
                    out.append(await step(client, what, *args))
                except MCPError as e:
                    out.append({"error": plain(e.error)})
    return {"connection": connection, "steps": out, "notifications": notifications, "asked": asked}
