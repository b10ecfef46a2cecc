//! How something went, as it is kept beside its row: texts and numbers of the gateway's own, never a secret. And a
//! row as it is shown, with its trace read.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vestibule_store::AuditRow;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call of a server.
    Call,
    /// A step of somebody's sign-in to a server.
    SignIn,
    /// Something that was changed by whoever manages the gateway.
    Change,
    /// A request that was refused and was neither of these.
    Refusal,
    /// Rows that could not be kept.
    Lost,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Call, Self::SignIn, Self::Change, Self::Refusal, Self::Lost];

    /// As it stands in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::SignIn => "sign_in",
            Self::Change => "change",
            Self::Refusal => "refusal",
            Self::Lost => "lost",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How it went. What is not known, or does not apply, is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Trace {
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// How the caller came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admitted>,
    /// Who acted as the key, where that was somebody at a page of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<Visitor>,
    /// What let the caller use the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Permitted>,
    /// What the server was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Shown>,
    /// What the server said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refused>,
    /// The step of a sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<Step>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// What was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// A tool's arguments, as far as 4 KiB go, where `vestibule.audit.arguments` is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// How many rows are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Target {
    /// The HTTP method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The method of the JSON-RPC message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The tool or prompt, as the caller named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The message is none that says one thing to every reader.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
    /// The servers, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// What the client calls itself in `initialize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_info: Option<ClientInfo>,
}

/// `clientInfo` of `initialize`.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How the caller came in.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Admitted {
    /// `master_key`, `key`, `anyone` or `delegated`; `refused` for a key that was known and not taken.
    pub by: String,
    /// The header that the key stood in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// Who acted as another key in the console.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Visitor {
    /// `master key`, or the alias or id of the key that they signed in with.
    pub name: String,
    /// The person, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The id of the key that they signed in with; nothing for the master key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// What let the caller use the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Permitted {
    /// `master_key`, `no_keys`, `delegated`, `allow_all_keys`, `admin`, `mcp_servers`, `mcp_access_groups` or
    /// `mcp_tool_permissions`; `nothing` where the key is not for the server.
    pub by: String,
}

/// What the server was shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Shown {
    /// As in `x-mcp-debug-auth-resolution`.
    pub resolution: String,
    /// `in_hand`, or `fetched` where the call waited for the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The server refused the first token, and another one was shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retried: bool,
}

/// What the server said.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Upstream {
    /// Its last status; nothing where it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How many requests went to it, redirects included.
    pub requests: u16,
    /// How many of them it redirected.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redirects: u16,
}

/// Why it was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Refused {
    /// The sentence that the caller got.
    pub message: String,
    /// What can be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_step: String,
    /// `error` of an authorization server (RFC 6749 section 5.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth_error: Option<String>,
    /// Its `error_description`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth_error_description: Option<String>,
    /// The number of a JSON-RPC error that is not a refusal of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc: Option<i64>,
}

/// A step of a sign-in.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Step {
    /// `register`, `authorize`, `consent`, `callback`, `token`, `renewal` or `revocation`.
    pub step: String,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The grant of a token request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// How long it took, in microseconds from the end of the request's headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Timings {
    /// Until the caller was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<u64>,
    /// Until the request went to the server, its credential in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Until the server began its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<u64>,
    /// Until the caller's answer began.
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// A row, for pages and exports.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize)]
pub struct AuditView {
    /// Its number; a later one is greater.
    pub id: i64,
    /// When, in RFC 3339.
    pub at: String,
    /// The same, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it is about: [`Kind::name`].
    pub kind: String,
    /// The request, as in the log and in `x-request-id`.
    pub request_id: Option<String>,
    /// The person.
    pub user_id: Option<String>,
    /// The key.
    pub key_id: Option<String>,
    /// What the key is called.
    pub key_alias: Option<String>,
    /// `User-Agent`.
    pub client: Option<String>,
    /// Where the client was.
    pub address: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The tool, by the server's own name for it.
    pub tool: Option<String>,
    /// `ok`, or what became of it.
    pub outcome: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The sign-in that it is a step of.
    pub flow: Option<String>,
    /// How it went.
    pub trace: Trace,
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        let entry = row.entry;
        // What a later version wrote is not lost, only not read.
        let trace = entry.trace.and_then(|text| serde_json::from_str(&text).ok());
        Self {
            id: row.id,
            at: moment(entry.at_ms),
            at_ms: entry.at_ms,
            kind: entry.kind,
            request_id: entry.request_id,
            user_id: entry.user_id,
            key_id: entry.key_id,
            key_alias: entry.key_alias,
            client: entry.client,
            address: entry.address,
            server: entry.server,
            tool: entry.tool,
            outcome: entry.outcome,
            status: entry.status,
            flow: entry.flow,
            trace: trace.unwrap_or_default(),
        }
    }
}

impl AuditView {
    /// Whether it is about something that did not go well.
    pub fn failed(&self) -> bool {
        let outcome = self.outcome.as_deref().unwrap_or("ok");
        self.kind != Kind::Change.name() && !matches!(outcome, "ok" | "asked")
    }
}

/// A time in RFC 3339, to the millisecond.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok();
    let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map(|at| format!("{at:.3}")).unwrap_or_default()
}
