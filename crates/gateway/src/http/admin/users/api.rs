//! LiteLLM's addresses for people.

use super::super::api::{Answer, Call, Input, Operation, Who};
use super::super::keys::{KeyView, MadeKey};
use super::super::manager;
use super::{DeletedUsers, NewUser, UserChange, UserView, create, delete, get, list, update};
use crate::admission::Principal;
use crate::web::error::{ErrorCode, Refusal};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most people of one page, and how many it has unless somebody says.
const PAGE_LIMIT: u32 = 100;
const PAGE: u32 = 25;

/// What LiteLLM says about people and this gateway does not have.
const FOREIGN: &[&str] = &[
    "aliases",
    "allowed_cache_controls",
    "allowed_routes",
    "budget_duration",
    "budget_id",
    "config",
    "guardrails",
    "invite_user",
    "key_type",
    "max_budget",
    "max_parallel_requests",
    "metadata",
    "model_max_budget",
    "model_rpm_limit",
    "model_tpm_limit",
    "models",
    "object_permission",
    "organization_id",
    "organizations",
    "password",
    "permissions",
    "prompts",
    "rpm_limit",
    "send_invite_email",
    "soft_budget",
    "spend",
    "sso_user_id",
    "team_id",
    "teams",
    "tpm_limit",
];

/// The operations, and who may ask for them.
pub(crate) fn operations() -> Vec<Operation> {
    let (get, post) = (Method::GET, Method::POST);
    vec![
        Operation::new(
            post.clone(),
            "/user/new",
            Who::Admin,
            "Write a person down, with a key unless auto_create_key is false. Its text is shown this once.",
            new,
        ),
        Operation::new(
            get.clone(),
            "/user/info",
            Who::AnyKey,
            "Show a person and their keys. Whoever holds a key may ask about its owner.",
            info,
        ),
        Operation::new(get, "/user/list", Who::Admin, "List people, by id.", page),
        Operation::new(
            post.clone(),
            "/user/update",
            Who::Admin,
            "Change a person, or block them with all their keys. What is left out stays, null takes away.",
            change,
        ),
        Operation::new(
            post,
            "/user/delete",
            Who::Admin,
            "Delete people with their keys and sign-ins, all or none.",
            remove,
        ),
    ]
}

impl Input for NewUser {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN];
}

impl Input for UserChange {
    const FOREIGN: &'static [&'static [&'static str]] = &[FOREIGN];
}

/// Who was written down, with the key that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it lives for one answer")]
enum MadeUser {
    WithKey {
        /// What the key says about its owner stands there once.
        #[serde(flatten)]
        key: MadeKey,
        user_alias: Option<String>,
        user_email: Option<String>,
    },
    WithoutKey(UserView),
}

impl Answer for MadeUser {}

/// Who; without one the owner of the request's key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OneUser {
    user_id: Option<String>,
}

impl Input for OneUser {}

/// A person, as LiteLLM wraps them.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "LiteLLM's name")]
struct UserInfo {
    user_id: String,
    user_info: UserView,
    keys: Vec<KeyView>,
}

impl Answer for UserInfo {}

/// Which people, and which part of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// With this role.
    role: Option<String>,
    /// Those with these ids, separated by commas.
    user_ids: Option<String>,
    /// With this text in id, alias or address, whatever the case.
    search: Option<String>,
    /// With this text in the address.
    user_email: Option<String>,
    /// Which page, from 1 on.
    #[schemars(range(min = 1))]
    page: Option<u32>,
    /// People on a page.
    #[schemars(range(min = 1, max = 100))]
    page_size: Option<u32>,
}

impl Input for Asked {
    const FOREIGN: &'static [&'static [&'static str]] = &[&[
        "organization_ids",
        "sort_by",
        "sort_order",
        "sso_user_ids",
        "team",
    ]];
}

/// A part of all people.
#[derive(Debug, Serialize, JsonSchema)]
struct UserPage {
    users: Vec<UserView>,
    total: usize,
    page: u32,
    page_size: usize,
    total_pages: usize,
}

impl Answer for UserPage {}

/// A person after a change.
#[derive(Debug, Serialize, JsonSchema)]
struct UpdatedUser {
    user_id: String,
    data: UserView,
}

impl Answer for UpdatedUser {}

/// Who shall go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ManyUsers {
    #[schemars(length(min = 1))]
    user_ids: Vec<String>,
}

impl Input for ManyUsers {}
impl Answer for DeletedUsers {}

async fn new(call: Call, new: NewUser) -> Result<MadeUser, Refusal> {
    let (user, key) = create(&call.worker, &call.actor(), call.id, new).await?;
    Ok(match key {
        Some(key) => MadeUser::WithKey {
            key,
            user_alias: user.user_alias,
            user_email: user.user_email,
        },
        None => MadeUser::WithoutKey(user),
    })
}

async fn info(call: Call, asked: OneUser) -> Result<UserInfo, Refusal> {
    let own = call.admission.user().map(|user| user.as_str().to_owned());
    let user = match (asked.user_id, own) {
        (Some(asked), Some(own)) if asked == own => own,
        (Some(asked), _) => {
            manager(&call.admission)?;
            asked
        }
        (None, Some(own)) => own,
        (None, None) => {
            return Err(Refusal::because(
                ErrorCode::InvalidField,
                "user_id: say who; the key of the request is nobody's in particular.",
            ));
        }
    };
    let (user_info, mut keys) = get(&call.worker, &user).await?;
    if manager(&call.admission).is_err() {
        if let Principal::Key(key) = &call.admission.principal
            && key.is_narrowed()
        {
            keys.retain(|other| other.key_id == key.id);
        }
        keys = keys.into_iter().map(KeyView::for_holder).collect();
    }
    Ok(UserInfo {
        user_id: user,
        user_info,
        keys,
    })
}

async fn page(call: Call, asked: Asked) -> Result<UserPage, Refusal> {
    let (page, size) = (asked.page.unwrap_or(1), asked.page_size.unwrap_or(PAGE));
    if page == 0 || !(1..=PAGE_LIMIT).contains(&size) {
        let message = format!("page is 1 or more, and page_size 1 to {PAGE_LIMIT}.");
        return Err(Refusal::because(ErrorCode::InvalidField, message));
    }
    let mut all = list(&call.worker).await?;
    let role = asked.role.as_deref().map(super::role).transpose()?;
    all.retain(|user| {
        fits(user, &asked) && role.is_none_or(|role| super::litellm_role(role) == user.user_role)
    });
    let (total, page_size) = (all.len(), size as usize);
    let first = (page as usize - 1).saturating_mul(page_size);
    Ok(UserPage {
        users: all.into_iter().skip(first).take(page_size).collect(),
        total,
        page,
        page_size,
        total_pages: total.div_ceil(page_size),
    })
}

fn fits(user: &UserView, asked: &Asked) -> bool {
    let has = |place: Option<&str>, text: &str| {
        place.is_some_and(|place| place.to_lowercase().contains(&text.to_lowercase()))
    };
    let email = user.user_email.as_deref();
    let ids = asked.user_ids.as_deref();
    ids.is_none_or(|ids| ids.split(',').any(|id| id.trim() == user.user_id))
        && asked.user_email.as_deref().is_none_or(|text| has(email, text))
        && asked.search.as_deref().is_none_or(|text| {
            let places = [Some(&*user.user_id), user.user_alias.as_deref(), email];
            places.into_iter().any(|place| has(place, text))
        })
}

async fn change(call: Call, change: UserChange) -> Result<UpdatedUser, Refusal> {
    let data = update(&call.worker, &call.actor(), call.id, change).await?;
    Ok(UpdatedUser {
        user_id: data.user_id.clone(),
        data,
    })
}

async fn remove(call: Call, asked: ManyUsers) -> Result<DeletedUsers, Refusal> {
    delete(&call.worker, &call.actor(), call.id, &asked.user_ids).await
}
