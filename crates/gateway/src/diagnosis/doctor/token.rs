//! The token endpoint: for a machine a token is really asked for; for people's sign-ins a code that nobody gave is
//! redeemed, which a token endpoint has to refuse in the words of RFC 6749.

use super::Finding;
use super::advice::{Advice, drop_line, line, upstream, you};
use super::metadata::{Learned, endpoints_of, method_line, scopes_line, token_url_line};
use super::mode::Mode;
use super::walk::Walk;
use crate::config::{ExchangeClient, MachineRequest};
use crate::credentials::CredentialSource;
use crate::credentials::client_proof::proof;
use crate::issuer::{resource, upstream::UpstreamEndpoints};
use crate::net::guarded::GuardedFault;
use crate::net::token_endpoint::TokenFault;
use crate::net::transport::shown;
use secrecy::ExposeSecret;
use url::Url;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::token_request::{ClientCredentialsRequest, CodeRequest};
use vestibule_oauth::{ClientAuthMethod, ErrorResponse, TokenResponse, TokenResponseFault};

/// A code that no authorization server gave.
const NO_CODE: &str = "vestibule-doctor-not-a-code";
/// A client that no authorization server knows.
const NO_CLIENT: &str = "vestibule-doctor";
/// A verifier of the shortest length that RFC 7636 section 4.1 allows.
const NO_VERIFIER: &str = "vestibule-doctor-not-a-verifier-0123456789-";

impl Walk {
    pub(super) async fn token(&mut self) -> Option<Finding> {
        match &self.mode {
            Mode::Machine { token_url, request } => {
                let (url, request) = (token_url.clone(), request.clone());
                Some(self.machine_token(&url, &request).await)
            }
            Mode::Person(_) => self.bad_code().await,
            Mode::Exchanged(_) => self.exchanged_token().await,
            Mode::Open | Mode::Fixed | Mode::Own | Mode::Brought(_) | Mode::Signed(_) => None,
        }
    }

    pub(super) async fn machine_token(&mut self, url: &Url, request: &MachineRequest) -> Finding {
        let answer = match proof(&request.client, url, &self.worker.app.clock) {
            Ok(proof) => self.tokens.client_credentials(url, &request.grant, &proof).await,
            Err(fault) => Err(fault),
        };
        match answer {
            Ok(response) => {
                self.keep_secret(response.access_token.secret().expose_secret());
                // The one that the calls after this will show.
                if let CredentialSource::Machine(slot) = &self.server.credential
                    && let Ok(token) = slot.token().await
                {
                    let value = token.header().to_str().unwrap_or_default().to_owned();
                    self.keep_secret(&value);
                }
                machine_token_came(&response, &request.grant)
            }
            Err(fault) => {
                self.token_failed = true;
                let advice = refused(&fault, url, request, self.learned.as_ref());
                Finding::fault(fault.to_string()).advise(advice)
            }
        }
    }

    /// Redeems a code that does not exist, as the gateway redeems one that does.
    async fn bad_code(&mut self) -> Option<Finding> {
        let endpoints = endpoints_of(self)?;
        let Mode::Person(sign_in) = &self.mode else {
            return None;
        };
        let resource = resource(sign_in, &endpoints);
        let answer = self.redeem(&endpoints, resource.clone()).await;
        let said = match answer {
            Ok(said) => said,
            Err(finding) => return Some(*finding),
        };
        let configured = sign_in.client.as_ref();
        let pinned = self.pinned();
        Some(match said.error.as_str() {
            "invalid_grant" => {
                Finding::ok("it refuses a code that nobody gave, as it should (invalid_grant)")
            }
            // Nobody registered the client that was shown.
            "invalid_client" | "unauthorized_client" if configured.is_none() => Finding::ok(format!(
                "it refuses a client that it does not know, as it should ({})",
                said.error
            )),
            "invalid_client" | "unauthorized_client" if !pinned => Finding::ok(format!(
                "it answers as a token endpoint does ({}); the client's secret was not shown to an endpoint that the server \
                 alone names",
                said.error
            )),
            "invalid_client" => {
                let method = configured.map(|client| client.auth_method);
                Finding::fault(format!("it refuses the configured client: {}", described(&said)))
                    .advise(other_method(method, self.learned.as_ref()))
                    .advise([you("check client_id and client_secret against the provider's")])
            }
            "unauthorized_client" => {
                Finding::fault(format!("it refuses the configured client: {}", described(&said)))
                    .advise([upstream("allow the client the authorization code grant")])
            }
            "unsupported_grant_type" => Finding::fault(format!(
                "it has no authorization code grant: {}",
                described(&said)
            ))
            .advise([line(
                "oauth2_flow",
                "client_credentials",
                "if the provider gives tokens to machines alone",
            )]),
            _ => self.other_refusal(&endpoints, resource, &said).await,
        })
    }

    /// Whether `resource` is what the endpoint minds (RFC 8707): the same request is sent with it the other way.
    async fn other_refusal(
        &self,
        endpoints: &UpstreamEndpoints,
        sent: Option<String>,
        said: &ErrorResponse,
    ) -> Finding {
        let other = if sent.is_some() {
            None
        } else {
            let learned = endpoints.resource.clone();
            let own = self.address.as_ref().map(|(url, _)| url.as_str().to_owned());
            learned.or(own)
        };
        let taken = self.redeem(endpoints, other).await;
        let minds = taken.is_ok_and(|said| matches!(said.error.as_str(), "invalid_grant" | "invalid_client"));
        let seen = described(said);
        if minds && sent.is_some() {
            return Finding::fault(format!("it refuses a request with resource: {seen}")).advise([line(
                "send_resource",
                "never",
                "without it the same request is understood",
            )]);
        }
        if minds {
            return Finding::fault(format!("it refuses a request without resource: {seen}")).advise([line(
                "send_resource",
                "always",
                "with it the same request is understood",
            )]);
        }
        Finding::warning(format!(
            "it refuses a code that nobody gave, and not as expected: {seen}"
        ))
    }

    /// What the endpoint says to a code that nobody gave.
    async fn redeem(
        &self,
        endpoints: &UpstreamEndpoints,
        resource: Option<String>,
    ) -> Result<ErrorResponse, Box<Finding>> {
        let client = match &self.mode {
            Mode::Person(sign_in) => sign_in.client.clone(),
            _ => None,
        };
        let public = |id: String| Client {
            id,
            secret: None,
            auth_method: ClientAuthMethod::None,
        };
        let request = CodeRequest {
            client: match client {
                Some(client) if self.pinned() => client,
                // A sign-in begins with a person; a walk must not hand a secret to whom a server names.
                Some(client) => public(client.id),
                None => public(NO_CLIENT.to_owned()),
            },
            code: NO_CODE.into(),
            redirect_uri: self.callback(),
            code_verifier: Some(NO_VERIFIER.into()),
            resource,
        };
        let url = &endpoints.token_url;
        let answer = self
            .guarded
            .post_form(url, &request.encode(), &endpoints.reach)
            .await;
        let answer = answer.map_err(|fault| Box::new(unanswered(&fault, url, self.learned.as_ref())))?;
        let sent = request.sent_secrets();
        let secrets: Vec<&str> = sent.iter().map(ExposeSecret::expose_secret).collect();
        match TokenResponse::parse_interactive(
            answer.status,
            answer.content_type.as_deref(),
            &answer.body,
            &secrets,
        ) {
            Err(TokenResponseFault::Refused(said)) => Ok(said),
            Ok(_) => Err(Box::new(
                Finding::fault("it gave a token for a code that nobody gave").advise([upstream(
                    "refuse unknown codes (RFC 6749 section 5.2): as it is, anybody gets a token",
                )]),
            )),
            Err(fault) => Err(Box::new(
                Finding::fault(fault.to_string()).advise(elsewhere(url, self.learned.as_ref())),
            )),
        }
    }
}

fn machine_token_came(response: &TokenResponse, request: &ClientCredentialsRequest) -> Finding {
    let life = match response.expires_in {
        Some(0) => "which is past already".to_owned(),
        Some(seconds) => format!("for {seconds} s"),
        None => "for an unknown time".to_owned(),
    };
    let scope = response.scope.as_deref();
    let shown_scope = scope
        .map(|scope| format!(", scope \"{scope}\""))
        .unwrap_or_default();
    let seen = format!("a {} token {life}{shown_scope}", response.token_type);
    // RFC 6749 section 5.1: a scope in the answer is what was granted, where that differs.
    let granted: Vec<&str> = scope.map(|scope| scope.split(' ').collect()).unwrap_or_default();
    let less = scope.is_some()
        && request
            .scopes
            .iter()
            .any(|asked| !granted.contains(&asked.as_str()));
    match response.expires_in {
        Some(0) => Finding::warning(seen).advise([upstream("give tokens with a life (expires_in)")]),
        _ if less => Finding::warning(format!("{seen}, which is less than was asked for"))
            .advise([upstream("allow the client the scopes of the configuration")]),
        _ => Finding::ok(seen),
    }
}

fn unanswered(fault: &GuardedFault, url: &Url, learned: Option<&Learned>) -> Finding {
    let finding = Finding::fault(format!("{}: {fault}", shown(url)));
    match fault {
        GuardedFault::NotAllowed => finding.advise([token_url_line(
            url,
            "makes it the operator's own word, if you trust it",
        )]),
        _ => finding.advise(elsewhere(url, learned)),
    }
}

fn described(said: &ErrorResponse) -> String {
    match &said.description {
        Some(description) => format!("{} ({description})", said.error),
        None => said.error.clone(),
    }
}

/// The other way to show the client's secret, unless the metadata rules it out.
pub(super) fn other_method(method: Option<ClientAuthMethod>, learned: Option<&Learned>) -> Option<Advice> {
    let other = match method? {
        ClientAuthMethod::ClientSecretPost => ClientAuthMethod::ClientSecretBasic,
        ClientAuthMethod::ClientSecretBasic => ClientAuthMethod::ClientSecretPost,
        ClientAuthMethod::None => return None,
    };
    let metadata = learned.and_then(Learned::server);
    let offered = metadata.and_then(|metadata| metadata.token_endpoint_auth_methods_supported.as_ref());
    let possible = offered.is_none_or(|offered| offered.iter().any(|method| method == other.name()));
    possible.then(|| method_line(other.name()))
}

/// What answers at `url` is no token endpoint: the metadata may know a better place.
fn elsewhere(url: &Url, learned: Option<&Learned>) -> Vec<Advice> {
    let metadata = learned.and_then(Learned::server);
    match metadata.and_then(|metadata| metadata.token_endpoint.as_ref()) {
        Some(named) if named != url => {
            vec![token_url_line(
                named,
                "the token endpoint that the authorization server's metadata names",
            )]
        }
        Some(_) => vec![upstream(
            "look at the authorization server: its metadata names this endpoint",
        )],
        None => vec![you(
            "check token_url against the provider's manual, and that this machine reaches it",
        )],
    }
}

fn refused(
    fault: &TokenFault,
    url: &Url,
    request: &MachineRequest,
    learned: Option<&Learned>,
) -> Vec<Advice> {
    let TokenFault::Response(TokenResponseFault::Refused(said)) = fault else {
        return elsewhere(url, learned);
    };
    match said.error.as_str() {
        "invalid_client" => {
            let method = match &request.client {
                ExchangeClient::Shared(client) => Some(client.auth_method),
                ExchangeClient::Key(_) => None,
            };
            let mut advice: Vec<Advice> = other_method(method, learned).into_iter().collect();
            advice.push(you(match method {
                Some(_) => "check client_id and client_secret against the provider's",
                None => "check that the provider knows client_id, and the public half of client_private_key under client_private_key_id",
            }));
            advice
        }
        "invalid_scope" => match learned.map(Learned::wanted_scopes) {
            Some(wanted @ [_, ..]) if wanted != request.grant.scopes => vec![scopes_line(wanted)],
            _ if request.grant.scopes.is_empty() => {
                vec![you("set scopes to what the provider gives this client")]
            }
            _ => vec![drop_line("scopes", "the provider then gives its default scope")],
        },
        "invalid_target" if request.grant.resource.is_none() => {
            vec![line(
                "resource",
                "auto",
                "names the server as what the token is for (RFC 8707)",
            )]
        }
        "invalid_target" => vec![drop_line("resource", "the provider does not know this resource")],
        "unauthorized_client" | "unsupported_grant_type" => vec![
            upstream("allow the client the client credentials grant"),
            line(
                "oauth2_flow",
                "authorization_code",
                "if people are meant to sign in to this server",
            ),
        ],
        _ => vec![you("what the provider says is its own; its log knows more")],
    }
}
