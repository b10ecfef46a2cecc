//! How an operation of the management API comes to its route: who may, the input read, the answer written. The OpenAPI
//! description is made from the same value, so the two cannot differ.
//!
//! A family of operations has a function `operations()` that lists them, and [`super::operations`] has all families.

use super::servers::Asker;
use super::{actor, answer, manager};
use crate::admission::Admission;
use crate::app::Worker;
use crate::audit::{Actor, note};
use crate::http::relay::read_body;
use crate::http::router::{id_of, peer_of};
use crate::ids::RequestId;
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::Arc;
use url::form_urlencoded;

/// The largest input that is read.
const BODY_LIMIT: usize = 256 * 1024;
/// As much of foreign text as a message repeats.
const TEXT_SHOWN: usize = 200;

/// Who may ask for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever manages the gateway.
    Admin,
    /// Whoever has a key; the operation itself says what of.
    AnyKey,
    /// Whoever comes, without a key too. Such an operation is made by hand.
    Anybody,
}

/// What an operation is asked with: the members of a JSON object, or the parameters of a query.
pub(crate) trait Input: DeserializeOwned + JsonSchema + Send {
    /// What LiteLLM takes beside them and this gateway does not have: it may be there and say nothing.
    const FOREIGN: &'static [&'static [&'static str]] = &[];
}

/// What an operation answers when it was done.
pub(crate) trait Answer: Serialize + JsonSchema + Send {
    /// With this status.
    const STATUS: StatusCode = StatusCode::OK;
    /// How it is written.
    const MEDIA: Media = Media::Json;
    /// Whether what failed is told in the same form too.
    const FAILS_ALIKE: bool = false;
}

impl Answer for Value {}

impl<T: Answer> Answer for Vec<T> {}

/// No input at all.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

impl Input for Nothing {}

/// An admitted request.
pub(crate) struct Call {
    pub(crate) worker: Arc<Worker>,
    pub(crate) admission: Admission,
    pub(crate) parts: Parts,
    pub(crate) id: RequestId,
    /// What stands in the path, by name.
    in_path: Vec<(String, String)>,
}

impl Call {
    /// Who asks, for the record.
    pub(crate) fn actor(&self) -> Actor {
        actor(&self.admission)
    }

    /// Who asks, to see servers.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker {
            admission: &self.admission,
            headers: &self.parts.headers,
            peer: peer_of(&self.parts),
        }
    }

    /// What stands in the path at `{name}`.
    pub(crate) fn in_path(&self, name: &str) -> &str {
        let found = self.in_path.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// One document.
    Json,
    /// A document a line.
    JsonLines,
    /// Not at all.
    Nothing,
}

/// An operation with its route and its description.
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) who: Who,
    pub(crate) status: StatusCode,
    pub(crate) input: Described,
    pub(crate) answer: Described,
    pub(crate) media: Media,
    pub(crate) fails_alike: bool,
    pub(crate) route: MethodRouter<Arc<Worker>>,
}

/// A type's name and its schema.
#[derive(Clone, Copy)]
pub(crate) struct Described {
    pub(crate) name: fn() -> Cow<'static, str>,
    pub(crate) schema: fn() -> Schema,
}

impl Described {
    fn of<T: JsonSchema>(is_answer: bool) -> Self {
        Self {
            name: T::schema_name,
            schema: if is_answer {
                || schema::<T>(true)
            } else {
                || schema::<T>(false)
            },
        }
    }
}

fn schema<T: JsonSchema>(is_answer: bool) -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = if is_answer {
        settings.for_serialize()
    } else {
        settings
    };
    settings.into_generator().into_root_schema_for::<T>()
}

impl Operation {
    /// GET and DELETE have their input in the query, the others in the body.
    pub(crate) fn new<I, T, F, W>(
        method: Method,
        path: &'static str,
        who: Who,
        summary: &'static str,
        work: W,
    ) -> Self
    where
        I: Input,
        T: Answer,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
        W: Fn(Call, I) -> F + Clone + Send + Sync + 'static,
    {
        let in_query = is_in_query(&method);
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        let handler = async move |State(worker): State<Arc<Worker>>, request: Request<Body>| {
            let id = id_of(&request, &worker);
            let result = async {
                let (call, body) = admitted(&worker, who, request, id).await?;
                let input = if in_query {
                    queried(&call.parts)?
                } else {
                    queried::<Nothing>(&call.parts)?;
                    let limits = &worker.app.limits;
                    read(of_body(&read_body(body, BODY_LIMIT, limits.body_timeout).await?)?)?
                };
                written(&work(call, input).await?)
            };
            answer(&worker, result.await, id)
        };
        Self::by_hand::<I, T>(method, path, who, summary, on(filter, handler))
    }

    /// With a handler that admits, reads and answers by itself.
    pub(crate) fn by_hand<I: Input, T: Answer>(
        method: Method,
        path: &'static str,
        who: Who,
        summary: &'static str,
        route: MethodRouter<Arc<Worker>>,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            who,
            status: T::STATUS,
            input: Described::of::<I>(false),
            answer: Described::of::<T>(true),
            media: T::MEDIA,
            fails_alike: T::FAILS_ALIKE,
            route,
        }
    }

    /// Whether its input is in the query.
    pub(crate) fn has_query(&self) -> bool {
        is_in_query(&self.method)
    }
}

/// Whether an operation of this method has its input in the query.
fn is_in_query(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::DELETE)
}

async fn admitted(
    worker: &Arc<Worker>,
    who: Who,
    request: Request<Body>,
    id: RequestId,
) -> Result<(Call, Body), Refusal> {
    let admission = worker.app.gate.admit(request.headers())?;
    note::admitted(&worker.app, &admission);
    if who == Who::Admin {
        manager(&admission)?;
    }
    let (mut parts, body) = request.into_parts();
    let in_path = match RawPathParams::from_request_parts(&mut parts, &()).await {
        Ok(found) => {
            let pairs = found.iter();
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        }
        Err(_) => return Err(Refusal::new(ErrorCode::NotFound)),
    };
    let call = Call {
        worker: Arc::clone(worker),
        admission,
        parts,
        id,
        in_path,
    };
    Ok((call, body))
}

/// An answer with its status; null where nothing is written.
pub(crate) fn written<T: Answer>(answer: &T) -> Result<(StatusCode, Value), Refusal> {
    let document = serde_json::to_value(answer).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Refusal::new(ErrorCode::Internal)
    })?;
    Ok((T::STATUS, document))
}

/// The members of a body; an empty one has none.
fn of_body(body: &Bytes) -> Result<Map<String, Value>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body).map_err(|_| Refusal::new(ErrorCode::BodyNotAnObject))
}

/// The parameters of a query, as the schema has them: a number is a number, what may be there several times is a list. An
/// empty text is as good as absent.
fn of_query(query: &str, schema: &Schema) -> Result<Map<String, Value>, Refusal> {
    let mut object = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let property = schema
            .get("properties")
            .and_then(|properties| properties.get(&*name));
        let is = |kind: &str| {
            property.is_some_and(|property| match &property["type"] {
                Value::Array(kinds) => kinds.iter().any(|one| one == kind),
                one => one == kind,
            })
        };
        let value = if is("integer") || is("boolean") {
            // What is neither is refused as the text that it is.
            let parsed = serde_json::from_str(&text).ok();
            parsed.unwrap_or_else(|| Value::String(text.into_owned()))
        } else if text.is_empty() {
            continue;
        } else {
            Value::String(text.into_owned())
        };
        let is_list = is("array");
        match object.get_mut(&*name) {
            Some(Value::Array(all)) => all.push(value),
            Some(_) => {
                let message = format!("{} stands several times.", shown(&name, TEXT_SHOWN));
                return Err(Refusal::because(ErrorCode::InvalidField, message));
            }
            None => {
                let value = if is_list { Value::Array(vec![value]) } else { value };
                object.insert(name.into_owned(), value);
            }
        }
    }
    Ok(object)
}

/// What is asked in the query, and nothing else is: with [`Nothing`] no query at all.
pub(crate) fn queried<I: Input>(parts: &Parts) -> Result<I, Refusal> {
    let query = parts.uri.query().unwrap_or_default();
    read(of_query(query, &schema::<I>(false))?)
}

/// Reads an input from its members.
fn read<I: Input>(mut object: Map<String, Value>) -> Result<I, Refusal> {
    for name in I::FOREIGN.iter().copied().flatten() {
        if object.remove(*name).is_some_and(|value| says_something(&value)) {
            let message = format!("{name} is LiteLLM's, and this gateway does not have it.");
            return Err(Refusal::because(ErrorCode::FieldNotSupported, message));
        }
    }
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let message = without_values(&error.inner().to_string());
        let path = error.path().to_string();
        let message = match &*path {
            "." => format!("The request: {message}."),
            path => format!("{}: {message}.", shown(path, TEXT_SHOWN)),
        };
        Refusal::because(ErrorCode::InvalidField, message)
    })
}

/// What is wrong, without the value that is: it may be a secret that was put into the wrong member.
fn without_values(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid ") => format!("what is wanted is {expected}"),
        _ => shown(message, TEXT_SHOWN),
    }
}

/// Whether a member of LiteLLM's is more than left out.
pub(super) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// A member that may be left out, be null, or have a value: which of the three makes a difference to an update.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Change<T> {
    /// It was left out.
    #[default]
    Keep,
    /// It was null.
    Clear,
    /// It has this value.
    Set(T),
}

impl<T> Change<T> {
    /// What is there after the change.
    pub(crate) fn over(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The value, where there is one.
    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }

    /// [`Option::and_then`] of what is set, where it can fail.
    pub(crate) fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Change<U>, E> {
        Ok(match self {
            Self::Keep => Change::Keep,
            Self::Clear => Change::Clear,
            Self::Set(value) => Change::Set(change(value)?),
        })
    }
}

impl<T> From<Option<T>> for Change<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Keep, Self::Set)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value: Option<T>| value.map_or(Self::Clear, Self::Set))
    }
}

impl<T: JsonSchema> JsonSchema for Change<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}
