//! A note made into a row: texts, cut and without control characters, and the trace.

use super::message::Asked;
use super::note::{Message, Note, SHOWN};
use super::trace::{
    Admitted, Kind, Permitted, Refused, Shown, Step, Target, Timings, Trace, Upstream, Visitor,
};
use crate::admission::Principal;
use crate::admission::keys::{PREFIX, VirtualKey};
use crate::clock::Moment;
use crate::registry::Server;
use crate::web::error::shown;
use http::{Method, StatusCode};
use vestibule_store::AuditEntry;

/// The outcome of what went well.
const OK: &str = "ok";
/// The outcome of a call whose server answered with a status that says so.
const UPSTREAM_ERROR: &str = "upstream_error";
/// The outcome of a request that the caller did not wait for.
const CLIENT_LEFT: &str = "client_left";

impl Note {
    /// The row, at `at_ms`, in milliseconds since 1970.
    pub(super) fn into_entry(self, at_ms: u64) -> AuditEntry {
        let asked = match &self.message {
            Message::None => Asked::default(),
            Message::Copied(message) => Asked::read(message, self.with_arguments),
            Message::Read(asked) => (**asked).clone(),
        };
        let key = self.key();
        let mut tool = self.tool.as_deref().map(str::to_owned);
        if tool.is_none() && asked.method.as_deref() == Some("tools/call") {
            tool.clone_from(&asked.name);
        }
        let flow = self.step.as_ref().and_then(|step| match step.name {
            // Which sign-ins a registration is for is not known.
            "register" => None,
            _ => Some(step.flow.clone().unwrap_or_else(|| self.id.as_str().to_owned())),
        });
        let client = self
            .client
            .as_ref()
            .map(|client| String::from_utf8_lossy(client.as_bytes()));
        AuditEntry {
            at_ms,
            kind: self.kind.name().to_owned(),
            request_id: Some(self.id.as_str().to_owned()),
            user_id: self.user_id(),
            key_id: key.map(|key| key.id.clone()),
            key_alias: self.key_alias(),
            client: client.map(|client| shown(&client, SHOWN)),
            address: Some(self.address.to_string()),
            server: self.server.as_ref().map(|server| server.name.clone()),
            tool,
            outcome: Some(self.outcome()),
            status: self.status.map(|status| status.as_u16()),
            flow,
            trace: serde_json::to_string(&self.trace(asked)).ok(),
        }
    }

    fn key(&self) -> Option<&VirtualKey> {
        match &self.principal {
            Some(Principal::Key(key)) => Some(key),
            Some(_) => None,
            None => self.key.as_deref(),
        }
    }

    fn key_alias(&self) -> Option<String> {
        match &self.principal {
            Some(Principal::Master) => Some("master key".to_owned()),
            _ => self.key()?.alias.clone(),
        }
    }

    fn user_id(&self) -> Option<String> {
        let own = self.user.as_deref().map(str::to_owned);
        own.or_else(|| Some(self.key()?.user.as_ref()?.as_str().to_owned()))
    }

    fn outcome(&self) -> String {
        let refused = self.refusal.as_ref().map(|refusal| refusal.code.name());
        let said = refused.or(self.outcome.as_deref());
        let status = || match self.status {
            None => CLIENT_LEFT,
            Some(status) if self.is_bad(status) => UPSTREAM_ERROR,
            Some(_) => OK,
        };
        said.unwrap_or_else(status).to_owned()
    }

    /// Whether calls that came to this are rows although calls are none.
    pub(super) fn is_failure(&self) -> bool {
        let bad = self.status.is_none_or(|status| self.is_bad(status));
        self.refusal.is_some() || self.outcome.is_some() || bad
    }

    /// A server without a stream of its own, or without sessions to end, says so with 405 (MCP transports, "Streamable
    /// HTTP"), and nothing is wrong.
    fn is_bad(&self, status: StatusCode) -> bool {
        let expected = status == StatusCode::METHOD_NOT_ALLOWED && self.method != Method::POST;
        (status.is_client_error() || status.is_server_error()) && !expected
    }

    fn trace(&self, asked: Asked) -> Trace {
        let path = self.path.as_ref().map_or("", |path| path.path());
        Trace {
            target: Some(Target {
                method: shown(self.method.as_str(), 20),
                path: shown(&without_keys(path), SHOWN),
                message: asked.method,
                name: asked.name,
                unreadable: asked.unreadable,
                servers: self.servers.iter().map(|server| server.name.clone()).collect(),
                client_info: asked.client,
            }),
            admission: self.admission(),
            policy: self.policy(),
            credential: self.resolution.map(|resolution| Shown {
                resolution: resolution.name().to_owned(),
                token: self.token.map(str::to_owned),
                retried: self.retried,
            }),
            upstream: (self.requests > 0).then(|| Upstream {
                status: self.upstream.map(|status| status.as_u16()),
                requests: self.requests,
                redirects: self.redirects,
            }),
            refusal: self.refused(),
            sign_in: self.step.as_ref().map(|step| Step {
                step: step.name.to_owned(),
                client: step.client.clone(),
                grant: step.grant.map(str::to_owned),
                description: step.description.clone(),
            }),
            timings: self.ended.map(|ended| Timings {
                admitted: self.until(self.admitted),
                sent: self.until(self.sent),
                first_byte: self.until(self.first_byte),
                total: micros(self.started, ended),
            }),
            visitor: self.visitor.as_deref().map(|visitor| Visitor {
                name: visitor.name.clone(),
                user_id: visitor.user.clone(),
                key_id: visitor.key.clone(),
            }),
            arguments: asked.arguments,
            ..Trace::default()
        }
    }

    fn until(&self, moment: Option<Moment>) -> Option<u64> {
        moment.map(|moment| micros(self.started, moment))
    }

    fn admission(&self) -> Option<Admitted> {
        let by = match &self.principal {
            Some(Principal::Master) => "master_key",
            Some(Principal::Key(_)) => "key",
            Some(Principal::Anyone) => "anyone",
            Some(Principal::Delegated) => "delegated",
            None if self.key.is_some() => "refused",
            None => return None,
        };
        Some(Admitted {
            by: by.to_owned(),
            header: self.header.as_ref().map(|header| header.as_str().to_owned()),
        })
    }

    fn policy(&self) -> Option<Permitted> {
        let server = self.server.as_ref().filter(|_| self.kind == Kind::Call)?;
        let by = match self.principal.as_ref()? {
            Principal::Master => "master_key",
            Principal::Anyone => "no_keys",
            Principal::Delegated => "delegated",
            Principal::Key(key) => permitted_by(key, server),
        };
        Some(Permitted { by: by.to_owned() })
    }

    fn refused(&self) -> Option<Refused> {
        let rpc = self.rpc.map(|code| Refused {
            rpc: Some(code),
            ..Refused::default()
        });
        let Some(refusal) = &self.refusal else { return rpc };
        let oauth = refusal.oauth.as_deref();
        Some(Refused {
            message: shown(&refusal.message, super::note::DESCRIBED),
            next_step: refusal.code.next_step().to_owned(),
            oauth_error: oauth.map(|said| shown(&said.error, SHOWN)),
            oauth_error_description: oauth
                .and_then(|said| said.description.as_deref())
                .map(|text| shown(text, SHOWN)),
            rpc: None,
        })
    }
}

/// What [`crate::policy::access::is_for`] finds, in its order.
fn permitted_by(key: &VirtualKey, server: &Server) -> &'static str {
    if server.allows_all_keys {
        "allow_all_keys"
    } else if key.manages() {
        "admin"
    } else {
        key.document.granted_by(server).unwrap_or("nothing")
    }
}

fn micros(from: Moment, to: Moment) -> u64 {
    u64::try_from(from.until(to).as_micros()).unwrap_or(u64::MAX)
}

/// A path without the texts of keys that LiteLLM's clients put there.
fn without_keys(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        if segment.starts_with(PREFIX) {
            "sk-..."
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_key_is_left_in_a_path() {
        assert_eq!(
            without_keys("/key/sk-abc_DEF-1/regenerate"),
            "/key/sk-.../regenerate"
        );
        assert_eq!(without_keys("/one/mcp"), "/one/mcp");
    }
}
