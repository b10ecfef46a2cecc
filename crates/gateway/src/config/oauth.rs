//! The fields of `auth_type: oauth2`: which flow they mean, and what each flow needs.

use super::exchange::KEY_FIELDS;
use super::problem::Findings;
use super::reader::{Reader, Section};
use super::settings::{Auth, Consent, MachineRequest, SendResource, SignIn};
use super::yaml::Position;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use vestibule_oauth::ClientAuthMethod;
use vestibule_oauth::client_auth::Client;
use vestibule_oauth::token_request::{ClientCredentialsRequest, is_scope_token};
use vestibule_oauth::token_validation::TokenRules;

/// Fields that only interactive sign-in uses; `authorization_url` may stand beside an explicit flow.
pub(super) const INTERACTIVE_ONLY: &[&str] = &[
    "registration_url",
    "issuer",
    "send_resource",
    "require_pkce",
    "consent",
    "token_validation",
    "token_storage_ttl_seconds",
];

impl Reader<'_> {
    /// The seed's rule: an explicit flow wins; `authorization_url` means a person signs in; `token_url`,
    /// `client_id` and `client_secret` alone mean a machine does; anything else means a person.
    pub(super) fn oauth(&mut self, section: &Section, at: Position, url: Option<&Url>) -> Option<Auth> {
        // A key takes the place of the secret.
        let secret = if section.has("client_private_key") {
            "client_private_key"
        } else {
            "client_secret"
        };
        let needed = ["token_url", "client_id", secret];
        let missing: Vec<&str> = needed.into_iter().filter(|name| !section.has(name)).collect();
        let machine = match section.text("oauth2_flow") {
            Some("client_credentials") => {
                if !missing.is_empty() {
                    let message = format!("oauth2_flow: client_credentials needs {}", missing.join(", "));
                    self.findings.error(at, &section.path, message);
                    return None;
                }
                true
            }
            Some(_) => false,
            None => {
                let (machine, why) = if section.has("authorization_url") {
                    (false, "authorization_url is set".to_owned())
                } else if missing.is_empty() {
                    (
                        true,
                        format!("token_url, client_id and {secret} are set, and authorization_url is not"),
                    )
                } else {
                    (false, format!("{} left out", missing.join(", ")))
                };
                let flow = if machine {
                    "client_credentials"
                } else {
                    "authorization_code"
                };
                let message = format!("oauth2_flow is {flow}: {why}");
                self.findings.note(at, &section.path, message);
                machine
            }
        };
        self.oauth_values(section, url);
        if machine {
            self.machine(section, at, url)
        } else {
            self.no_effect(section, KEY_FIELDS, "authorization_code", "client_credentials");
            Some(Auth::AuthorizationCode(self.sign_in(section, url)?))
        }
    }

    /// What is judged wherever a token is asked for: the scopes, and whether the token goes to the server in clear text.
    pub(super) fn scopes_and_url(&mut self, section: &Section, url: Option<&Url>) {
        for (scope, at) in section.list("scopes") {
            if !is_scope_token(scope) {
                let message = "a scope is one word of printable ASCII (RFC 6749 section 3.3)";
                self.findings.error(*at, section.path_of("scopes"), message);
            }
        }
        if let Some(url) = url {
            self.clear_text(
                url,
                "the access token",
                section.at("url"),
                &section.path_of("url"),
            );
        }
    }

    /// What is judged of every flow of `oauth2`: that, and what else goes over the network in clear text.
    pub(super) fn oauth_values(&mut self, section: &Section, url: Option<&Url>) {
        self.scopes_and_url(section, url);
        for (name, what) in [
            ("token_url", "the client secret"),
            ("registration_url", "client registrations"),
        ] {
            if let Some(url) = section.url(name) {
                self.clear_text(url, what, section.at(name), &section.path_of(name));
            }
        }
    }

    fn machine(&mut self, section: &Section, at: Position, url: Option<&Url>) -> Option<Auth> {
        let with_key = section.has("client_private_key");
        // Whom an assertion is for.
        let issuer = with_key.then(|| self.issuer(section, "issuer")).flatten();
        let interactive: Vec<&str> = INTERACTIVE_ONLY
            .iter()
            .copied()
            .filter(|name| !(with_key && *name == "issuer"))
            .collect();
        self.no_effect(section, &interactive, "client_credentials", "authorization_code");
        let name = "token_endpoint_auth_method";
        if with_key && section.has(name) {
            let message = "has no effect beside client_private_key, which is private_key_jwt";
            self.findings
                .error(section.at(name), section.path_of(name), message);
        }
        let client = self.client(section, at, issuer);
        Some(Auth::ClientCredentials {
            token_url: section.url("token_url")?.clone(),
            request: MachineRequest {
                client: client?,
                grant: ClientCredentialsRequest {
                    scopes: scopes(section),
                    audience: section.text("audience").map(str::to_owned),
                    resource: self.resource(section, url),
                },
            },
        })
    }

    pub(super) fn sign_in(&mut self, section: &Section, url: Option<&Url>) -> Option<Arc<SignIn>> {
        self.no_effect(section, &["audience"], "authorization_code", "client_credentials");
        let client = section.text("client_id").map(|id| {
            let secret = section.text("client_secret");
            Client {
                id: id.to_owned(),
                auth_method: if secret.is_some() {
                    auth_method(section)
                } else {
                    ClientAuthMethod::None
                },
                secret: secret.map(Into::into),
            }
        });
        if client.is_none() {
            for name in ["client_secret", "token_endpoint_auth_method", "consent"] {
                if section.has(name) {
                    let message = "has no effect without client_id";
                    self.findings
                        .error(section.at(name), section.path_of(name), message);
                }
            }
        } else if section.has("registration_url") {
            let message = "is not used beside client_id; drop one of them";
            self.findings.error(
                section.at("registration_url"),
                section.path_of("registration_url"),
                message,
            );
        }
        let issuer = section.text("issuer");
        if issuer.is_some_and(|issuer| !is_issuer(issuer)) {
            let message = "takes an http or https URL without query and fragment (RFC 8414 section 2)";
            self.findings
                .error(section.at("issuer"), section.path_of("issuer"), message);
        }
        let resource = self.resource(section, url);
        let resource = match section.text("send_resource") {
            Some("always") => SendResource::Always(resource),
            Some("never") => SendResource::Never,
            _ => SendResource::Auto(resource),
        };
        Some(Arc::new(SignIn {
            server_url: url?.clone(),
            client,
            issuer: issuer.map(str::to_owned),
            authorization_url: section.url("authorization_url").cloned(),
            token_url: section.url("token_url").cloned(),
            registration_url: section.url("registration_url").cloned(),
            scopes: scopes(section),
            resource,
            require_pkce: section.bool("require_pkce").unwrap_or(true),
            consent: match section.text("consent") {
                Some("never") => Consent::Never,
                _ => Consent::Ask,
            },
            token_rules: token_rules(section, &mut self.findings),
            storage_ttl: section
                .count("token_storage_ttl_seconds")
                .map(|seconds| Duration::from_secs(seconds as u64)),
        }))
    }

    fn no_effect(&mut self, section: &Section, names: &[&str], flow: &str, wanted: &str) {
        for name in names {
            if section.has(name) {
                let message =
                    format!("has no effect with oauth2_flow: {flow}; it belongs to oauth2_flow: {wanted}");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
    }

    /// RFC 8707 section 2: an absolute URI without a fragment.
    pub(super) fn resource(&mut self, section: &Section, url: Option<&Url>) -> Option<String> {
        let name = if section.has("resource") {
            "resource"
        } else {
            "upstream_resource"
        };
        if section.has("resource") && section.has("upstream_resource") {
            let message = "resource and upstream_resource are the same setting; keep one";
            self.findings
                .error(section.at(name), section.path_of("upstream_resource"), message);
        }
        self.uri(section, name, url)
    }

    /// The absolute URI of `name`, or the server's url for `auto`.
    pub(super) fn uri(&mut self, section: &Section, name: &str, url: Option<&Url>) -> Option<String> {
        match section.text(name)? {
            "auto" => url.map(|url| url.as_str().to_owned()),
            text if Url::parse(text).is_ok_and(|uri| uri.fragment().is_none()) => Some(text.to_owned()),
            _ => {
                let message = "takes auto, or an absolute URI without a fragment (RFC 8707 section 2)";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
                None
            }
        }
    }

    pub(super) fn clear_text(&mut self, url: &Url, what: &str, at: Position, path: &str) {
        let local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !local {
            self.findings.warn(
                at,
                path,
                format!("http sends {what} over the network in clear text; use https"),
            );
        }
    }
}

pub(super) fn auth_method(section: &Section) -> ClientAuthMethod {
    match section.text("token_endpoint_auth_method") {
        Some("client_secret_basic") => ClientAuthMethod::ClientSecretBasic,
        _ => ClientAuthMethod::ClientSecretPost,
    }
}

pub(super) fn scopes(section: &Section) -> Vec<String> {
    section
        .list("scopes")
        .iter()
        .map(|(scope, _)| scope.clone())
        .collect()
}

/// An issuer is compared as text, so it is kept as written (RFC 8414 section 3.3).
pub(super) fn is_issuer(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
        && Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host().is_some()
                && url.query().is_none()
                && url.fragment().is_none()
        })
}

fn token_rules(section: &Section, findings: &mut Findings) -> TokenRules {
    let Some(node) = section.node("token_validation") else {
        return TokenRules::default();
    };
    let wrong = match node.to_json() {
        serde_json::Value::Object(rules) => match TokenRules::parse(&serde_json::Value::Object(rules)) {
            Ok(rules) => return rules,
            Err(error) => error.to_string(),
        },
        _ => "takes a mapping of names to values".to_owned(),
    };
    findings.error(
        section.at("token_validation"),
        section.path_of("token_validation"),
        wrong,
    );
    TokenRules::default()
}
