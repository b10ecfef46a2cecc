//! An authorization server as people meet one: metadata, registration, a sign-in page that approves at once, codes
//! with PKCE, rotating refresh tokens, revocation. It judges strictly, and misbehaves as its [`Modes`] say.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use crate::{
    Upstream,
    idp::{json_response, login_page},
    lock,
    peer::{Action, Peer},
    random_hex,
    wire::{Request, response},
};

/// How the provider behaves. The default is a provider that follows every RFC.
#[derive(Debug, Clone)]
pub struct Modes {
    /// `/register` is there and in the metadata.
    pub registration: bool,
    /// The metadata promises `iss` at the redirect (RFC 9207).
    pub promises_iss: bool,
    /// What `iss` is at the redirect; `None` for none.
    pub iss: Option<Iss>,
    /// What becomes of `resource` (RFC 8707).
    pub resource: ResourceRule,
    /// The longest `state`.
    pub state_limit: Option<usize>,
    /// Every sign-in ends with this `error` and `error_description`.
    pub refuses_people: Option<(String, Option<String>)>,
    /// What a successful token request is answered with.
    pub token: TokenMode,
    /// Token requests are answered once this has a permit; each uses one up.
    pub token_gate: Option<Arc<Semaphore>>,
    /// Every registration is answered with this status and body.
    pub register_answer: Option<(u16, Value)>,
    /// `token_endpoint_auth_methods_supported`; left out when empty.
    pub auth_methods: Vec<String>,
    /// Further members of the authorization server's metadata.
    pub metadata: Value,
}

/// `iss` at the redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Iss {
    /// The issuer of the metadata.
    Right,
    /// This one.
    Other(String),
}

/// What becomes of `resource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceRule {
    /// It may be there.
    Any,
    /// A request that has it is refused, as Entra does.
    Refused,
    /// A request without it is refused.
    Demanded,
}

/// What a successful token request is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenMode {
    /// As RFC 6749 section 5.1 has it.
    Standard,
    /// Without `token_type`.
    NoTokenType,
    /// The person's token stands in `authed_user`, as with Slack.
    Nested,
    /// `expires_in` is this, of any type.
    ExpiresIn(Value),
    /// With these members beside the usual ones, or in their place.
    With(Value),
    /// Status 200 and `error`, as with GitHub.
    ErrorWith200(String),
    /// Status 500 and an HTML page with this text in it.
    Html500(String),
    /// This status and JSON.
    Json(u16, Value),
    /// Status 200 and a login page.
    LoginPage,
    /// A redirect to this place.
    Redirect(String),
    /// The connection closes.
    Close,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            registration: true,
            promises_iss: true,
            iss: Some(Iss::Right),
            resource: ResourceRule::Any,
            state_limit: None,
            refuses_people: None,
            token: TokenMode::Standard,
            token_gate: None,
            register_answer: None,
            auth_methods: ["client_secret_basic", "client_secret_post", "none"]
                .map(str::to_owned)
                .into(),
            metadata: json!({}),
        }
    }
}

/// A running provider.
pub struct Provider {
    peer: Peer,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    base: String,
    modes: Modes,
    clients: HashMap<String, Client>,
    codes: HashMap<String, Issued>,
    refresh: HashMap<String, Refresh>,
    /// Access tokens, oldest first, with the family that each belongs to.
    tokens: Vec<(String, String)>,
    dead_families: Vec<String>,
    families: usize,
}

#[derive(Clone)]
struct Client {
    secret: Option<String>,
    /// `None` for one that was not registered here: any.
    redirect_uris: Option<Vec<String>>,
    method: Option<String>,
}

struct Issued {
    client: String,
    redirect_uri: String,
    challenge: Option<String>,
    used: bool,
    family: String,
}

struct Refresh {
    client: String,
    family: String,
    used: bool,
}

/// Why a request is refused: the status and `error`.
type Refused = (u16, &'static str, &'static str);

impl Deref for Provider {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Provider {
    /// Starts one that follows every RFC.
    pub async fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let state = shared.clone();
        let peer = Peer::start(|addr| {
            lock(&state).base = format!("http://{addr}");
            Arc::new(move |request| answer(&state, request))
        })
        .await;
        Self { peer, shared }
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> String {
        self.base()
    }

    /// The authorization endpoint.
    pub fn authorization_url(&self) -> String {
        format!("{}/authorize", self.base())
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.base())
    }

    /// Changes how it behaves from now on.
    pub fn set(&self, change: impl FnOnce(&mut Modes)) {
        change(&mut lock(&self.shared).modes);
    }

    /// A client that was registered by hand; it may return anywhere.
    pub fn add_client(&self, id: &str, secret: Option<&str>) {
        let client = Client {
            secret: secret.map(str::to_owned),
            redirect_uris: None,
            method: None,
        };
        lock(&self.shared).clients.insert(id.to_owned(), client);
    }

    /// Knows no client any more: `invalid_client` for everyone until they register again.
    pub fn forget_clients(&self) {
        lock(&self.shared).clients.clear();
    }

    /// How many clients it knows.
    pub fn clients(&self) -> usize {
        lock(&self.shared).clients.len()
    }

    /// Every access token given out, oldest first.
    pub fn tokens(&self) -> Vec<String> {
        lock(&self.shared)
            .tokens
            .iter()
            .map(|(token, _)| token.clone())
            .collect()
    }

    /// Whether an access token is one of this provider's and was not revoked: for [`Upstream::accept_if`].
    pub fn issued(&self) -> impl Fn(&str) -> bool + Send + Sync + use<> {
        let shared = self.shared.clone();
        move |token| {
            let shared = lock(&shared);
            let found = shared.tokens.iter().find(|(issued, _)| issued == token);
            found.is_some_and(|(_, family)| !shared.dead_families.contains(family))
        }
    }

    /// The requests to a path so far.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path() == path);
        requests
    }

    /// An MCP server that accepts this provider's tokens alone, and whose metadata (RFC 9728) names it.
    pub async fn upstream(&self) -> Upstream {
        let upstream = Upstream::start().await;
        upstream.accept_if(self.issued());
        upstream.describe(&json!({
            "resource": upstream.url(),
            "authorization_servers": [self.issuer()],
            "scopes_supported": ["mcp:read", "mcp:write"],
        }));
        upstream
    }
}

fn answer(shared: &Arc<Mutex<Shared>>, request: &Request) -> Action {
    let mut state = lock(shared);
    if (request.method.as_str(), request.path()) != ("POST", "/token") {
        return Action::Answer(state.answer(request));
    }
    match state.modes.token_gate.clone() {
        None => state.token(request),
        Some(gate) => {
            let (shared, request) = (shared.clone(), request.clone());
            Action::Gate(gate, Box::new(move || lock(&shared).token(&request)))
        }
    }
}

impl Shared {
    fn answer(&mut self, request: &Request) -> Vec<u8> {
        match (request.method.as_str(), request.path()) {
            ("GET", "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration") => {
                json_response(200, &self.metadata())
            }
            ("GET", "/authorize") => self.authorize(request),
            ("POST", "/register") if self.modes.registration => self.register(request),
            ("POST", "/revoke") => self.revoke(request),
            _ => response(404, &[("Content-Type", "text/html")], b"<h1>Not found</h1>"),
        }
    }

    fn metadata(&self) -> Value {
        let base = &self.base;
        let modes = &self.modes;
        let mut document = json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "revocation_endpoint": format!("{base}/revoke"),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "everything"],
        });
        if modes.registration {
            document["registration_endpoint"] = json!(format!("{base}/register"));
        }
        if modes.promises_iss {
            document["authorization_response_iss_parameter_supported"] = json!(true);
        }
        if !modes.auth_methods.is_empty() {
            document["token_endpoint_auth_methods_supported"] = json!(modes.auth_methods);
        }
        merge(&mut document, &modes.metadata);
        document
    }

    fn register(&mut self, request: &Request) -> Vec<u8> {
        if let Some((status, body)) = &self.modes.register_answer {
            return json_response(*status, body);
        }
        let metadata = request.json();
        let uris = metadata["redirect_uris"].as_array();
        let uris: Vec<String> = uris
            .into_iter()
            .flatten()
            .filter_map(|uri| uri.as_str().map(str::to_owned))
            .collect();
        if uris.is_empty() {
            return json_response(400, &json!({"error": "invalid_redirect_uri"}));
        }
        // RFC 7591 section 2: the default.
        let method = metadata["token_endpoint_auth_method"]
            .as_str()
            .unwrap_or("client_secret_basic");
        let secret = (method != "none").then(|| format!("canary-registered-secret-{}", random_hex()));
        let id = format!("registered-{}", random_hex());
        let mut document = metadata.clone();
        document["client_id"] = json!(id);
        document["token_endpoint_auth_method"] = json!(method);
        if let Some(secret) = &secret {
            document["client_secret"] = json!(secret);
            document["client_secret_expires_at"] = json!(0);
        }
        let client = Client {
            secret,
            redirect_uris: Some(uris),
            method: Some(method.to_owned()),
        };
        self.clients.insert(id, client);
        json_response(201, &document)
    }

    /// Approves at once. What a provider must not answer with a redirect is a page (RFC 6749 section 4.1.2.1).
    fn authorize(&mut self, request: &Request) -> Vec<u8> {
        let query: HashMap<String, String> = request.query().into_iter().collect();
        let get = |name: &str| query.get(name).map(String::as_str);
        let page = |text: &str| response(400, &[("Content-Type", "text/plain")], text.as_bytes());
        let Some(client) = get("client_id").and_then(|id| self.clients.get(id)) else {
            return page("no such client");
        };
        let Some(redirect_uri) = get("redirect_uri") else {
            return page("no redirect_uri");
        };
        if client
            .redirect_uris
            .as_ref()
            .is_some_and(|uris| !uris.iter().any(|uri| uri == redirect_uri))
        {
            return page("that redirect_uri is not registered");
        }
        if self
            .modes
            .state_limit
            .is_some_and(|limit| get("state").is_some_and(|state| state.len() > limit))
        {
            return page("the state is too long");
        }
        let mut answer: Vec<(&str, String)> = Vec::new();
        let refused = match (&self.modes.refuses_people, self.modes.resource, get("resource")) {
            (Some((error, description)), ..) => Some((error.clone(), description.clone())),
            (None, ResourceRule::Refused, Some(_)) => {
                Some(("invalid_request".into(), Some("AADSTS9010010: resource".into())))
            }
            (None, ResourceRule::Demanded, None) => Some(("invalid_target".into(), None)),
            _ if get("response_type") != Some("code") => Some(("unsupported_response_type".into(), None)),
            _ => None,
        };
        if let Some((error, description)) = refused {
            answer.push(("error", error));
            answer.extend(description.map(|text| ("error_description", text)));
        } else {
            self.families += 1;
            let code = format!("canary-code-{}-{}", self.families, random_hex());
            let issued = Issued {
                client: get("client_id").unwrap_or_default().to_owned(),
                redirect_uri: redirect_uri.to_owned(),
                challenge: get("code_challenge").map(str::to_owned),
                used: false,
                family: self.families.to_string(),
            };
            self.codes.insert(code.clone(), issued);
            answer.push(("code", code));
        }
        answer.extend(get("state").map(|state| ("state", state.to_owned())));
        match &self.modes.iss {
            Some(Iss::Right) => answer.push(("iss", self.base.clone())),
            Some(Iss::Other(iss)) => answer.push(("iss", iss.clone())),
            None => {}
        }
        let Ok(mut to) = Url::parse(redirect_uri) else {
            return page("the redirect_uri is no URL");
        };
        to.query_pairs_mut().extend_pairs(answer);
        response(302, &[("Location", to.as_str())], b"")
    }

    fn token(&mut self, request: &Request) -> Action {
        let outcome = self.grant(request);
        let (status, body) = match outcome {
            Ok((client, family)) => match self.modes.token.clone() {
                TokenMode::Html500(text) => {
                    let page = format!("<html><body>Internal error: {text}</body></html>");
                    let headers = [("Content-Type", "text/html")];
                    return Action::Answer(response(500, &headers, page.as_bytes()));
                }
                TokenMode::LoginPage => return Action::Answer(login_page()),
                TokenMode::Redirect(location) => {
                    return Action::Answer(response(307, &[("Location", &location)], b""));
                }
                TokenMode::Close => return Action::Close,
                TokenMode::Json(status, body) => (status, body),
                TokenMode::ErrorWith200(error) => {
                    (200, json!({"error": error, "error_uri": "https://x.example"}))
                }
                mode => (200, self.tokens_of(&client, &family, &mode)),
            },
            Err((status, error, description)) => {
                (status, json!({"error": error, "error_description": description}))
            }
        };
        Action::Answer(json_response(status, &body))
    }

    /// Judges a token request; gives the client and the family of its tokens.
    fn grant(&mut self, request: &Request) -> Result<(String, String), Refused> {
        let id = self.authenticated(request)?;
        match (self.modes.resource, request.form_value("resource")) {
            (ResourceRule::Refused, Some(_)) => {
                return Err((400, "invalid_request", "AADSTS9010010: resource"));
            }
            (ResourceRule::Demanded, None) => return Err((400, "invalid_target", "resource is missing")),
            _ => {}
        }
        match request.form_value("grant_type").as_deref() {
            Some("authorization_code") => {
                let code = request.form_value("code").unwrap_or_default();
                let verifier = request.form_value("code_verifier");
                let Some(issued) = self.codes.get_mut(&code) else {
                    return Err((400, "invalid_grant", "no such code"));
                };
                if issued.used {
                    // RFC 6749 section 4.1.2: what came of the first use is over too.
                    let family = issued.family.clone();
                    self.dead_families.push(family);
                    return Err((400, "invalid_grant", "the code was used before"));
                }
                issued.used = true;
                if issued.client != id {
                    return Err((400, "invalid_grant", "another client's code"));
                }
                if request.form_value("redirect_uri").as_deref() != Some(&issued.redirect_uri) {
                    return Err((400, "invalid_grant", "another redirect_uri"));
                }
                let met = verifier.map(|verifier| s256(&verifier));
                if met != issued.challenge {
                    return Err((400, "invalid_grant", "the code_verifier is wrong"));
                }
                Ok((id, issued.family.clone()))
            }
            Some("refresh_token") => {
                let token = request.form_value("refresh_token").unwrap_or_default();
                let Some(refresh) = self.refresh.get_mut(&token) else {
                    return Err((400, "invalid_grant", "no such refresh token"));
                };
                if refresh.client != id {
                    return Err((400, "invalid_grant", "another client's refresh token"));
                }
                let family = refresh.family.clone();
                // RFC 9700 section 4.14.2: a token that is used twice was stolen, or its successor was lost.
                if std::mem::replace(&mut refresh.used, true) {
                    self.dead_families.push(family);
                    return Err((400, "invalid_grant", "the refresh token was used before"));
                }
                if self.dead_families.contains(&family) {
                    return Err((400, "invalid_grant", "the grant was revoked"));
                }
                Ok((id, family))
            }
            _ => Err((400, "unsupported_grant_type", "code or refresh token")),
        }
    }

    /// The client, by Basic, by post or by its name alone; never by two of them (RFC 6749 section 2.3).
    fn authenticated(&self, request: &Request) -> Result<String, Refused> {
        let unknown = (401, "invalid_client", "unknown client");
        let basic = request
            .header("authorization")
            .map(|value| basic(value).ok_or(unknown))
            .transpose()?;
        let posted = request.form_value("client_secret");
        let (id, secret, used) = match (basic, posted) {
            (Some(_), Some(_)) => return Err((400, "invalid_request", "two ways of authentication")),
            (Some((id, secret)), None) => (id, Some(secret), "client_secret_basic"),
            (None, secret) => {
                let used = if secret.is_some() {
                    "client_secret_post"
                } else {
                    "none"
                };
                (request.form_value("client_id").unwrap_or_default(), secret, used)
            }
        };
        let client = self.clients.get(&id).ok_or(unknown)?;
        if client.secret != secret || client.method.as_ref().is_some_and(|method| method != used) {
            return Err((401, "invalid_client", "wrong credentials"));
        }
        Ok(id)
    }

    fn tokens_of(&mut self, client: &str, family: &str, mode: &TokenMode) -> Value {
        let number = self.tokens.len() + 1;
        let access = format!("canary-access-{number}-{}", random_hex());
        let refresh = format!("canary-refresh-{number}-{}", random_hex());
        self.tokens.push((access.clone(), family.to_owned()));
        let kept = Refresh {
            client: client.to_owned(),
            family: family.to_owned(),
            used: false,
        };
        self.refresh.insert(refresh.clone(), kept);
        let mut body = json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": 3600,
            "refresh_token": refresh,
            "scope": "mcp:read",
        });
        match mode {
            TokenMode::NoTokenType => {
                body.as_object_mut().map(|members| members.remove("token_type"));
            }
            TokenMode::Nested => {
                body["token_type"] = json!("user");
                body = json!({"ok": true, "team": {"id": "T1"}, "authed_user": body});
            }
            TokenMode::ExpiresIn(value) => body["expires_in"] = value.clone(),
            TokenMode::With(members) => merge(&mut body, members),
            _ => {}
        }
        body
    }

    fn revoke(&mut self, request: &Request) -> Vec<u8> {
        if let Err((status, error, _)) = self.authenticated(request) {
            return json_response(status, &json!({"error": error}));
        }
        let token = request.form_value("token").unwrap_or_default();
        let of_access = self.tokens.iter().find(|(access, _)| *access == token);
        let family = of_access
            .map(|(_, family)| family.clone())
            .or_else(|| self.refresh.get(&token).map(|refresh| refresh.family.clone()));
        self.dead_families.extend(family);
        response(200, &[], b"")
    }
}

/// The members of `more` in `document`; `null` takes one away.
fn merge(document: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        if value.is_null() {
            document.as_object_mut().map(|members| members.remove(name));
        } else {
            document[name.as_str()] = value.clone();
        }
    }
}

/// The challenge of a verifier (RFC 7636 section 4.2).
pub fn s256(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// Identifier and secret of a Basic header, form-decoded (RFC 6749 section 2.3.1).
fn basic(value: &str) -> Option<(String, String)> {
    let bytes = BASE64_STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| {
        let pair = format!("x={part}");
        let value = form_urlencoded::parse(pair.as_bytes()).next();
        value.map(|(_, value)| value.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, redirect::Policy};

    use super::*;

    const CALLBACK: &str = "http://127.0.0.1:1/callback?kept=1";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn http() -> Client {
        Client::builder()
            .redirect(Policy::none())
            .build()
            .expect("a client")
    }

    async fn location(provider: &Provider, more: &[(&str, &str)]) -> Url {
        let query = [
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("state", "s"),
        ];
        let url = Url::parse_with_params(&provider.authorization_url(), query.iter().chain(more));
        let answer = http().get(url.expect("a URL")).send().await.expect("an answer");
        assert_eq!(answer.status(), 302);
        Url::parse(answer.headers()["location"].to_str().expect("text")).expect("a URL")
    }

    fn parameter(url: &Url, name: &str) -> Option<String> {
        url.query_pairs()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }

    async fn ask(provider: &Provider, form: &[(&str, &str)]) -> (u16, Value) {
        let answer = http()
            .post(provider.token_url())
            .form(form)
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    #[test]
    fn encodings() {
        // RFC 7636 appendix B, RFC 6749 section 2.3.1.
        assert_eq!(s256(VERIFIER), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(
            basic("Basic YSUzQWI6YyUyNWQlMkI="),
            Some(("a:b".into(), "c%d+".into()))
        );
        assert_eq!(basic("Bearer x"), None);
    }

    #[tokio::test]
    async fn a_sign_in_and_a_refresh_token_that_is_used_twice() {
        let provider = Provider::start().await;
        let registration =
            json!({"redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post"});
        let registered = http()
            .post(format!("{}/register", provider.base()))
            .json(&registration);
        let registered = registered.send().await.expect("an answer");
        assert_eq!(registered.status(), 201);
        let registered: Value = registered.json().await.expect("JSON");
        let (id, secret) = (&registered["client_id"], &registered["client_secret"]);
        let (id, secret) = (id.as_str().expect("text"), secret.as_str().expect("text"));

        let more = [("client_id", id), ("code_challenge", &s256(VERIFIER))];
        let back = location(&provider, &more).await;
        assert_eq!(parameter(&back, "kept").as_deref(), Some("1"));
        assert_eq!(parameter(&back, "iss"), Some(provider.issuer()));
        let code = parameter(&back, "code").expect("a code");
        let form = |verifier| {
            [
                ("grant_type", "authorization_code"),
                ("client_id", id),
                ("client_secret", secret),
                ("redirect_uri", CALLBACK),
                ("code_verifier", verifier),
            ]
        };
        let exchange = async |verifier, code: &str| {
            let form = [&form(verifier)[..], &[("code", code)]].concat();
            ask(&provider, &form).await
        };
        let (status, tokens) = exchange(VERIFIER, &code).await;
        assert_eq!((status, provider.tokens().len()), (200, 1));
        let accepts = provider.issued();
        assert!(accepts(&provider.tokens()[0]) && !accepts("other"));
        let refresh = async |token: &Value| {
            let token = token.as_str().expect("text");
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", id),
                ("client_secret", secret),
                ("refresh_token", token),
            ];
            ask(&provider, &form).await
        };
        let first = &tokens["refresh_token"];
        let (status, renewed) = refresh(first).await;
        assert_eq!(status, 200);
        let (status, refusal) = refresh(first).await;
        assert_eq!((status, &refusal["error"]), (400, &json!("invalid_grant")));
        assert_eq!(refresh(&renewed["refresh_token"]).await.0, 400);
        assert!(!accepts(&provider.tokens()[1]));

        // A wrong verifier, and a code that is used twice.
        let code = parameter(&location(&provider, &more).await, "code").expect("a code");
        assert_eq!(exchange("wrong", &code).await.0, 400);
        let code = parameter(&location(&provider, &more).await, "code").expect("a code");
        assert_eq!(exchange(VERIFIER, &code).await.0, 200);
        assert_eq!(exchange(VERIFIER, &code).await.1["error"], "invalid_grant");
        assert!(!accepts(&provider.tokens()[2]));

        provider.forget_clients();
        assert_eq!(exchange(VERIFIER, &code).await.1["error"], "invalid_client");
        assert_eq!(provider.requests_to("/token").len(), 8);
    }

    #[tokio::test]
    async fn modes_change_what_it_does() {
        let provider = Provider::start().await;
        provider.add_client("me", Some("s"));
        provider.set(|modes| {
            modes.refuses_people = Some(("access_denied".into(), Some("no".into())));
            modes.iss = None;
            modes.registration = false;
            modes.metadata = json!({"issuer": "https://other.example", "token_endpoint": null});
        });
        let back = location(&provider, &[("client_id", "me")]).await;
        assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
        assert_eq!(parameter(&back, "iss"), None);
        let metadata = http().get(format!("{}/.well-known/openid-configuration", provider.base()));
        let metadata: Value = metadata
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        assert_eq!(metadata["issuer"], "https://other.example");
        assert_eq!(
            (
                metadata.get("token_endpoint"),
                metadata.get("registration_endpoint")
            ),
            (None, None)
        );

        let upstream = provider.upstream().await;
        let refused = http()
            .post(upstream.url())
            .body("{}")
            .send()
            .await
            .expect("an answer");
        let challenge = refused.headers()["www-authenticate"].to_str().expect("text");
        let document = challenge.split('"').nth(1).expect("a URL");
        let document: Value = http()
            .get(document)
            .send()
            .await
            .expect("sent")
            .json()
            .await
            .expect("JSON");
        assert_eq!(document["authorization_servers"], json!([provider.issuer()]));
    }
}
