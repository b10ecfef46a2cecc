//! The gateway's own client at the provider: configured, or to be registered (RFC 7591). Nothing is registered
//! unless that was asked for: it would stay there.

use super::Finding;
use super::advice::{line, upstream, you};
use super::metadata::endpoints_of;
use super::mode::Mode;
use super::walk::Walk;
use crate::net::transport::shown;
use secrecy::ExposeSecret;
use vestibule_oauth::registration::{ClientMetadata, RegistrationFault, RegistrationResponse};

impl Walk {
    pub(super) async fn registration(&mut self) -> Option<Finding> {
        let sign_in = match &self.mode {
            Mode::Person(sign_in) => sign_in,
            Mode::Brought(_) => return self.clients_own_registration(),
            _ => return None,
        };
        if sign_in.client.is_some() {
            return Some(Finding::ok(match &self.callback {
                Some(callback) => format!("client_id is configured; the provider has to know its redirect URI, {callback}"),
                None => "client_id is configured; the provider has to know its redirect URI, the gateway's public URL \
                         with /callback"
                    .to_owned(),
            }));
        }
        let endpoints = endpoints_of(self)?;
        let Some(url) = &endpoints.registration_url else {
            return Some(
                Finding::fault("the authorization server registers no clients, and none is configured")
                    .advise([
                        line(
                            "client_id",
                            "os.environ/MCP_CLIENT_ID",
                            "a client that you register by hand at the provider",
                        ),
                        line(
                            "client_secret",
                            "os.environ/MCP_CLIENT_SECRET",
                            "its secret, if it has one",
                        ),
                    ]),
            );
        };
        if !self.options.register {
            return Some(Finding::ok(format!(
                "{}; not tried without --register",
                shown(url)
            )));
        }
        let callback = self.callback();
        let metadata = ClientMetadata {
            client_name: Some("vestibule doctor".to_owned()),
            ..ClientMetadata::default()
        };
        let methods = endpoints.auth_methods.as_deref();
        let document = metadata.upstream_request(&callback, methods);
        let asked = metadata.upstream_auth_method(methods);
        let answer = match self.guarded.post_json(url, &document, &endpoints.reach).await {
            Ok(answer) => answer,
            Err(fault) => {
                return Some(Finding::fault(format!("{}: {fault}", shown(url))).advise([by_hand()]));
            }
        };
        let registered =
            RegistrationResponse::parse(answer.status, answer.content_type.as_deref(), &answer.body, asked);
        Some(match registered {
            Ok(client) => {
                if let Some(secret) = &client.client_secret {
                    self.keep_secret(secret.expose_secret());
                }
                Finding::ok(format!(
                    "registered client {} ({}) with {callback}; it stays at the provider until somebody deletes it",
                    client.client_id,
                    client.auth_method.name()
                ))
            }
            Err(fault) => {
                let about_callback = matches!(&fault, RegistrationFault::Refused(said) if said.error == "invalid_redirect_uri");
                let finding = Finding::fault(fault.to_string());
                if about_callback {
                    finding.advise([you(format!(
                        "the provider does not take {callback}: set PROXY_BASE_URL to the gateway's public https URL"
                    ))])
                } else {
                    finding.advise([
                        by_hand(),
                        upstream("let clients register without a token of their own (RFC 7591)"),
                    ])
                }
            }
        })
    }
}

fn by_hand() -> super::Advice {
    line(
        "client_id",
        "os.environ/MCP_CLIENT_ID",
        "a client that you register by hand at the provider needs no registration",
    )
}
