//! LiteLLM's addresses for keys.

use super::super::api::{Answer, Call, Input, Operation, Who};
use super::super::manager;
use super::{
    KeyChange, KeyFilter, KeyView, MadeKey, NewKey, block, create, delete, get, list, rotate, update,
};
use crate::admission::Principal;
use crate::web::error::{ErrorCode, Refusal};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most keys of one page, and how many it has unless somebody says.
const PAGE_LIMIT: u32 = 100;
const PAGE: u32 = 10;

/// What LiteLLM says about keys and this gateway does not have.
const FOREIGN: &[&str] = &[
    "access_group_ids",
    "agent_id",
    "aliases",
    "allowed_cache_controls",
    "allowed_passthrough_routes",
    "allowed_routes",
    "allowed_vector_store_indexes",
    "auto_rotate",
    "budget_duration",
    "budget_id",
    "budget_limits",
    "config",
    "disable_global_guardrails",
    "enforced_params",
    "grace_period",
    "guardrails",
    "key_type",
    "max_budget",
    "max_parallel_requests",
    "model_max_budget",
    "model_rpm_limit",
    "model_tpm_limit",
    "models",
    "new_master_key",
    "organization_id",
    "permissions",
    "policies",
    "project_id",
    "prompts",
    "rotation_interval",
    "router_settings",
    "rpm_limit_type",
    "send_invite_email",
    "soft_budget",
    "spend",
    "tags",
    "team_id",
    "temp_budget_expiry",
    "temp_budget_increase",
    "tpm_limit",
    "tpm_limit_type",
];

/// The operations, and who may ask for them.
pub(crate) fn operations() -> Vec<Operation> {
    let post = Method::POST;
    vec![
        Operation::new(
            post.clone(),
            "/key/generate",
            Who::Admin,
            "Make a key. Its text is shown this once.",
            generate,
        ),
        Operation::new(
            Method::GET,
            "/key/info",
            Who::AnyKey,
            "Show a key. A key may ask about itself.",
            info,
        ),
        Operation::new(
            Method::GET,
            "/key/list",
            Who::Admin,
            "List keys, the newest first.",
            page,
        ),
        Operation::new(
            post.clone(),
            "/key/update",
            Who::Admin,
            "Change a key. What is left out stays, null takes away.",
            change,
        ),
        Operation::new(
            post.clone(),
            "/key/delete",
            Who::Admin,
            "Delete keys, all or none.",
            remove,
        ),
        Operation::new(
            post.clone(),
            "/key/block",
            Who::Admin,
            "Block a key.",
            async |call: Call, asked: OneKey| blocked(call, asked, true).await,
        ),
        Operation::new(
            post.clone(),
            "/key/unblock",
            Who::Admin,
            "Let a key that was blocked count again.",
            async |call: Call, asked: OneKey| blocked(call, asked, false).await,
        ),
        Operation::new(
            post.clone(),
            "/key/regenerate",
            Who::Admin,
            "Give a key another text, which is shown this once. The old one counts no longer.",
            regenerate,
        ),
        Operation::new(
            post,
            "/key/{key}/regenerate",
            Who::Admin,
            "Give the key of this id, or this text, another text.",
            regenerate_named,
        ),
    ]
}

impl Input for NewKey {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN, &["key"]];
}

impl Input for KeyChange {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN];
}

impl Answer for MadeKey {}
impl Answer for KeyView {}

/// Which key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OneKey {
    /// Its id, or its text.
    key: String,
}

impl Input for OneKey {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN];
}

/// Which key; without one that of the request itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AskedKey {
    /// Its id, or its text.
    key: Option<String>,
}

impl Input for AskedKey {}

/// What a rotation is asked with beside the path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// The key of the path once more, as LiteLLM's clients send it.
    key: Option<String>,
}

impl Input for Rotation {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN];
}

/// Which keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ManyKeys {
    /// By their ids, or their texts.
    keys: Option<Vec<String>>,
    /// By their aliases.
    key_aliases: Option<Vec<String>>,
}

impl Input for ManyKeys {}

/// Which keys, and which part of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// Whose.
    user_id: Option<String>,
    /// With this alias.
    key_alias: Option<String>,
    /// With this text in id, alias, owner or last characters.
    search: Option<String>,
    /// Which page, from 1 on.
    #[schemars(range(min = 1))]
    page: Option<u32>,
    /// Keys on a page.
    #[schemars(range(min = 1, max = 100))]
    size: Option<u32>,
    /// Whole keys; else their ids alone.
    return_full_object: Option<bool>,
}

impl Input for Asked {
    const FOREIGN: &'static [&'static [&'static str]] = &[&[
        "expand",
        "include_created_by_keys",
        "include_team_keys",
        "key_hash",
        "organization_id",
        "sort_by",
        "sort_order",
        "status",
        "team_id",
    ]];
}

/// A key, as LiteLLM wraps it.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyInfo {
    /// Its id.
    key: String,
    info: KeyView,
}

impl Answer for KeyInfo {}

/// A part of all keys.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyPage {
    keys: Vec<Listed>,
    total_count: usize,
    current_page: u32,
    total_pages: usize,
}

impl Answer for KeyPage {}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "a page has one kind of them")]
enum Listed {
    Id(String),
    Key(KeyView),
}

/// What was deleted.
#[derive(Debug, Serialize, JsonSchema)]
struct DeletedKeys {
    /// The ids.
    deleted_keys: Vec<String>,
}

impl Answer for DeletedKeys {}

async fn generate(call: Call, new: NewKey) -> Result<MadeKey, Refusal> {
    create(&call.worker, &call.actor(), call.id, new).await
}

async fn info(call: Call, asked: AskedKey) -> Result<KeyInfo, Refusal> {
    let own = match &call.admission.principal {
        Principal::Key(key) => Some(key.id.clone()),
        Principal::Master | Principal::Anyone | Principal::Delegated => None,
    };
    let is_manager = manager(&call.admission).is_ok();
    let view = match (asked.key, own) {
        (None, Some(own)) => get(&call.worker, &own).await?,
        (None, None) => {
            return Err(Refusal::because(
                ErrorCode::InvalidField,
                "key: say which; the key of the request is the master key, of which nothing is kept.",
            ));
        }
        (Some(key), own) if !is_manager => {
            // Nothing else is looked up, so the answer says nothing about other keys.
            let own = own.filter(|own| key == *own || is_text_of(&call, own, &key));
            let own = own.ok_or_else(|| Refusal::new(ErrorCode::AdminRequired))?;
            get(&call.worker, &own).await?
        }
        (Some(key), _) => get(&call.worker, &key).await?,
    };
    let view = if is_manager { view } else { view.for_holder() };
    Ok(KeyInfo {
        key: view.key_id.clone(),
        info: view,
    })
}

fn is_text_of(call: &Call, id: &str, text: &str) -> bool {
    let found = call.worker.app.keys.find(text.as_bytes());
    found.is_some_and(|key| key.id == id)
}

async fn page(call: Call, asked: Asked) -> Result<KeyPage, Refusal> {
    let (page, size) = (asked.page.unwrap_or(1), asked.size.unwrap_or(PAGE));
    if page == 0 || !(1..=PAGE_LIMIT).contains(&size) {
        let message = format!("page is 1 or more, and size 1 to {PAGE_LIMIT}.");
        return Err(Refusal::because(ErrorCode::InvalidField, message));
    }
    let filter = KeyFilter {
        user_id: asked.user_id,
        key_alias: asked.key_alias,
        search: asked.search,
    };
    let all = list(&call.worker, &filter).await?;
    let (total_count, size) = (all.len(), size as usize);
    let first = (page as usize - 1).saturating_mul(size);
    let full = asked.return_full_object.unwrap_or(false);
    let keys = all.into_iter().skip(first).take(size);
    Ok(KeyPage {
        keys: keys
            .map(|key| {
                if full {
                    Listed::Key(key)
                } else {
                    Listed::Id(key.key_id)
                }
            })
            .collect(),
        total_count,
        current_page: page,
        total_pages: total_count.div_ceil(size),
    })
}

async fn change(call: Call, change: KeyChange) -> Result<KeyView, Refusal> {
    update(&call.worker, &call.actor(), call.id, change).await
}

async fn remove(call: Call, asked: ManyKeys) -> Result<DeletedKeys, Refusal> {
    let keys = asked.keys.unwrap_or_default();
    let aliases = asked.key_aliases.unwrap_or_default();
    if keys.is_empty() && aliases.is_empty() {
        return Err(Refusal::because(
            ErrorCode::InvalidField,
            "keys: name at least one key, there or in key_aliases.",
        ));
    }
    Ok(DeletedKeys {
        deleted_keys: delete(&call.worker, &call.actor(), call.id, &keys, &aliases).await?,
    })
}

async fn blocked(call: Call, asked: OneKey, blocked: bool) -> Result<KeyView, Refusal> {
    block(&call.worker, &call.actor(), call.id, &asked.key, blocked).await
}

async fn regenerate(call: Call, asked: OneKey) -> Result<MadeKey, Refusal> {
    rotate(&call.worker, &call.actor(), call.id, &asked.key).await
}

async fn regenerate_named(call: Call, asked: Rotation) -> Result<MadeKey, Refusal> {
    let key = call.in_path("key");
    if asked
        .key
        .as_deref()
        .is_some_and(|other| !other.is_empty() && other != key)
    {
        return Err(Refusal::because(
            ErrorCode::InvalidField,
            "key: it is another one than that of the path.",
        ));
    }
    rotate(&call.worker, &call.actor(), call.id, key).await
}
