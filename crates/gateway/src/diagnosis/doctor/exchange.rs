//! Tokens on a caller's behalf: whose tokens count and by which keys, the token endpoints, which are shown a subject
//! token that nobody issued, and with `--token-env` a real one, judged and exchanged as for a call.

use super::Finding;
use super::advice::{Advice, drop_line, line, upstream, you};
use super::mode::Mode;
use super::token::other_method;
use super::walk::Walk;
use crate::config::{Exchange, ExchangeClient, ExchangeProfile, TokenEndpoint};
use crate::credentials::CredentialSource;
use crate::credentials::exchange::{Exchanger, SubjectFault, SubjectToken};
use crate::issuer::upstream::UpstreamConfig;
use crate::net::token_endpoint::TokenFault;
use crate::net::transport::shown;
use http::HeaderValue;
use secrecy::ExposeSecret;
use std::sync::Arc;
use url::Url;
use vestibule_oauth::TokenResponseFault;
use vestibule_oauth::jwt::{Jwt, JwtFault};
use vestibule_oauth::metadata::AuthorizationServerMetadata;

/// Which of the token endpoints it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// That which takes callers' tokens.
    First,
    /// The server's own authorization server's, in the identity assertion grant.
    Second,
}

impl Walk {
    fn exchange(&self) -> Option<(Arc<Exchange>, Arc<Exchanger>)> {
        match (&self.mode, &self.server.credential) {
            (Mode::Exchanged(settings), CredentialSource::OnBehalf(exchanger)) => {
                Some((Arc::clone(settings), Arc::clone(exchanger)))
            }
            _ => None,
        }
    }

    /// The documents of `subject_token_issuer`.
    pub(super) async fn subject_issuer(&mut self) -> Option<Finding> {
        let (settings, exchanger) = self.exchange()?;
        let issuer = &settings.subject.as_ref()?.rules.issuer;
        Some(match exchanger.subject_keys().await? {
            Ok((count, algorithms)) => Finding::ok(format!(
                "{issuer}: {count} key{} of use, for {}",
                if count == 1 { "" } else { "s" },
                algorithms.join(", ")
            )),
            Err(fault) => {
                let finding = Finding::fault(fault.to_string());
                match self.described_by(issuer).await {
                    Some(metadata) if metadata.issuer != *issuer => {
                        finding.advise([spelt("subject_token_issuer", &metadata)])
                    }
                    _ => finding.advise([
                        you("check subject_token_issuer: it is compared letter by letter with iss and with the issuer's own metadata"),
                        line(
                            "subject_token_jwks_url",
                            "https://…",
                            "where the issuer publishes its keys, if it has no metadata",
                        ),
                    ]),
                }
            }
        })
    }

    /// The first token endpoint: where it is, and that it is one.
    pub(super) async fn token_endpoint(&mut self) -> Option<Finding> {
        let (settings, exchanger) = self.exchange()?;
        let url = match exchanger.token_endpoint().await {
            Ok(url) => url,
            Err(fault) => {
                self.token_failed = true;
                return Some(self.not_discovered(&settings, &fault).await);
            }
        };
        let named = match &settings.endpoint {
            TokenEndpoint::Configured(_) => String::new(),
            TokenEndpoint::OfIssuer(issuer) => format!(", as the metadata of {issuer} names it"),
        };
        let seen = format!("{}{named}", shown(&url));
        let answer = exchanger.try_nobodys().await;
        Some(self.judge_leg(&settings, Leg::First, &seen, &url, answer).await)
    }

    /// The second token endpoint of the identity assertion grant.
    pub(super) async fn resource_token_endpoint(&mut self) -> Option<Finding> {
        let (settings, exchanger) = self.exchange()?;
        let ExchangeProfile::IdJag { endpoint, .. } = &settings.profile else {
            return None;
        };
        let answer = exchanger.redeem_nobodys().await?;
        let seen = shown(endpoint);
        Some(
            self.judge_leg(&settings, Leg::Second, &seen, endpoint, answer)
                .await,
        )
    }

    /// What came of a token that nobody issued.
    async fn judge_leg(
        &mut self,
        settings: &Exchange,
        leg: Leg,
        seen: &str,
        url: &Url,
        answer: Result<(), TokenFault>,
    ) -> Finding {
        let fault = match answer {
            Err(TokenFault::Subject { error, .. }) => {
                return Finding::ok(format!(
                    "{seen}: it refuses a token that nobody issued, as it should ({error})"
                ));
            }
            Err(TokenFault::Response(TokenResponseFault::Refused(said)))
                if matches!(said.error.as_str(), "invalid_grant" | "invalid_request") =>
            {
                return Finding::ok(format!(
                    "{seen}: it refuses a token that nobody issued, as it should ({})",
                    said.error
                ));
            }
            Ok(()) => {
                self.token_failed = true;
                return Finding::fault(format!("{seen}: it gave a token for one that nobody issued")).advise(
                    [upstream(
                        "refuse unknown subject tokens: as it is, anybody gets a token",
                    )],
                );
            }
            Err(fault) => fault,
        };
        if let TokenFault::Response(TokenResponseFault::Refused(said)) = &fault
            && let Some(advice) = refused(&said.error, settings, leg)
        {
            self.token_failed = true;
            return Finding::fault(format!("{seen}: it refuses the request: {}", said.error)).advise(advice);
        }
        if let TokenFault::Response(TokenResponseFault::Refused(said)) = &fault {
            return Finding::warning(format!(
                "{seen}: it refuses a token that nobody issued, and not as expected: {}",
                said.error
            ));
        }
        self.token_failed = true;
        let better = match leg {
            Leg::First => self.named_elsewhere(settings, url).await,
            Leg::Second => None,
        };
        let name = endpoint_name(leg);
        Finding::fault(format!("{seen}: {fault}"))
            .advise(better)
            .advise([you(format!(
                "check {name}, and that this machine reaches it: it has to be a token endpoint (RFC 6749 section 3.2)"
            ))])
    }

    /// Another token endpoint, that the metadata of a known issuer names.
    async fn named_elsewhere(&self, settings: &Exchange, url: &Url) -> Option<Advice> {
        let issuer = &settings.subject.as_ref()?.rules.issuer;
        let named = self.described_by(issuer).await?.token_endpoint?;
        (named != *url).then(|| {
            line(
                endpoint_name(Leg::First),
                named.as_str(),
                "the token endpoint that the metadata of subject_token_issuer names; in place of token_url, if that is set",
            )
        })
    }

    async fn not_discovered(&self, settings: &Exchange, fault: &TokenFault) -> Finding {
        let finding = Finding::fault(fault.to_string());
        let TokenEndpoint::OfIssuer(issuer) = &settings.endpoint else {
            return finding;
        };
        let spelt_otherwise = match self.described_by(issuer).await {
            Some(metadata) if metadata.issuer != *issuer => Some(spelt("issuer", &metadata)),
            _ => None,
        };
        finding.advise(spelt_otherwise).advise([line(
            endpoint_name(Leg::First),
            "https://…",
            "the token endpoint, from the provider's manual; then no metadata is needed",
        )])
    }

    /// The metadata at the well-known places of `issuer`, whatever issuer it names.
    async fn described_by(&self, issuer: &str) -> Option<AuthorizationServerMetadata> {
        use crate::issuer::upstream::Rejected;
        let (url, _) = self.address.as_ref()?;
        let config = UpstreamConfig {
            issuer: Some(issuer.to_owned()),
            ..UpstreamConfig::bare(&self.server.name, url)
        };
        let found = self.discovery.examine(&config).await;
        let rejected = found.rejected.into_iter().find_map(|rejected| match rejected {
            Rejected::Issuer(metadata) | Rejected::Unfit(metadata) => Some(metadata),
            Rejected::Resource(_) => None,
        });
        found.server.or(rejected)
    }

    /// A caller's token, as it is judged before it is exchanged.
    pub(super) async fn subject_token(&mut self) -> Option<Finding> {
        let (settings, exchanger) = self.exchange()?;
        let Some(token) = &self.options.token else {
            return Some(Finding::skipped(
                "it takes a person's token, to be exchanged: --token-env NAME reads one from the variable NAME",
            ));
        };
        let text = token.expose_secret().trim();
        let key = self.master_key.as_ref().and_then(|key| key.to_str().ok());
        if key.is_some_and(|key| text.contains(key)) {
            self.token_failed = true;
            return Some(
                Finding::fault("it holds the gateway's own key, which goes to nobody").advise([you(
                    "put the person's access token into the variable of --token-env",
                )]),
            );
        }
        let subject = HeaderValue::from_str(text).ok();
        let Some(subject) = subject.and_then(|value| SubjectToken::of(&value)) else {
            self.token_failed = true;
            return Some(Finding::fault("what --token-env names is no token"));
        };
        let jwt = Jwt::read(text);
        let now = self.worker.app.clock.unix_seconds();
        let fault = match exchanger.judge(&subject).await {
            Ok(Some(end)) if end <= now => JwtFault::Expired,
            Ok(end) => {
                return Some(Finding::ok(match (settings.subject.is_some(), end) {
                    (true, Some(end)) => format!("it counts, for {} s", end - now),
                    (true, None) => "it counts".to_owned(),
                    (false, Some(end)) => {
                        format!(
                            "it ends in {} s; the authorization server judges the rest",
                            end - now
                        )
                    }
                    (false, None) => "the authorization server judges it".to_owned(),
                }));
            }
            Err(SubjectFault::Refused(fault)) => fault,
            Err(undecided @ SubjectFault::Undecided(_)) => {
                self.token_failed = true;
                return Some(
                    Finding::fault(undecided.to_string())
                        .advise([you("see subject_issuer above: without its keys no token counts")]),
                );
            }
        };
        self.token_failed = true;
        Some(uncounted(fault, &settings, jwt.as_ref()))
    }

    /// The exchange itself, or the machine's token for callers that bring none.
    pub(super) async fn exchanged_token(&mut self) -> Option<Finding> {
        let (settings, exchanger) = self.exchange()?;
        if self.token_failed {
            return None;
        }
        let Some(token) = &self.options.token else {
            let (url, request) = settings.fallback.as_ref()?;
            let finding = self.machine_token(url, request).await;
            return Some(Finding {
                seen: format!("for callers without a token, the gateway's own: {}", finding.seen),
                ..finding
            });
        };
        let subject = HeaderValue::from_str(token.expose_secret().trim()).ok();
        let subject = subject.and_then(|value| SubjectToken::of(&value))?;
        let principal = self.admission().ok()?.principal;
        let slot = match exchanger.slot(&subject, &principal).await {
            Ok(slot) => slot,
            Err(fault) => return Some(self.not_exchanged(fault.to_string())),
        };
        Some(match slot.token().await {
            Ok(token) => {
                let value = token.header().to_str().unwrap_or_default().to_owned();
                self.keep_secret(&value);
                Finding::ok("the caller's token was exchanged for one that the server is shown")
            }
            Err(error) => {
                let finding = self.not_exchanged(error.fault.to_string());
                match &error.fault {
                    TokenFault::Subject { claims: Some(_), .. } => finding.advise([you(
                        "the identity provider wants more of the person first (a second factor, consent): clients are told \
                         by the challenge",
                    )]),
                    TokenFault::Subject { .. } => finding.advise([you(
                        "the provider does not accept this token: see that it is fresh, and that its audience is the \
                         gateway's client there",
                    )]),
                    TokenFault::Response(TokenResponseFault::Refused(said)) => {
                        finding.advise(refused(&said.error, &settings, Leg::First).into_iter().flatten())
                    }
                    _ => finding.advise([you("see token_endpoint above")]),
                }
            }
        })
    }

    fn not_exchanged(&mut self, why: String) -> Finding {
        self.token_failed = true;
        Finding::fault(why)
    }
}

fn endpoint_name(leg: Leg) -> &'static str {
    match leg {
        Leg::First => "token_exchange_endpoint",
        Leg::Second => "id_jag_resource_token_endpoint",
    }
}

fn spelt(name: &str, metadata: &AuthorizationServerMetadata) -> Advice {
    line(
        name,
        &metadata.issuer,
        "the issuer as its metadata spells it, if you trust it; the two are compared letter by letter",
    )
}

/// What a refusal that is about the gateway asks for. `None` for one that is about the token.
fn refused(error: &str, settings: &Exchange, leg: Leg) -> Option<Vec<Advice>> {
    let (client, own) = match (&settings.profile, leg) {
        (ExchangeProfile::IdJag { client, .. }, Leg::Second) => (client, true),
        _ => (&settings.client, false),
    };
    let grant = match (&settings.profile, leg) {
        (ExchangeProfile::EntraObo, _) => "the on-behalf-of flow",
        (ExchangeProfile::IdJag { .. }, Leg::Second) => "the JWT bearer grant (RFC 7523)",
        _ => "the token exchange grant (RFC 8693)",
    };
    Some(match error {
        "invalid_client" => match client {
            ExchangeClient::Shared(client) => {
                let mut advice = Vec::new();
                advice.extend(other_method(Some(client.auth_method), None));
                advice.push(you(if own {
                    "check id_jag_resource_client_id and id_jag_resource_client_secret against the server's authorization \
                     server; without them client_id and client_secret are shown there"
                } else {
                    "check client_id and client_secret against the provider's"
                }));
                advice
            }
            ExchangeClient::Key(_) => vec![you(
                "check that the provider knows the public half of client_private_key under client_private_key_id, \
                 client_assertion_signing_alg, and client_assertion_audience",
            )],
        },
        "unauthorized_client" => vec![upstream(format!("allow the gateway's client {grant}"))],
        "unsupported_grant_type" => {
            let mut advice = vec![upstream(format!("offer {grant}"))];
            match &settings.profile {
                ExchangeProfile::Rfc8693 { .. } => advice.insert(
                    0,
                    line(
                        "token_exchange_profile",
                        "entra_obo",
                        "if the provider is Microsoft Entra, which has a flow of its own",
                    ),
                ),
                ExchangeProfile::EntraObo => advice.insert(
                    0,
                    drop_line(
                        "token_exchange_profile",
                        "if the provider speaks RFC 8693 instead",
                    ),
                ),
                ExchangeProfile::IdJag { .. } => {}
            }
            advice
        }
        "invalid_scope" if settings.scopes.is_empty() => {
            vec![you("set scopes to what the provider gives this client")]
        }
        "invalid_scope" => vec![
            drop_line("scopes", "the provider then gives its default scope"),
            you("or check the spelling of each scope"),
        ],
        "invalid_target" => vec![you(match (&settings.audience, &settings.resource) {
            (None, None) => "set audience, or resource: auto, to what the provider calls the MCP server",
            _ => "check audience and resource: the provider does not know what they name",
        })],
        _ => return None,
    })
}

/// A caller's token that does not count, and what would have it count.
fn uncounted(fault: JwtFault, settings: &Exchange, jwt: Option<&Jwt<'_>>) -> Finding {
    let claims = jwt.map(|jwt| &jwt.claims);
    let rules = settings.subject.as_ref().map(|subject| &subject.rules);
    let finding = Finding::fault(format!("it does not count: {fault}"));
    match fault {
        JwtFault::Issuer => {
            let found = claims.and_then(|claims| claims.issuer.as_deref());
            let wanted = rules.map(|rules| rules.issuer.as_str()).unwrap_or_default();
            Finding::fault(format!(
                "it does not count: iss is {}, and {wanted} is configured",
                found.unwrap_or("missing")
            ))
            .advise(found.map(|issuer| {
                line(
                    "subject_token_issuer",
                    issuer,
                    "who issued this token, if you trust it with every caller of this server",
                )
            }))
        }
        JwtFault::Audience => {
            let found = claims.map(|claims| claims.audience.as_slice()).unwrap_or_default();
            let wanted = rules.map(|rules| rules.audience.as_str()).unwrap_or_default();
            Finding::fault(format!(
                "it does not count: aud is {}, and {wanted} is configured",
                if found.is_empty() { "missing".to_owned() } else { found.join(", ") }
            ))
            .advise(found.first().map(|audience| {
                line(
                    "subject_token_audience",
                    audience,
                    "whom this token is for, if that is the gateway: tokens for others must not count",
                )
            }))
        }
        JwtFault::Expired => finding.advise([you("get a fresh token, and see that this machine's clock is right")]),
        JwtFault::NotYet => finding.advise([you("see that the clocks of this machine and of the issuer are right")]),
        JwtFault::NotAJwt => finding.advise([you(
            "the keys of subject_token_issuer judge signed tokens (JWT) alone: for opaque ones leave subject_token_issuer \
             and subject_token_audience out, and the authorization server judges them",
        )]),
        JwtFault::UnknownKey | JwtFault::Signature => finding.advise([
            you("see that the token is whole, and of the issuer's present keys"),
            line(
                "subject_token_jwks_url",
                "https://…",
                "where its keys are, if not where the issuer's metadata says",
            ),
        ]),
        JwtFault::Algorithm | JwtFault::Type | JwtFault::Critical | JwtFault::NoSubject | JwtFault::NoExpiry => {
            finding.advise([upstream(
                "issue access tokens or identity tokens with sub and exp, signed with a registered asymmetric algorithm",
            )])
        }
    }
}
