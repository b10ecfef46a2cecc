//! The mock's two tools.

use serde_json::{Map, Number, Value, json};

/// The tools as `tools/list` shows them.
pub(crate) fn list() -> Value {
    json!([
        {
            "name": "echo",
            "description": "Gives the message back.",
            "inputSchema": {
                "type": "object",
                "properties": { "message": { "type": "string" } },
                "required": ["message"],
            },
        },
        {
            "name": "add",
            "description": "Adds two numbers.",
            "inputSchema": {
                "type": "object",
                "properties": { "a": { "type": "number" }, "b": { "type": "number" } },
                "required": ["a", "b"],
            },
            "outputSchema": {
                "type": "object",
                "properties": { "sum": { "type": "number" } },
                "required": ["sum"],
            },
        },
    ])
}

/// Runs a tool; `None` when there is no such tool. Bad arguments give a result with `isError`, which the model sees and
/// can correct (MCP, Tools, "Error Handling").
pub(crate) fn call(name: &str, arguments: &Map<String, Value>) -> Option<Value> {
    match name {
        "echo" => Some(match arguments.get("message").and_then(Value::as_str) {
            Some(message) => json!({ "content": text(message), "isError": false }),
            None => failed("echo needs a string: message."),
        }),
        "add" => {
            let sum = match (arguments.get("a"), arguments.get("b")) {
                (Some(Value::Number(a)), Some(Value::Number(b))) => sum(a, b),
                _ => return Some(failed("add needs two numbers: a and b.")),
            };
            Some(match sum {
                Some(sum) => {
                    let structured = json!({ "sum": sum });
                    json!({
                        "content": text(&structured.to_string()),
                        "structuredContent": structured,
                        "isError": false,
                    })
                }
                None => failed("The sum is too large for a number."),
            })
        }
        _ => None,
    }
}

/// Whole numbers stay whole.
fn sum(a: &Number, b: &Number) -> Option<Number> {
    let whole = a.as_i64().zip(b.as_i64()).and_then(|(a, b)| a.checked_add(b));
    whole
        .map(Number::from)
        .or_else(|| Number::from_f64(a.as_f64()? + b.as_f64()?))
}

fn text(text: &str) -> Value {
    json!([{ "type": "text", "text": text }])
}

fn failed(reason: &str) -> Value {
    json!({ "content": text(reason), "isError": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let add =
            |arguments: Value| call("add", arguments.as_object().expect("an object")).expect("a result");
        assert_eq!(
            add(json!({ "a": 1, "b": 2 }))["structuredContent"].to_string(),
            r#"{"sum":3}"#
        );
        assert_eq!(
            add(json!({ "a": 0.5, "b": 2 }))["structuredContent"].to_string(),
            r#"{"sum":2.5}"#
        );
        assert_eq!(add(json!({ "a": 1e308, "b": 1e308 }))["isError"], true);
        assert_eq!(add(json!({ "a": 1, "b": "2" }))["isError"], true);
        assert_eq!(add(json!({ "a": i64::MAX, "b": 1 }))["isError"], false);
    }
}
