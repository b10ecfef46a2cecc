//! A person's browser and an MCP client before a gateway, each of which does only what the other side tells it.

use crate::harness::{Got, TestGateway, entry, got};
use serde_json::{Value, json};
use std::sync::Mutex;
use url::{Url, form_urlencoded};
use vestibule_testkit::{Provider, Upstream, s256};

/// Where the MCP client waits for its code; nobody listens there, and nobody is sent there by these tests.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:60108/callback";
/// The client's `state`: also what a form has to encode.
pub(crate) const STATE: &str = "client-original-state-xyz";
/// A code verifier (RFC 7636 section 4.1).
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// Cookies are kept by name and path, and sent to every port of this machine, as browsers do.
pub(crate) struct Browser {
    http: reqwest::Client,
    cookies: Mutex<Vec<Cookie>>,
    key: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) path: String,
}

impl Browser {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        Self {
            http: http.build().expect("client"),
            cookies: Mutex::default(),
            key: None,
        }
    }

    /// One that shows this key to the gateway's management, as whoever is signed in there.
    pub(crate) fn with_key(key: &'static str) -> Self {
        Self {
            key: Some(key),
            ..Self::new()
        }
    }

    /// Opens an address; redirects are not followed.
    pub(crate) async fn open(&self, url: &str) -> Got {
        self.send(self.http.get(url), url).await
    }

    /// Opens an address, with further headers.
    pub(crate) async fn open_with(&self, url: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = self.http.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, url).await
    }

    /// Sends a page's form, with further headers.
    pub(crate) async fn submit(&self, url: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Got {
        let request = self.http.post(url).body(encoded(form));
        let mut request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, url).await
    }

    async fn send(&self, mut request: reqwest::RequestBuilder, url: &str) -> Got {
        let url = Url::parse(url).expect("a URL");
        let sent: Vec<String> = self
            .cookies()
            .into_iter()
            .filter(|cookie| {
                let below = url.path().strip_prefix(cookie.path.as_str());
                cookie.path == "/" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        if !sent.is_empty() {
            request = request.header("cookie", sent.join("; "));
        }
        if let Some(key) = self.key.filter(|_| url.path().starts_with("/v1/mcp/")) {
            request = request.header("x-litellm-api-key", key);
        }
        let got = got(request).await;
        for line in got.headers.get_all("set-cookie") {
            self.keep(line.to_str().expect("text"));
        }
        got
    }

    fn keep(&self, line: &str) {
        let mut parts = line.split("; ");
        let (name, value) = parts
            .next()
            .and_then(|pair| pair.split_once('='))
            .expect("a cookie");
        let attribute = |wanted: &str| {
            let mut attributes = line
                .split("; ")
                .skip(1)
                .filter_map(|attribute| attribute.split_once('='));
            attributes.find_map(|(name, value)| (name == wanted).then(|| value.to_owned()))
        };
        let path = attribute("Path").expect("a path");
        let mut cookies = self.cookies.lock().expect("cookies");
        cookies.retain(|cookie| cookie.name != name || cookie.path != path);
        if attribute("Max-Age").as_deref() != Some("0") {
            cookies.push(Cookie {
                name: name.to_owned(),
                value: value.to_owned(),
                path,
            });
        }
    }

    pub(crate) fn cookies(&self) -> Vec<Cookie> {
        self.cookies.lock().expect("cookies").clone()
    }

    pub(crate) fn set_cookies(&self, cookies: Vec<Cookie>) {
        *self.cookies.lock().expect("cookies") = cookies;
    }
}

/// What an MCP client knows after its registration.
pub(crate) struct Registered {
    /// `/one`, or another spelling of the issuer's path.
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) secret: Option<String>,
    pub(crate) redirect_uri: String,
}

/// A registration as Claude Code sends it.
pub(crate) fn metadata(redirect_uris: &[&str]) -> Value {
    json!({
        "client_name": "Claude Code (one)",
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    })
}

/// Sends a registration.
pub(crate) async fn register(gateway: &TestGateway, path: &str, metadata: &Value) -> Got {
    let request = gateway
        .http
        .post(gateway.url(&format!("{path}/register")))
        .json(metadata);
    got(request).await
}

impl Registered {
    /// Registers with [`metadata`] and [`REDIRECT`].
    pub(crate) async fn at(gateway: &TestGateway, path: &str) -> Self {
        Self::with(gateway, path, &metadata(&[REDIRECT])).await
    }

    /// Registers with this; uses nothing but the answer.
    pub(crate) async fn with(gateway: &TestGateway, path: &str, metadata: &Value) -> Self {
        let got = register(gateway, path, metadata).await;
        assert_eq!(got.status, 201, "{got:?}");
        Self {
            path: path.to_owned(),
            id: got.body["client_id"].as_str().expect("an id").to_owned(),
            secret: got.body["client_secret"].as_str().map(str::to_owned),
            redirect_uri: got.body["redirect_uris"][0].as_str().expect("a URI").to_owned(),
        }
    }

    /// The query of an authorization request. A change with an empty value takes a parameter away.
    pub(crate) fn query(&self, changes: &[(&str, &str)]) -> String {
        let challenge = s256(VERIFIER);
        let mut all = vec![
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("state", STATE),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in changes {
            all.retain(|(known, _)| known != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        encoded(&all)
    }

    /// The address that the client opens in a browser.
    pub(crate) fn authorize_url(&self, gateway: &TestGateway, changes: &[(&str, &str)]) -> String {
        gateway.url(&format!("{}/authorize?{}", self.path, self.query(changes)))
    }

    /// The browser's way to the provider and back, up to the callback's answer.
    pub(crate) async fn sign_in(&self, gateway: &TestGateway, browser: &Browser) -> Got {
        let to_provider = browser.open(&self.authorize_url(gateway, &[])).await;
        assert_eq!(to_provider.status, 302, "{to_provider:?}");
        let to_callback = browser.open(to_provider.header("location")).await;
        assert_eq!(to_callback.status, 302, "{to_callback:?}");
        browser.open(to_callback.header("location")).await
    }

    /// The same, and the code in the answer.
    pub(crate) async fn code(&self, gateway: &TestGateway, browser: &Browser) -> String {
        let back = self.sign_in(gateway, browser).await;
        assert_eq!(back.status, 302, "{back:?}");
        let location = back.header("location");
        assert!(location.starts_with(&self.redirect_uri), "{location}");
        parameter(location, "code").expect("a code")
    }

    /// A token request; the client proves itself by post, if it has a secret. A change with an empty value takes a
    /// parameter away.
    pub(crate) fn token_request(
        &self,
        gateway: &TestGateway,
        changes: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let mut form = vec![("client_id", self.id.as_str())];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        for (name, value) in changes {
            form.retain(|(known, _)| known != name);
            if !value.is_empty() {
                form.push((name, value));
            }
        }
        gateway
            .http
            .post(gateway.url(&format!("{}/token", self.path)))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(encoded(&form))
    }

    /// A code for tokens.
    pub(crate) fn exchange(
        &self,
        gateway: &TestGateway,
        code: &str,
        changes: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", VERIFIER),
        ];
        self.token_request(gateway, &[&usual[..], changes].concat())
    }

    /// A refresh token for tokens.
    pub(crate) fn refresh(&self, gateway: &TestGateway, token: &str) -> reqwest::RequestBuilder {
        self.token_request(
            gateway,
            &[("grant_type", "refresh_token"), ("refresh_token", token)],
        )
    }

    /// A whole sign-in in a browser of its own: the token response.
    pub(crate) async fn tokens(&self, gateway: &TestGateway) -> Value {
        let code = self.code(gateway, &Browser::new()).await;
        let got = got(self.exchange(gateway, &code, &[])).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.body
    }
}

pub(crate) fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A query parameter of a URL.
pub(crate) fn parameter(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).expect("a URL");
    let mut pairs = url.query_pairs();
    pairs.find_map(|(found, value)| (found == name).then(|| value.into_owned()))
}

/// The names of a URL's query parameters, in order.
pub(crate) fn names(url: &str) -> Vec<String> {
    let url = Url::parse(url).expect("a URL");
    url.query_pairs().map(|(name, _)| name.into_owned()).collect()
}

/// An entry of `mcp_servers` to which people sign in, and where our client is registered as the first of them asks.
pub(crate) fn registering(name: &str, upstream: &Upstream, more: &str) -> String {
    entry(
        name,
        &format!("url: {}\nauth_type: oauth2\n{more}", upstream.url()),
    )
}

/// The id of the client in [`shared`].
pub(crate) const SHARED_ID: &str = "shared-client";

/// An entry of `mcp_servers` with one configured client, which the provider knows.
pub(crate) fn shared(name: &str, provider: &Provider, more: &str) -> String {
    provider.add_client(SHARED_ID, Some(crate::harness::CLIENT_SECRET));
    let fields = format!(
        "url: http://127.0.0.1:9/mcp\nauth_type: oauth2\nclient_id: {SHARED_ID}\nclient_secret: {}\n\
         authorization_url: {}\ntoken_url: {}\n{more}",
        crate::harness::CLIENT_SECRET,
        provider.authorization_url(),
        provider.token_url(),
    );
    entry(name, &fields)
}
