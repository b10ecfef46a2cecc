//! What became of each server of a list, so that a shorter list says why it is shorter.

use super::Context;
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, Wanted};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The member of `_meta` that has the outcomes.
pub(super) const OUTCOMES: &str = "litellm.ai/server_outcomes";

/// A server that answered.
pub(super) fn ok(count: usize, skipped: usize) -> Value {
    let mut outcome = json!({"status": "ok", "tool_count": count});
    if skipped > 0 {
        outcome["skipped"] = skipped.into();
    }
    outcome
}

/// A server that did not.
pub(super) fn failed(ctx: &Context, server: &Server, refusal: &Refusal) -> Value {
    let mut outcome = json!({
        "status": status(refusal.code),
        "code": refusal.code.name(),
        "message": refusal.message,
        "next_step": refusal.code.next_step(),
    });
    let documented = |wanted: &Wanted| !wanted.undocumented;
    if refusal.sign_in.as_deref().is_some_and(documented)
        && let Some(metadata) = ctx.metadata_of(server)
    {
        outcome["resource_metadata"] = metadata.into();
    }
    outcome
}

/// Names that lead to no server.
pub(super) fn unknown(ctx: &Context, outcomes: &mut Map<String, Value>) {
    for name in &ctx.scope.unknown {
        let code = ErrorCode::UnknownServer;
        let outcome = json!({
            "status": code.name(),
            "code": code.name(),
            "message": code.meaning(),
            "next_step": code.next_step(),
        });
        outcomes.insert(name.clone(), outcome);
    }
}

/// Logs and counts each failure, once.
pub(super) fn tell(ctx: &Context, failures: &[(Arc<Server>, Refusal)]) {
    for (server, refusal) in failures {
        ctx.caller.worker.refuse(refusal.clone(), Some(server), ctx.id);
    }
}

/// LiteLLM's word for it.
fn status(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::SignInRequired
        | ErrorCode::SignInEnded
        | ErrorCode::AmbiguousAuthorization
        | ErrorCode::CallersTokenRequired
        | ErrorCode::SubjectTokenRequired
        | ErrorCode::SubjectTokenRefused
        | ErrorCode::InsufficientClaims
        | ErrorCode::UpstreamWantsCredential
        | ErrorCode::UpstreamRefusedToken
        | ErrorCode::UpstreamRefusedCredential => "auth_required",
        ErrorCode::ScopeMissing | ErrorCode::UpstreamForbidden => "forbidden",
        ErrorCode::TooManyCalls | ErrorCode::UpstreamRateLimited => "rate_limited",
        ErrorCode::ListingTimeout
        | ErrorCode::UpstreamTimeout
        | ErrorCode::UpstreamConnectTimeout
        | ErrorCode::TokenEndpointTimeout => "timeout",
        ErrorCode::UpstreamUnreachable | ErrorCode::UpstreamClosed | ErrorCode::TokenEndpointUnreachable => {
            "unreachable"
        }
        ErrorCode::Internal | ErrorCode::StoreUnavailable => "internal",
        _ => "upstream_error",
    }
}
