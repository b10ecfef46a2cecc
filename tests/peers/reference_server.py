#!/usr/bin/env python3
"""MCP server with the fixtures that the conformance suite asks for, in both protocol eras.

Every fixture name is fixed by the suite. Tools that ask the client something work in both eras:
as a request in mid-call (<= 2025-11-25) and as an InputRequiredResult (2026-07-28).
Listens on 127.0.0.1; `--era` narrows it to one era, `--bearer SECRET` makes it want that token.
"""
import argparse
import asyncio
import base64
import json
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import mcp.types as t
import uvicorn
from mcp.server import Server, ServerRequestContext
from mcp.server.caching import CacheHint
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

warnings.filterwarnings("ignore", message=".*deprecated as of 2026-07-28.*")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data\x00\x00\x00\x00").decode()
MODERN = "2026-07-28"
bus = InMemorySubscriptionBus()
Ctx = ServerRequestContext
ToolFn = Callable[[Ctx, t.CallToolRequestParams], Awaitable[Any]]
TOOLS: dict[str, tuple[t.Tool, ToolFn]] = {}


def text(s: str) -> t.TextContent:
    return t.TextContent(type="text", text=s)


def obj(properties: dict[str, Any] | None = None, required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties or {}, **({"required": required} if required else {}), **more}


def tool(name: str, description: str, schema: dict[str, Any] | None = None) -> Callable[[ToolFn], ToolFn]:
    def register(fn: ToolFn) -> ToolFn:
        TOOLS[name] = (t.Tool(name=name, description=description, input_schema=schema or obj()), fn)
        return fn

    return register


def plain(name: str, description: str, *content: Any) -> None:
    """Registers a tool without arguments that returns fixed content."""

    async def fn(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
        return list(content)

    tool(name, description)(fn)


plain("test_simple_text", "Returns one text block", text("This is a simple text response for testing."))
plain("test_image_content", "Returns one image block", t.ImageContent(type="image", data=PNG, mime_type="image/png"))
plain("test_audio_content", "Returns one audio block", t.AudioContent(type="audio", data=WAV, mime_type="audio/wav"))
plain("test_embedded_resource", "Returns one embedded resource", t.EmbeddedResource(
    type="resource", resource=t.TextResourceContents(
        uri="test://embedded-resource", mime_type="text/plain", text="This is an embedded resource content.")))
plain("test_multiple_content_types", "Returns text, image and resource",
      text("Multiple content types test:"), t.ImageContent(type="image", data=PNG, mime_type="image/png"),
      t.EmbeddedResource(type="resource", resource=t.TextResourceContents(
          uri="test://mixed-content-resource", mime_type="application/json", text='{"test":"data","value":123}')))
plain("json_schema_2020_12_tool", "Keeps JSON Schema 2020-12 keywords", text("ok"))
TOOLS["json_schema_2020_12_tool"][0].input_schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object",
                          "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"},
                   "contactMethod": {"type": "string", "enum": ["phone", "email"]},
                   "phone": {"type": "string"}, "email": {"type": "string"}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": False}


@tool("test_tool_with_logging", "Sends three log messages")
async def with_logging(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return [text("logged")]


TOOLS["test_logging_tool"] = (t.Tool(name="test_logging_tool", description="Logs at info", input_schema=obj()), with_logging)


@tool("test_tool_with_progress", "Reports 0, 50 and 100 of 100")
async def with_progress(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(0.05)
    return [text("done")]


@tool("test_error_handling", "Always fails")
async def failing(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    return t.CallToolResult(content=[text("This tool intentionally returns an error for testing")], is_error=True)


@tool("test_sampling", "Asks the client's model", obj({"prompt": {"type": "string"}}, ["prompt"]))
async def sampling(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    got = wants(params, answer=model_call(str((params.arguments or {}).get("prompt"))))
    if isinstance(got, t.InputRequiredResult):
        return got
    content = params.input_responses["answer"].content
    return [text(f"LLM response: {getattr(content, 'text', content)}")]


def ask(params: t.CallToolRequestParams, message: str, schema: dict[str, Any], prefix: str) -> Any:
    got = wants(params, answer=form(message, schema))
    if isinstance(got, t.InputRequiredResult):
        return got
    answer = params.input_responses["answer"]
    return [text(f"{prefix}: action={answer.action}, content={json.dumps(answer.content or {})}")]


@tool("test_elicitation", "Asks the user", obj({"message": {"type": "string"}}, ["message"]))
async def elicitation(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    return ask(params, str((params.arguments or {}).get("message")),
               obj({"username": {"type": "string", "description": "User's response"},
                    "email": {"type": "string", "description": "User's email address"}}, ["username", "email"]),
               "User response")


@tool("test_elicitation_sep1034_defaults", "Form with defaults")
async def defaults(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    return ask(params, "Please fill in", obj({
        "name": {"type": "string", "default": "John Doe"}, "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5}, "verified": {"type": "boolean", "default": True},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}}, []),
        "Elicitation result")


@tool("test_elicitation_sep1330_enums", "Form with every enum form")
async def enums(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    def titled(*pairs: str) -> list[dict[str, str]]:
        return [{"const": p.lower().replace(" ", "_"), "title": p} for p in pairs]

    return ask(params, "Please choose", obj({
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": titled("First Option", "Second Option")},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("First Choice", "Second Choice")}}}),
        "Elicitation completed")


@tool("test_x_mcp_header", "Has a parameter mirrored into a header",
      obj({"region": {"type": "string", "x-mcp-header": "Region"}}))
async def mirrored(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    return [text(f"region={(params.arguments or {}).get('region')}")]


@tool("test_missing_capability", "Needs the client's sampling capability")
async def needs_sampling(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    caps = ctx.session.client_capabilities
    if caps is None or caps.sampling is None:
        raise MCPError(t.MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is required", {"requiredCapabilities": {"sampling": {}}})
    return [text("ok")]


@tool("test_streaming_elicitation", "Sends progress, then asks")
async def streaming(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    await ctx.session.report_progress(1, 2)
    return wants(params, user_name=name_form())


@tool("test_reconnection", "Closes its stream in mid-call and answers after the client came back")
async def reconnection(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return [text("Reconnection test completed")]


@tool("test_trigger_tool_change", "Announces a change of the tool list")
async def tools_changed(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    await bus.publish(ToolsListChanged())
    await ctx.session.send_tool_list_changed()  # clients of the older eras listen elsewhere
    return [text("announced")]


@tool("test_trigger_prompt_change", "Announces a change of the prompt list")
async def prompts_changed(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    await bus.publish(PromptsListChanged())
    await ctx.session.send_prompt_list_changed()
    return [text("announced")]


# --- results that ask for input (2026-07-28) -----------------------------------------------


def form(message: str, schema: dict[str, Any]) -> t.ElicitRequest:
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def name_form(message: str = "What is your name?") -> t.ElicitRequest:
    return form(message, obj({"name": {"type": "string"}}, ["name"]))


def model_call(prompt: str) -> t.CreateMessageRequest:
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(
        messages=[t.SamplingMessage(role="user", content=text(prompt))], max_tokens=100))


def wants(params: Any, state: str | None = None, **requests: Any) -> Any:
    """An InputRequiredResult until every key of `requests` was answered with the right kind of result."""
    got = params.input_responses or {}
    complete = all(isinstance(got.get(k), KINDS[r.method]) for k, r in requests.items())
    if complete and (state is None or params.request_state == state):
        return [text("complete: " + json.dumps({k: got[k].model_dump(mode="json", by_alias=True, exclude_none=True) for k in requests}))]
    return t.InputRequiredResult(input_requests=requests, request_state=state)


KINDS: dict[str, Any] = {
    "elicitation/create": t.ElicitResult, "sampling/createMessage": t.CreateMessageResult, "roots/list": t.ListRootsResult}


async def settle(ctx: Ctx, params: Any, fn: Callable[[Ctx, Any], Awaitable[Any]]) -> Any:
    """Runs a handler. Towards a client of an older era its questions go out as requests in mid-call."""
    got = await fn(ctx, params)
    rounds = 0
    while isinstance(got, t.InputRequiredResult) and ctx.protocol_version < MODERN and rounds < 8:
        rounds += 1
        answers = {k: await ctx.session.send_request(r, KINDS[r.method], metadata=ServerMessageMetadata(related_request_id=ctx.request_id))
                   for k, r in (got.input_requests or {}).items()}
        params = params.model_copy(update={"input_responses": answers, "request_state": got.request_state})
        got = await fn(ctx, params)
    return got


def asking(name: str, state: str | None = None, **requests: Any) -> None:
    async def fn(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
        return wants(params, state, **requests)

    tool(name, "Asks for " + ", ".join(requests))(fn)


asking("test_input_required_result_elicitation", user_name=name_form())
asking("test_input_required_result_sampling", capital_question=model_call("What is the capital of France?"))
asking("test_input_required_result_list_roots", client_roots=t.ListRootsRequest())
asking("test_input_required_result_multiple_inputs", "many", user_name=name_form(), greeting=model_call("Say hello"),
       client_roots=t.ListRootsRequest())


@tool("test_input_required_result_request_state", "Checks that the state comes back")
async def with_state(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    got = wants(params, "nonce-1", confirm=form("Please confirm", obj({"ok": {"type": "boolean"}}, ["ok"])))
    return got if isinstance(got, t.InputRequiredResult) else [text("state-ok")]


@tool("test_input_required_result_tampered_state", "Rejects a changed state")
async def tampered(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    if params.request_state is None:
        return t.InputRequiredResult(request_state="first", input_requests={
            "confirm": form("Please confirm", obj({"ok": {"type": "boolean"}}, ["ok"]))})
    return [text("state-ok")]


@tool("test_input_required_result_multi_round", "Asks twice")
async def multi_round(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    state = json.loads(params.request_state or "{}")
    got = params.input_responses or {}
    if state.get("round") == 2 and isinstance(got.get("step2"), t.ElicitResult):
        return [text(f"complete: {state['name']} {got['step2'].content}")]
    if state.get("round") == 1 and isinstance(got.get("step1"), t.ElicitResult):
        return t.InputRequiredResult(
            input_requests={"step2": form("Which colour?", obj({"color": {"type": "string"}}, ["color"]))},
            request_state=json.dumps({"round": 2, "name": (got["step1"].content or {}).get("name")}))
    return t.InputRequiredResult(input_requests={"step1": name_form()}, request_state=json.dumps({"round": 1}))


@tool("test_input_required_result_capabilities", "Asks only for what the client declared")
async def by_capability(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    caps = ctx.session.client_capabilities
    ask_for: dict[str, Any] = {}
    if caps and caps.sampling is not None:
        ask_for["sample"] = model_call("Say hello")
    if caps and caps.elicitation is not None:
        ask_for["ask"] = name_form()
    return t.InputRequiredResult(input_requests=ask_for, request_state="capabilities")


# --- handlers ---------------------------------------------------------------------------------


async def list_tools(ctx: Ctx, params: Any) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[definition for definition, _ in TOOLS.values()])


async def call_tool(ctx: Ctx, params: t.CallToolRequestParams) -> Any:
    if params.name not in TOOLS:
        raise MCPError(t.INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        got = await settle(ctx, params, TOOLS[params.name][1])
    except MCPError as e:
        if ctx.protocol_version >= MODERN or e.error.code == t.MISSING_REQUIRED_CLIENT_CAPABILITY:
            raise
        got = t.CallToolResult(content=[text(str(e))], is_error=True)
    return t.CallToolResult(content=got) if isinstance(got, list) else got


RESOURCES = {
    "test://static-text": ("text/plain", "A text"), "test://static-binary": ("image/png", "An image"),
    "test://watched-resource": ("text/plain", "Can be watched"),
}


async def list_resources(ctx: Ctx, params: Any) -> t.ListResourcesResult:
    return t.ListResourcesResult(resources=[
        t.Resource(uri=u, name=u.removeprefix("test://"), description=d, mime_type=m) for u, (m, d) in RESOURCES.items()])


async def list_templates(ctx: Ctx, params: Any) -> t.ListResourceTemplatesResult:
    return t.ListResourceTemplatesResult(resource_templates=[t.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", description="Data by id", mime_type="application/json")])


async def read_resource(ctx: Ctx, params: t.ReadResourceRequestParams) -> t.ReadResourceResult:
    uri = str(params.uri)
    if uri == "test://static-binary":
        body: Any = t.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        ident = uri.split("/")[3]
        body = t.TextResourceContents(uri=uri, mime_type="application/json",
                                      text=json.dumps({"id": ident, "templateTest": True, "data": f"Data for ID: {ident}"}))
    elif uri == "test://static-text":
        body = t.TextResourceContents(uri=uri, mime_type="text/plain", text="This is the content of the static text resource.")
    elif uri in RESOURCES:
        body = t.TextResourceContents(uri=uri, mime_type="text/plain", text="watched")
    else:
        raise MCPError(t.INVALID_PARAMS if ctx.protocol_version >= MODERN else -32002, "Resource not found", {"uri": uri})
    return t.ReadResourceResult(contents=[body])


def user(content: Any) -> t.PromptMessage:
    return t.PromptMessage(role="user", content=content)


PROMPTS = {
    "test_simple_prompt": [], "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"], "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


async def list_prompts(ctx: Ctx, params: Any) -> t.ListPromptsResult:
    return t.ListPromptsResult(prompts=[t.Prompt(name=n, description=n.replace("_", " "), arguments=[
        t.PromptArgument(name=a, description=a, required=True) for a in args]) for n, args in PROMPTS.items()])


async def get_prompt(ctx: Ctx, params: t.GetPromptRequestParams) -> Any:
    return await settle(ctx, params, render_prompt)


async def render_prompt(ctx: Ctx, params: t.GetPromptRequestParams) -> Any:
    a = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            messages = [user(text("This is a simple prompt for testing."))]
        case "test_prompt_with_arguments":
            messages = [user(text(f"Prompt with arguments: arg1='{a.get('arg1')}', arg2='{a.get('arg2')}'"))]
        case "test_prompt_with_embedded_resource":
            messages = [user(t.EmbeddedResource(type="resource", resource=t.TextResourceContents(
                uri=a.get("resourceUri", ""), mime_type="text/plain", text="Embedded resource content for testing."))),
                user(text("Please process the embedded resource above."))]
        case "test_prompt_with_image":
            messages = [user(t.ImageContent(type="image", data=PNG, mime_type="image/png")),
                        user(text("Please analyze the image above."))]
        case "test_input_required_result_prompt":
            got = wants(params, user_context=form("Which context?", obj({"context": {"type": "string"}}, ["context"])))
            if isinstance(got, t.InputRequiredResult):
                return got
            messages = [user(got[0])]
        case _:
            raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return t.GetPromptResult(messages=messages)


async def complete(ctx: Ctx, params: t.CompleteRequestParams) -> t.CompleteResult:
    return t.CompleteResult(completion=t.Completion(values=["paris", "park"], total=2, has_more=False))


async def accept(ctx: Ctx, params: Any) -> t.EmptyResult:
    return t.EmptyResult()


class Events(EventStore):
    """Replays what a legacy client missed on one stream."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.log.append((stream_id, message))
        return str(len(self.log))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        if not last_event_id.isdigit() or not 0 < int(last_event_id) <= len(self.log):
            return None
        stream = self.log[int(last_event_id) - 1][0]
        for n, (sid, message) in enumerate(self.log[int(last_event_id):], int(last_event_id) + 1):
            if sid == stream and message is not None:
                await send_callback(EventMessage(message, str(n)))
        return stream


def build() -> Server:
    hint = CacheHint(ttl_ms=60_000, scope="public")
    server = Server(
        "reference-server", version="1.0.0", instructions="Fixtures for conformance tests.",
        cache_hints={m: hint for m in ("tools/list", "prompts/list", "resources/list", "resources/templates/list",
                                       "resources/read", "server/discover")},
        on_list_tools=list_tools, on_call_tool=call_tool, on_list_resources=list_resources,
        on_list_resource_templates=list_templates, on_read_resource=read_resource,
        on_subscribe_resource=accept, on_unsubscribe_resource=accept, on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=list_prompts, on_get_prompt=get_prompt, on_completion=complete, on_set_logging_level=accept)
    security = RequestStateSecurity(keys=[b"reference-server-fixture-key-0123456789"])
    server.middleware.append(RequestStateBoundary(security, default_audience="reference-server"))
    return server


# --- ASGI wrappers ------------------------------------------------------------------------------


async def answer(send: Any, status: int, body: dict[str, Any] | None, headers: dict[str, str] | None = None) -> None:
    raw = json.dumps(body).encode() if body is not None else b""
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", b"application/json"), *((k.encode(), v.encode()) for k, v in (headers or {}).items())]})
    await send({"type": "http.response.body", "body": raw})


def replaying(body: bytes, receive: Any) -> Any:
    """A receive channel that hands out a body that was read already."""
    done = False

    async def again() -> Any:
        nonlocal done
        if done:
            return await receive()
        done = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def one_era(app: Any, era: str) -> Any:
    """Answers the other era the way a server that does not implement it does."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/mcp":
            return await app(scope, receive, send)
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        modern = headers.get("mcp-protocol-version", "") >= MODERN
        if scope["method"] != "POST":
            if era == "modern":
                return await answer(send, 405, None, {"allow": "POST"})
            return await app(scope, receive, send)
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        try:
            message = json.loads(body)
        except ValueError:
            message = {}
        ident = message.get("id") if isinstance(message, dict) else None
        if era == "modern" and not modern and ident is not None:
            version = (message.get("params") or {}).get("protocolVersion", headers.get("mcp-protocol-version", "2025-03-26"))
            return await answer(send, 400, {"jsonrpc": "2.0", "id": ident, "error": {
                "code": -32022, "message": "Unsupported protocol version",
                "data": {"supported": [MODERN], "requested": version}}})
        if era == "legacy" and modern:  # what servers of the 2025 revisions answer
            return await answer(send, 400, {"jsonrpc": "2.0", "id": None, "error": {
                "code": -32000, "message": "Bad Request: Unsupported protocol version"}})
        await app(scope, replaying(body, receive), send)

    return wrapped


def protected(app: Any, bearer: str) -> Any:
    """Lets a request pass only with the one static token; the refusal is a resource server's challenge."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if dict(scope["headers"]).get(b"authorization", b"") != b"Bearer " + bearer.encode():
            return await answer(send, 401, {"error": "invalid_token"}, {"www-authenticate": 'Bearer error="invalid_token"'})
        await app(scope, receive, send)

    return wrapped


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--port", type=int, default=0, help="0: any free port, told by the line on stdout")
    p.add_argument("--era", choices=["both", "legacy", "modern"], default="both")
    p.add_argument("--bearer", help="the one static token to accept")
    args = p.parse_args()
    app: Any = build().streamable_http_app(event_store=Events(), retry_interval=100)
    if args.era != "both":
        app = one_era(app, args.era)
    if args.bearer:
        app = protected(app, args.bearer)
    listener = socket.create_server(("127.0.0.1", args.port))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
