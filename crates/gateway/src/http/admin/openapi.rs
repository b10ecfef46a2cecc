//! The description of the management API (OpenAPI 3.1), made from the operations themselves.

use super::api::{Answer, Call, Media, Nothing, Operation, Who};
use crate::web::error::{ErrorCode, Refusal};
use http::Method;
use serde_json::{Map, Value, json};

/// The operation that gives the description.
pub(super) fn operations() -> Vec<Operation> {
    vec![Operation::new(
        Method::GET,
        "/openapi.json",
        Who::AnyKey,
        "This description.",
        async |_: Call, _: Nothing| Ok::<_, Refusal>(Description(document(&super::operations()))),
    )]
}

/// The document.
#[derive(serde::Serialize, schemars::JsonSchema)]
#[serde(transparent)]
struct Description(Value);

impl Answer for Description {}

fn document(operations: &[Operation]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    schemas.insert("Refusal".into(), refusal());
    for operation in operations {
        let described = described(operation, &mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vestibule",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The management of the gateway, at LiteLLM's addresses where LiteLLM has them. What stands \
                            in an answer may be more than is described here.",
        },
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-litellm-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

fn described(operation: &Operation, schemas: &mut Map<String, Value>) -> Value {
    let who = match operation.who {
        Who::Admin => "For admins.",
        Who::AnyKey => "For whoever has a key.",
        Who::Anybody => "For everybody.",
    };
    let mut segments = operation.path.split('/').filter(|segment| !segment.is_empty());
    let name: Vec<_> = segments
        .clone()
        .map(|segment| {
            segment
                .trim_matches(|c| matches!(c, '{' | '}'))
                .replace(['-', '.'], "_")
        })
        .collect();
    let mut done = json!({"description": "It was done."});
    let mut refused = json!({"$ref": "#/components/schemas/Refusal"});
    match operation.media {
        Media::Json => {
            let content = content(
                &(operation.answer.name)(),
                (operation.answer.schema)().into(),
                schemas,
            );
            if operation.fails_alike {
                refused = json!({"anyOf": [refused, content["application/json"]["schema"]]});
            }
            done["content"] = content;
        }
        Media::JsonLines => done["content"] = json!({"application/jsonl": {"schema": {"type": "string"}}}),
        Media::Nothing => {}
    }
    let mut described = json!({
        "operationId": format!("{}_{}", operation.method.as_str().to_ascii_lowercase(), name.join("_")),
        "summary": operation.summary,
        "description": who,
        "tags": [segments.next().unwrap_or_default()],
        "responses": {
            operation.status.as_str(): done,
            "default": {
                "description": "It was refused.",
                "content": {"application/json": {"schema": refused}},
            },
        },
    });
    if operation.who == Who::Anybody {
        described["security"] = json!([]);
    }
    let mut parameters = in_path(operation.path);
    let input: Value = (operation.input.schema)().into();
    if operation.has_query() {
        parameters.extend(in_query(&input));
    } else {
        let is_required = input["required"]
            .as_array()
            .is_some_and(|names| !names.is_empty());
        described["requestBody"] = json!({
            "required": is_required,
            "content": content(&(operation.input.name)(), input, schemas),
        });
    }
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    described
}

fn content(name: &str, mut schema: Value, schemas: &mut Map<String, Value>) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.remove("title");
    }
    schemas.insert(name.to_owned(), schema);
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}})
}

fn in_path(path: &str) -> Vec<Value> {
    let named = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    named
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})
        })
        .collect()
}

fn in_query(input: &Value) -> Vec<Value> {
    let properties = input["properties"].as_object();
    let required = input["required"].as_array();
    properties
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let mut schema = property.clone();
            let is_required = required.is_some_and(|names| names.iter().any(|one| one == name));
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            json!({
                "name": name,
                "in": "query",
                "required": is_required,
                "description": description.unwrap_or_default(),
                "schema": schema,
            })
        })
        .collect()
}

/// Every refusal, as [`Refusal::plain_json`] writes it.
fn refusal() -> Value {
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "next_step", "request_id"],
            "properties": {
                "code": {"type": "string", "enum": codes},
                "message": {"type": "string"},
                "next_step": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Worker;
    use crate::http::router::routes_of_programs;
    use axum::Router;
    use std::collections::{BTreeSet, HashMap};
    use std::sync::Arc;

    /// The paths of a router.
    fn paths(router: &Router<Arc<Worker>>) -> BTreeSet<String> {
        let text = format!("{router:?}");
        // Behind it are the ways to what is nowhere.
        let (known, _) = text.split_once("fallback_router").expect("axum's own words");
        let quoted = known.split('"').filter(|text| text.starts_with('/'));
        quoted.map(str::to_owned).collect()
    }

    #[test]
    fn no_route_stands_outside_the_table() {
        let told = super::super::NOT_SUPPORTED.iter().map(|(path, _)| *path);
        let operations = super::super::operations();
        let table = operations.iter().map(|operation| operation.path).chain(told);
        // Those of clients, of load balancers and of Prometheus.
        let others = [
            "/mcp-rest/tools/list",
            "/mcp-rest/tools/call",
            "/health/liveliness",
            "/health/liveness",
            "/health/readiness",
            "/metrics",
        ];
        let known: BTreeSet<String> = table.chain(others).map(str::to_owned).collect();
        assert_eq!(paths(&routes_of_programs()), known);
        let one_more = routes_of_programs().route("/v1/mcp/outside", axum::routing::get(async || ""));
        assert_ne!(paths(&one_more), known);
    }

    #[test]
    fn every_operation_is_described_once_and_no_two_types_share_a_name() {
        let operations = super::super::operations();
        let document = document(&operations);
        let mut ids = Vec::new();
        let mut schemas: HashMap<(String, bool), Value> = HashMap::new();
        for operation in &operations {
            let method = operation.method.as_str().to_ascii_lowercase();
            let described = &document["paths"][operation.path][&method];
            assert!(!described["summary"].as_str().expect("a summary").is_empty());
            ids.push(described["operationId"].to_string());
            let both = [(operation.answer, true), (operation.input, false)];
            for (one, is_answer) in both
                .into_iter()
                .filter(|(_, is_answer)| *is_answer || !operation.has_query())
            {
                let name = (one.name)().into_owned();
                assert_ne!(name, "Refusal");
                let other = schemas.remove(&(name.clone(), !is_answer));
                assert!(other.is_none(), "{name} is asked and answered");
                let schema: Value = (one.schema)().into();
                let before = schemas.insert((name.clone(), is_answer), schema.clone());
                assert!(
                    before.is_none_or(|before| before == schema),
                    "two types are called {name}"
                );
            }
        }
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        let described: usize = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .map(|path| path.as_object().expect("methods").len())
            .sum();
        assert_eq!(described, count);
    }
}
