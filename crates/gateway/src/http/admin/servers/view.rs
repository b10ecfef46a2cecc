//! A server as the management shows it: LiteLLM's row with more beside it. Never a secret; and of what people who
//! manage nothing may not know, nothing is put in.

use super::health::{HealthColumns, HealthView};
use crate::admission::{Admission, Principal};
use crate::config::fields::{self, Kind};
use crate::config::{Document, LeftOut, Problem, Provenance, Severity, Shown, shown};
use crate::credentials::CredentialSource;
use crate::http::admin::manager;
use crate::http::admin::time::utc;
use crate::registry::Server;
use crate::web::error::Flaw;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use vestibule_store::{ServerId, StoredServer};

/// How much of a server somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eyes {
    /// Whoever manages the gateway: all but secrets.
    Manager,
    /// Whoever may use the server.
    Member,
    /// The holder of a key that is for some servers alone.
    Narrow,
}

impl Eyes {
    /// Those of an admitted caller.
    pub(crate) fn of(admission: &Admission) -> Self {
        if manager(admission).is_ok() {
            return Self::Manager;
        }
        match &admission.principal {
            Principal::Key(key) if key.is_narrowed() => Self::Narrow,
            _ => Self::Member,
        }
    }

    /// Whether a field is for these eyes.
    fn see(self, field: &str) -> bool {
        match self {
            Self::Manager => true,
            Self::Member => MEMBERS.contains(&field),
            Self::Narrow => MEMBERS.contains(&field) && !NOT_NARROW.contains(&field),
        }
    }
}

/// The fields that whoever may use a server sees.
const MEMBERS: &[&str] = &[
    "alias",
    "description",
    "instructions",
    "transport",
    "auth_type",
    "oauth2_flow",
    "access_groups",
    "allowed_tools",
    "allow_all_keys",
    "available_on_public_internet",
    "delegate_auth_to_upstream",
    "mcp_info",
    "source_url",
];
/// Those among them that a narrowed key's holder does not.
const NOT_NARROW: &[&str] = &["access_groups", "allowed_tools"];

/// LiteLLM's columns that are there whatever is configured, with what they are when it is not.
const COLUMNS: &[(&str, &str, Absent)] = &[
    ("alias", "alias", Absent::Null),
    ("description", "description", Absent::Null),
    ("instructions", "instructions", Absent::Null),
    ("url", "url", Absent::Null),
    ("spec_path", "spec_path", Absent::Null),
    ("transport", "transport", Absent::Text("http")),
    ("auth_type", "auth_type", Absent::Text("none")),
    ("oauth2_flow", "oauth2_flow", Absent::Null),
    ("mcp_info", "mcp_info", Absent::Object),
    ("mcp_access_groups", "access_groups", Absent::List),
    ("allowed_tools", "allowed_tools", Absent::List),
    ("extra_headers", "extra_headers", Absent::List),
    ("static_headers", "static_headers", Absent::Object),
    ("command", "command", Absent::Null),
    ("args", "args", Absent::List),
    ("env", "env", Absent::Object),
    ("authorization_url", "authorization_url", Absent::Null),
    ("token_url", "token_url", Absent::Null),
    ("registration_url", "registration_url", Absent::Null),
    ("scopes", "scopes", Absent::List),
    ("allow_all_keys", "allow_all_keys", Absent::Bool(false)),
    (
        "available_on_public_internet",
        "available_on_public_internet",
        Absent::Bool(true),
    ),
    (
        "delegate_auth_to_upstream",
        "delegate_auth_to_upstream",
        Absent::Bool(false),
    ),
    ("source_url", "source_url", Absent::Null),
];

/// What a column is when nothing is configured.
#[derive(Clone, Copy)]
enum Absent {
    Null,
    List,
    Object,
    Bool(bool),
    Text(&'static str),
}

impl Absent {
    fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::List => json!([]),
            Self::Object => json!({}),
            Self::Bool(value) => json!(value),
            Self::Text(text) => json!(text),
        }
    }
}

/// Where a server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the configuration file: it cannot be changed from here.
    File,
    /// In the database.
    Database,
}

/// Who wrote something, and when.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// In seconds since 1970.
    pub(crate) at: u64,
    /// The person or key, where one is known.
    pub(crate) by: Option<String>,
}

/// What is known of how a server was written.
#[derive(Clone, Copy)]
pub(crate) enum Record<'r> {
    /// The store's row, which says who.
    Row(&'r StoredServer),
    /// As much as the gateway has in memory.
    Known(Provenance),
}

/// One server.
#[derive(Debug, Clone)]
pub(crate) struct ServerView {
    /// `server_id`.
    pub(crate) id: String,
    /// `server_name`.
    pub(crate) name: String,
    /// Where it is configured.
    pub(crate) source: Source,
    /// Which writing of it this is; of a stored server alone.
    pub(crate) version: Option<i64>,
    /// Its fields by the names of `mcp_servers`, masked.
    pub(crate) fields: Document,
    /// The names of the secrets that it has.
    pub(crate) secrets: Vec<String>,
    /// When it was added.
    pub(crate) created: Option<Written>,
    /// When it was last changed.
    pub(crate) updated: Option<Written>,
    /// What is worth a look.
    pub(crate) warnings: Vec<Flaw>,
    /// Why it is not served; empty where it is.
    pub(crate) problems: Vec<Flaw>,
    /// Whether it answers; nothing where it is not served.
    pub(crate) health: Option<HealthView>,
    /// When a server that is only tried ends, in seconds since 1970.
    pub(crate) expires_at: Option<u64>,
    /// Whose eyes this is for.
    eyes: Eyes,
    /// Kept secrets that the change just made did not take along.
    pub(crate) dropped_secrets: Vec<String>,
}

impl ServerView {
    /// A server that is served.
    pub(crate) fn of(server: &Server, record: Record<'_>, eyes: Eyes, now: u64) -> Self {
        let mut view = match record {
            Record::Row(row) => Self::of_row(row, eyes),
            Record::Known(provenance) => Self::known(server, provenance, eyes),
        };
        view.health = Some(HealthView::of(server, now));
        let document = (*server.shown).clone();
        // What the entry itself leaves to others: an alias of `mcp_aliases`, a flow that is inferred.
        let alias = server.alias.as_deref().map(|alias| ("alias", alias));
        let flow = match server.credential {
            CredentialSource::Machine(_) => Some(("oauth2_flow", "client_credentials")),
            CredentialSource::Person(_) => Some(("oauth2_flow", "authorization_code")),
            _ => None,
        };
        view.show(document, eyes);
        for (field, value) in [alias, flow].into_iter().flatten() {
            view.fields.insert(field.to_owned(), value.into());
        }
        if eyes == Eyes::Manager {
            view.warnings = flaws(&server.warnings, &server.name);
        }
        view
    }

    /// A stored server that cannot be served, for whoever manages the gateway.
    pub(crate) fn left_out(row: &StoredServer, left_out: Option<&LeftOut>) -> Self {
        let mut view = Self::of_row(row, Eyes::Manager);
        match &row.document {
            Ok(document) => {
                let document = serde_json::from_slice(document.expose_secret()).unwrap_or_default();
                view.show(shown(&document), Eyes::Manager);
            }
            Err(fault) => view.problems.push(Flaw {
                field: String::new(),
                message: format!("the database's row cannot be opened: {fault}"),
            }),
        }
        if let Some(left_out) = left_out {
            view.problems.extend(flaws(&left_out.problems, &left_out.name));
        }
        view
    }

    /// A field's text.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str()
    }

    fn of_row(row: &StoredServer, eyes: Eyes) -> Self {
        let mut view = Self::bare(row.id.as_str(), &row.name, Source::Database, eyes);
        let by = |by: &Option<String>| by.clone().filter(|_| eyes == Eyes::Manager);
        view.version = Some(row.version.to_number());
        view.created = Some(Written {
            at: row.created_at,
            by: by(&row.created_by),
        });
        view.updated = Some(Written {
            at: row.updated_at,
            by: by(&row.updated_by),
        });
        view
    }

    fn known(server: &Server, provenance: Provenance, eyes: Eyes) -> Self {
        let mut view = Self::bare(&server.id, &server.name, Source::of(provenance), eyes);
        if let Provenance::Store {
            version,
            created_at,
            updated_at,
            expires_at: None,
        } = provenance
        {
            view.version = Some(version.to_number());
            view.created = Some(Written {
                at: created_at,
                by: None,
            });
            view.updated = Some(Written {
                at: updated_at,
                by: None,
            });
        }
        view
    }

    fn bare(id: &str, name: &str, source: Source, eyes: Eyes) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            source,
            version: None,
            fields: Document::new(),
            secrets: Vec::new(),
            created: None,
            updated: None,
            warnings: Vec::new(),
            problems: Vec::new(),
            health: None,
            expires_at: None,
            eyes,
            dropped_secrets: Vec::new(),
        }
    }

    fn show(&mut self, shown: Shown, eyes: Eyes) {
        self.fields = shown.fields;
        self.fields.retain(|field, _| eyes.see(field));
        if eyes == Eyes::Manager {
            self.secrets = shown.secrets;
        }
    }
}

/// LiteLLM's row, and more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ServerRow {
    server_id: String,
    server_name: String,
    #[serde(flatten)]
    fields: Columns,
    /// Nothing: secrets are not shown.
    credentials: (),
    /// None: this gateway has no teams.
    teams: [String; 0],
    created_at: Option<String>,
    created_by: Option<String>,
    updated_at: Option<String>,
    updated_by: Option<String>,
    #[serde(flatten)]
    health: HealthColumns,
    /// `file` or `database`.
    source: &'static str,
    read_only: bool,
    /// Which writing of it this is; null for a server of the file.
    version: Option<i64>,
    /// The names of the secrets that it has.
    secrets: Vec<String>,
    /// What is worth a look.
    warnings: Vec<Flaw>,
    /// Why it is not served.
    problems: Vec<Flaw>,
    /// When a server that is only tried ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Kept secrets that the change just made did not take along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped_secrets: Vec<String>,
}

/// A server's fields, those of [`COLUMNS`] by LiteLLM's names and whatever is configured.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Columns(Map<String, Value>);

impl Columns {
    fn of(mut fields: Document) -> Self {
        let mut columns = Map::new();
        for (column, field, absent) in COLUMNS {
            let value = fields.remove(*field);
            columns.insert((*column).to_owned(), value.unwrap_or_else(|| absent.value()));
        }
        columns.append(&mut fields);
        Self(columns)
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> Cow<'static, str> {
        "ServerColumns".into()
    }

    /// Values are as they were configured, so their kinds are not promised.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let shown = fields::SERVER.iter().filter(|field| field.kind != Kind::Secret);
        let described = shown.map(|field| (field.name, json!({"description": field.doc})));
        let columns = COLUMNS.iter().map(|(column, ..)| *column);
        let mut properties: Map<String, Value> = columns.map(|name| (name.to_owned(), json!({}))).collect();
        properties.extend(described.map(|(name, schema)| (name.to_owned(), schema)));
        for own in ["server_id", "server_name"] {
            properties.remove(own);
        }
        let required: Vec<_> = COLUMNS.iter().map(|(column, ..)| *column).collect();
        json_schema!({"type": "object", "properties": properties, "required": required})
    }
}

impl From<ServerView> for ServerRow {
    fn from(view: ServerView) -> Self {
        let at = |written: &Option<Written>| written.as_ref().and_then(|written| utc(written.at));
        let (created_at, updated_at) = (at(&view.created), at(&view.updated));
        let by = |written: Option<Written>| written.and_then(|written| written.by);
        let health = view.health.map_or_else(
            || HealthColumns::unknown("The server cannot be served; problems says why."),
            |health| health.columns(view.eyes),
        );
        Self {
            server_id: view.id,
            server_name: view.name,
            fields: Columns::of(view.fields),
            credentials: (),
            teams: [],
            created_at,
            created_by: by(view.created),
            updated_at,
            updated_by: by(view.updated),
            health,
            source: view.source.name(),
            read_only: view.source == Source::File,
            version: view.version,
            secrets: view.secrets,
            warnings: view.warnings,
            problems: view.problems,
            expires_at: view.expires_at.and_then(utc),
            dropped_secrets: view.dropped_secrets,
        }
    }
}

impl Source {
    /// As the API has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Database => "database",
        }
    }

    /// Where a server with this provenance is configured.
    pub(crate) fn of(provenance: Provenance) -> Self {
        match provenance {
            Provenance::File => Self::File,
            Provenance::Store { .. } => Self::Database,
        }
    }
}

/// What was found about the server `name`, by its fields.
pub(crate) fn flaws(problems: &[Problem], name: &str) -> Vec<Flaw> {
    let worth_it = problems
        .iter()
        .filter(|problem| problem.severity != Severity::Note);
    let flaws = worth_it.map(|problem| Flaw {
        field: problem.field(name).unwrap_or(&problem.path).to_owned(),
        message: problem.message.clone(),
    });
    flaws.collect()
}

/// The row of this id.
pub(crate) fn row<'r>(rows: &'r [StoredServer], id: &ServerId) -> Option<&'r StoredServer> {
    rows.iter().find(|row| row.id == *id)
}
