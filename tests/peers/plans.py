"""What the clients do with an upstream: lists of steps [what, argument...].

`stream open` waits until the client's GET stream stands, `wait for` until so many notifications
of one method have come; the other steps are requests by their protocol names.
"""

LOG = {"io.modelcontextprotocol/logLevel": "info"}  # 2026-07-28: log messages only where asked for; older servers ignore it
TEXT = "Grüße – 你好 🙂 \"quoted\"\\ \u2028 \n\n data: x"  # what a hop could break in JSON or SSE

REFERENCE = [
    ["tools/list"],
    ["tools/call", "test_simple_text", {}],
    ["tools/call", "test_image_content", {}],
    ["tools/call", "test_multiple_content_types", {}],
    ["tools/call", "test_error_handling", {}],
    ["tools/call", "test_tool_with_progress", {}],
    ["tools/call", "test_tool_with_logging", {}, LOG],
    ["wait for", "notifications/message", 3],
    ["tools/call", "test_x_mcp_header", {"region": "Zürich"}],
    ["tools/call", "test_elicitation", {"message": "Who is there?"}],
    ["tools/call", "test_sampling", {"prompt": "The capital of France?"}],
    ["tools/call", "test_input_required_result_list_roots", {}],
    ["tools/call", "test_input_required_result_multi_round", {}],
    ["tools/call", "no_such_tool", {}],
    ["resources/read", "test://static-text"],
    ["resources/read", "test://no-such-resource"],
    ["prompts/get", "test_prompt_with_arguments", {"arg1": "one", "arg2": "zwei – 二"}],
]

EVERYTHING_REQUESTS = [
    ["ping"],
    ["tools/list"],
    ["tools/call", "echo", {"message": TEXT}],
    ["tools/call", "get-sum", {"a": 2.5, "b": 40}],
    ["tools/call", "get-sum", {"a": "not a number"}],
    ["tools/call", "get-tiny-image", {}],
    ["tools/call", "get-structured-content", {"location": "Chicago"}],
    ["tools/call", "get-annotated-message", {"messageType": "error", "includeImage": True}],
    ["tools/call", "get-resource-links", {"count": 4}],
    ["tools/call", "get-resource-reference", {"resourceType": "Blob", "resourceId": 7}],
    ["tools/call", "trigger-long-running-operation", {"duration": 0.5, "steps": 5}],
    ["tools/call", "no-such-tool", {}],
    ["prompts/list"],
    ["prompts/get", "simple-prompt", {}],
    ["prompts/get", "args-prompt", {"city": "Zürich", "state": "ZH"}],
    ["prompts/get", "resource-prompt", {"resourceType": "Text", "resourceId": "3"}],
    ["prompts/get", "no-such-prompt", {}],
    ["completion/complete", {"type": "ref/prompt", "name": "completable-prompt"}, {"name": "department", "value": "S"}],
    ["resources/list"],
    ["resources/templates/list"],
    ["resources/read", "demo://resource/static/document/features.md"],
    ["resources/read", "demo://resource/dynamic/text/5"],
    ["resources/read", "demo://resource/dynamic/blob/6"],
    ["resources/read", "demo://resource/none"],
]

# Everything that the server sends of its own accord, on the GET stream and in mid-call.
EVERYTHING_PUSHES = [
    ["stream open"],
    ["resources/subscribe", "demo://resource/dynamic/text/1"],
    ["resources/subscribe", "demo://resource/dynamic/text/2"],
    ["tools/call", "toggle-subscriber-updates", {}],
    ["wait for", "notifications/resources/updated", 2],
    ["logging/setLevel", "debug"],
    ["tools/call", "toggle-simulated-logging", {}],
    ["wait for", "notifications/message", 3],  # one for each subscription and the first simulated one
    ["tools/call", "gzip-file-as-resource", {"name": "a.gz", "data": "data:text/plain,peers", "outputType": "resource"}],
    ["wait for", "notifications/resources/list_changed", 1],
    ["resources/read", "demo://resource/session/a.gz"],
]

EVERYTHING_QUESTIONS = [
    ["stream open"],
    ["tools/list"],
    ["tools/call", "trigger-sampling-request", {"prompt": "The capital of France?", "maxTokens": 10}],
    ["tools/call", "trigger-elicitation-request", {}],
    ["tools/call", "get-roots-list", {}],
    ["wait for", "notifications/message", 1],  # that the roots have come
]

# How the client answers what a server asks it.
ANSWERS = {
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "none", "stopReason": "endTurn"},
    "elicitation/create": {"action": "accept", "content": {"name": "Ada", "username": "ada", "email": "ada@example.com", "color": "blue"}},
    "roots/list": {"roots": [{"uri": "file:///peers", "name": "peers"}]},
}
