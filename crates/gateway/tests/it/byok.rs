//! Servers to which people bring keys of their own: by script, by an OAuth client and its page, and whose they are.

use crate::harness::{Got, KEY, TestGateway, assert_nothing_secret_logged, echo, entry, got, keyed};
use crate::people::Town;
use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::HashMap;
use url::Url;
use vestibule_testkit::{Answer, Upstream};

pub(crate) const ALICES: &str = "canary-alices-upstream-key";
const BOBS: &str = "canary-bobs-upstream-key";
pub(crate) const VERIFIER: &str = "canary-verifier-0123456789-0123456789-0123456789";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:50000/cb";
const ONE: &str = "/v1/mcp/server/one/user-credential";

/// A gateway with the BYOK server `one`, a fixed one, `two`, and two people.
pub(crate) struct Site {
    pub(crate) town: Town,
    upstream: Upstream,
    two: Upstream,
    pub(crate) gateway: TestGateway,
    pub(crate) alice: String,
    pub(crate) bob: String,
}

fn servers(one: &Upstream, two: &Upstream) -> String {
    let fields = format!(
        "url: {}\nauth_type: api_key\nis_byok: true\nserver_id: one-id\n\
         byok_description: [Read your mail, \"<script>alert(1)</script>\"]\n\
         byok_api_key_help_url: https://keys.example/new?a=1&b=2",
        one.url()
    );
    let two = format!(
        "url: {}\nauth_type: bearer_token\nauthentication_token: fixed",
        two.url()
    );
    keyed(&format!("{}{}", entry("one", &fields), entry("two", &two)))
}

impl Site {
    pub(crate) async fn start() -> Self {
        let (upstream, two) = (Upstream::start().await, Upstream::start().await);
        let town = Town::new().await;
        let alice = town.key("alices", "alice", &["one", "two"]).await;
        let bob = town.key("bobs", "bob", &["one"]).await;
        let gateway = town.start(servers(&upstream, &two)).start().await;
        Self {
            town,
            upstream,
            two,
            gateway,
            alice,
            bob,
        }
    }

    fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.gateway
            .http
            .request(method, self.gateway.url(path))
            .header("x-litellm-api-key", format!("Bearer {key}"))
    }

    /// `tools/call echo` at `one` with a gateway key.
    pub(crate) async fn call(&self, key: &str) -> Got {
        got(self.request(Method::POST, "/one/mcp", key).json(&echo("hello"))).await
    }

    /// The same, with a session.
    pub(crate) async fn call_with(&self, session: &str, path: &str) -> Got {
        let request = self.gateway.http.post(self.gateway.url(path));
        got(request.bearer_auth(session).json(&echo("hello"))).await
    }

    async fn bring(&self, key: &str, body: &Value) -> Got {
        got(self.request(Method::POST, ONE, key).json(body)).await
    }

    /// What the server was shown last.
    pub(crate) fn shown(&self) -> Option<String> {
        let requests = self.upstream.requests();
        let last = requests.last().expect("a request");
        last.header("x-api-key").map(str::to_owned)
    }

    pub(crate) fn authorize(
        &self,
        path: &str,
        change: impl FnOnce(&mut HashMap<&'static str, String>),
    ) -> String {
        let query = wish(change);
        Url::parse_with_params(&self.gateway.url(path), query)
            .expect("a URL")
            .into()
    }

    /// The form of the second step, with this key in it.
    fn form(
        &self,
        path: &str,
        key: &str,
        change: impl FnOnce(&mut HashMap<&'static str, String>),
    ) -> RequestBuilder {
        let mut form = wish(change);
        form.insert("api_key", key.into());
        form.insert("place", place(&self.gateway));
        self.gateway.http.post(self.gateway.url(path)).form(&form)
    }

    /// Up to the code.
    async fn code(&self, path: &str, gateway_key: &str, key: &str) -> String {
        let request = self
            .form(path, key, |_| {})
            .header("x-litellm-api-key", gateway_key);
        let answer = got(request).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = Url::parse(answer.header("location")).expect("a URL");
        assert!(location.as_str().starts_with(REDIRECT), "{location}");
        let query: HashMap<String, String> = location.query_pairs().into_owned().collect();
        assert_eq!(query["state"], "the-clients-state");
        assert_eq!(query["iss"], self.gateway.url("/one"));
        query["code"].clone()
    }

    pub(crate) fn token(
        &self,
        path: &str,
        code: &str,
        change: impl FnOnce(&mut HashMap<&'static str, String>),
    ) -> RequestBuilder {
        let mut form = HashMap::from([
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("client_id", "the-client".to_owned()),
            ("code_verifier", VERIFIER.to_owned()),
        ]);
        change(&mut form);
        self.gateway.http.post(self.gateway.url(path)).form(&form)
    }

    /// A session, at the server's own addresses.
    async fn session(&self, gateway_key: &str, key: &str) -> String {
        let code = self.code("/one/authorize", gateway_key, key).await;
        let answer = got(self.token("/one/token", &code, |_| {})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["access_token"].as_str().expect("a token").to_owned()
    }
}

/// What forms say of where `one` is.
pub(crate) fn place(gateway: &TestGateway) -> String {
    let app = gateway.live.app();
    app.registry.named("one").expect("a server").place_digest()
}

pub(crate) fn wish(change: impl FnOnce(&mut HashMap<&'static str, String>)) -> HashMap<&'static str, String> {
    let sum = digest::digest(&digest::SHA256, VERIFIER.as_bytes());
    let mut wish = HashMap::from([
        ("client_id", "the-client".to_owned()),
        ("redirect_uri", REDIRECT.to_owned()),
        ("response_type", "code".to_owned()),
        ("code_challenge", BASE64_URL_SAFE_NO_PAD.encode(sum)),
        ("code_challenge_method", "S256".to_owned()),
        ("state", "the-clients-state".to_owned()),
        ("server_id", "one-id".to_owned()),
    ]);
    change(&mut wish);
    wish
}

#[tokio::test]
async fn a_call_without_a_key_says_where_one_is_brought() {
    let site = Site::start().await;
    let answer = site.call(&site.alice).await;
    let data = &answer.body["error"]["data"];
    assert_eq!(
        (
            answer.status,
            &data["code"],
            &data["server_id"],
            &data["server_name"]
        ),
        (401, &json!("byok_auth_required"), &json!("one-id"), &json!("one")),
        "{answer:?}"
    );
    let metadata = site.gateway.url("/.well-known/oauth-protected-resource/one/mcp");
    let challenge = format!("Bearer resource_metadata=\"{metadata}\"");
    assert_eq!(answer.header("www-authenticate"), challenge);

    // The same where tools are called without MCP, and where several servers are behind one endpoint.
    let body = json!({"server_id": "one-id", "name": "echo", "arguments": {}});
    let rest = got(site
        .request(Method::POST, "/mcp-rest/tools/call", &site.alice)
        .json(&body))
    .await;
    let detail = &rest.body["detail"];
    assert_eq!(
        (
            rest.status,
            &detail["error"],
            &detail["server_id"],
            &detail["server_name"]
        ),
        (401, &json!("byok_auth_required"), &json!("one-id"), &json!("one"))
    );
    assert_eq!(rest.header("www-authenticate"), challenge);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "one-echo", "arguments": {"message": "hello"}}});
    let several = site
        .request(Method::POST, "/mcp/one,two", &site.alice)
        .json(&call);
    let several = got(several).await;
    assert!(
        several.body.to_string().contains("byok_auth_required"),
        "{several:?}"
    );

    // A client without any key is led to the same page.
    let nobody = site
        .gateway
        .http
        .post(site.gateway.url("/one/mcp"))
        .json(&echo("x"));
    let nobody = got(nobody).await;
    assert_eq!((nobody.status, nobody.code()), (401, "missing_key"));
    assert!(
        nobody.header("www-authenticate").contains(&metadata),
        "{nobody:?}"
    );
    // The master key is nobody's in particular.
    assert_eq!(site.call(KEY).await.code(), "byok_auth_required");

    let resource = got(site.gateway.http.get(&metadata)).await.body;
    assert_eq!(
        resource["authorization_servers"],
        json!([site.gateway.url("/one")])
    );
    let document = site.gateway.url("/.well-known/oauth-authorization-server/one");
    let document = got(site.gateway.http.get(document)).await.body;
    assert_eq!(
        document["authorization_endpoint"],
        site.gateway.url("/one/authorize")
    );
    assert_eq!(document["grant_types_supported"], json!(["authorization_code"]));
    assert!(
        site.upstream.requests().is_empty(),
        "nothing went there without a key"
    );
}

#[tokio::test]
async fn a_script_brings_a_key_and_forgets_it() {
    let site = Site::start().await;
    let brought = site.bring(&site.alice, &json!({"credential": ALICES})).await;
    assert_eq!(
        (brought.status, &brought.body),
        (200, &json!({"server_id": "one-id", "has_credential": true}))
    );
    assert_eq!(brought.header("cache-control"), "no-store");
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));
    // Another person's is another one.
    assert_eq!(site.call(&site.bob).await.code(), "byok_auth_required");
    site.bring(&site.bob, &json!({"credential": BOBS, "save": true}))
        .await;
    assert_eq!(site.call(&site.bob).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(BOBS));
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));

    let list = site.request(Method::GET, "/v1/mcp/user-credentials", &site.alice);
    let list = got(list).await.body;
    assert_eq!(
        list,
        json!([{"server_id": "one-id", "server_name": "one", "alias": null, "credential_type": "byok",
            "has_credential": true, "expires_at": null, "is_expired": false,
            "connected_at": "2001-09-09T01:46:40Z"}])
    );
    // A new one takes the place of the old one at once.
    site.bring(&site.alice, &json!({"credential": "canary-newer"}))
        .await;
    assert_eq!(site.call(&site.alice).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));

    let forgotten = got(site.request(Method::DELETE, ONE, &site.alice)).await;
    assert_eq!(
        forgotten.body,
        json!({"server_id": "one-id", "has_credential": false})
    );
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");
    let again = got(site.request(Method::DELETE, ONE, &site.alice)).await;
    assert_eq!((again.status, again.code()), (404, "no_credential"));
    assert_eq!(site.call(&site.bob).await.status, 200, "bob's is still there");
    for canary in [KEY, &site.alice, &site.bob] {
        site.upstream.assert_never_seen(canary);
    }
    assert_nothing_secret_logged(&[ALICES, BOBS, "canary-newer"]);
}

#[tokio::test]
async fn what_is_brought_wrongly_is_refused_and_not_repeated() {
    let site = Site::start().await;
    for (body, code, part) in [
        (
            json!({"credential": "x", "savee": true}),
            "missing_parameter",
            "no field savee",
        ),
        (
            json!({"credential": 7}),
            "missing_parameter",
            "credential takes a text",
        ),
        (json!({"save": true}), "missing_parameter", "takes credential"),
        (
            json!({"credential": "x", "save": "yes"}),
            "missing_parameter",
            "save takes",
        ),
        (json!(["canary-in-a-list"]), "missing_parameter", "no JSON object"),
        (
            json!({"credential": "canary\nbad"}),
            "byok_key_malformed",
            "no header may carry",
        ),
        (json!({"credential": " "}), "byok_key_malformed", "is empty"),
        (
            json!({"credential": "canary".repeat(2000)}),
            "byok_key_malformed",
            "too long",
        ),
    ] {
        let answer = site.bring(&site.alice, &body).await;
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert_eq!((answer.status, answer.code()), (400, code), "{body}");
        assert!(message.contains(part), "{message}");
        assert!(!answer.body.to_string().contains("canary"), "{message}");
    }
    let judged = site
        .bring(&site.alice, &json!({"credential": ALICES, "save": false}))
        .await;
    assert_eq!(judged.body["has_credential"], false, "save: false only judges it");
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");

    let other = "/v1/mcp/server/two/user-credential";
    for (path, key, status, code) in [
        (other, &*site.alice, 400, "not_byok"),
        (other, &*site.bob, 403, "server_not_allowed"),
        (
            "/v1/mcp/server/none/user-credential",
            &*site.alice,
            404,
            "unknown_server",
        ),
        (ONE, KEY, 400, "no_person"),
        (ONE, "sk-no-such-key-0123456789", 401, "wrong_key"),
    ] {
        let body = json!({"credential": ALICES});
        let answer = got(site.request(Method::POST, path, key).json(&body)).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{path} {key}");
    }
}

#[tokio::test]
async fn a_person_brings_a_key_on_a_page_and_the_client_gets_a_session() {
    let site = Site::start().await;
    for path in ["/v1/mcp/oauth/authorize", "/one/authorize"] {
        let page = |step: &str| {
            let step = step.to_owned();
            let url = site.authorize(path, |query| drop(query.insert("step", step)));
            site.gateway
                .http
                .get(url)
                .header("x-litellm-api-key", &site.alice)
        };
        let first = got(page("")).await;
        assert_eq!(
            (first.status, first.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        let csp = first.header("content-security-policy");
        assert!(
            csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"),
            "{csp}"
        );
        let text = first.body.as_str().expect("a page");
        for part in [
            "<li>Read your mail</li>",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "href=\"https://keys.example/new?a=1&amp;b=2\" target=\"_blank\" rel=\"noopener noreferrer\"",
            "<strong>alice</strong>",
            "<strong>127.0.0.1:50000</strong>",
            "Continue</button>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            !text.contains("<script") && !text.contains("api_key\" name"),
            "{text}"
        );
        let second = got(page("key")).await;
        let text = second.body.as_str().expect("a page");
        assert!(
            text.contains("Connect &amp; Authorize</button>") && text.contains("type=\"password\""),
            "{text}"
        );
        assert!(text.contains("name=\"server_id\" value=\"one-id\""), "{text}");
    }

    // At LiteLLM's addresses, from whichever client.
    let code = site.code("/v1/mcp/oauth/authorize", &site.alice, ALICES).await;
    assert_eq!(
        site.call(&site.alice).await.code(),
        "byok_auth_required",
        "not before the code is shown"
    );
    let answer = got(site.token("/v1/mcp/oauth/token", &code, |_| {})).await;
    assert_eq!(
        (
            answer.status,
            &answer.body["token_type"],
            &answer.body["expires_in"]
        ),
        (200, &json!("Bearer"), &json!(3600))
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.body.to_string().contains(ALICES));
    let session = answer.body["access_token"].as_str().expect("a token");
    let called = site.call_with(session, "/one/mcp").await;
    assert_eq!(called.status, 200, "{called:?}");
    assert_eq!(site.shown().as_deref(), Some(ALICES));
    assert_eq!(
        site.call(&site.alice).await.status,
        200,
        "the key counts for the person's gateway key too"
    );

    // The next time the one that is kept may stay, and another one may take its place.
    let kept = site.session(&site.alice, "").await;
    assert_eq!(site.call_with(&kept, "/one/mcp").await.status, 200);
    assert_eq!(site.shown().as_deref(), Some(ALICES));
    let newer = site.session(&site.alice, "canary-newer").await;
    assert_eq!(site.call_with(&newer, "/one/mcp").await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));
    for canary in [session, &kept, &newer, KEY, &site.alice] {
        site.upstream.assert_never_seen(canary);
    }
    assert_nothing_secret_logged(&[ALICES, "canary-newer", session, &code]);
}

#[tokio::test]
async fn a_session_counts_for_one_person_one_server_and_an_hour() {
    let site = Site::start().await;
    let session = site.session(&site.alice, ALICES).await;
    let refused = |answer: Got| {
        assert_eq!(
            (answer.status, answer.code()),
            (401, "server_session_ended"),
            "{answer:?}"
        );
        answer.header("www-authenticate").to_owned()
    };
    // Nowhere else, though alice's key may use both.
    for path in ["/two/mcp", "/mcp", "/mcp/one,two"] {
        refused(site.call_with(&session, path).await);
    }
    for path in ["/v1/mcp/user-credentials", "/mcp-rest/tools/list", "/metrics"] {
        let request = site
            .gateway
            .http
            .get(site.gateway.url(path))
            .bearer_auth(&session);
        refused(got(request).await);
    }
    let again = site
        .form("/one/authorize", "canary-planted", |_| {})
        .bearer_auth(&session);
    assert_eq!(
        got(again).await.status,
        401,
        "a session is no sign-in at the page"
    );
    // Beside a key it is nothing, and goes to no server.
    let beside = site
        .request(Method::POST, "/two/mcp", &site.alice)
        .bearer_auth(&session)
        .json(&echo("hello"));
    assert_eq!(got(beside).await.status, 200);
    site.two.assert_never_seen(&session);
    let as_key = site.request(Method::POST, "/one/mcp", &session).json(&echo("x"));
    assert_eq!(got(as_key).await.code(), "wrong_key");

    assert_eq!(site.call_with(&session, "/one/mcp").await.status, 200);
    assert_eq!(site.call_with(&session, "/mcp/one").await.status, 200);
    site.gateway.advance(3599);
    site.gateway.looks().await;
    assert_eq!(site.call_with(&session, "/one/mcp").await.status, 200);
    site.gateway.advance(1);
    let challenge = refused(site.call_with(&session, "/one/mcp").await);
    let metadata = site.gateway.url("/.well-known/oauth-protected-resource/one/mcp");
    assert!(
        challenge.contains("error=\"invalid_token\"") && challenge.contains(&metadata),
        "{challenge}"
    );

    // It counts as long as the key that it stands for.
    let session = site.session(&site.alice, "").await;
    assert_eq!(site.call_with(&session, "/one/mcp").await.status, 200);
    site.town.block("alices").await;
    site.gateway.looks().await;
    refused(site.call_with(&session, "/one/mcp").await);
    assert!(!site.upstream.requests().is_empty());
    site.upstream.assert_never_seen(&session);
}

#[tokio::test]
async fn a_code_counts_once_for_its_client_and_five_minutes() {
    type Change = fn(&mut HashMap<&'static str, String>);
    let site = Site::start().await;
    let wrong: [(Change, &str); 8] = [
        (
            |form| drop(form.insert("code_verifier", VERIFIER.replace('0', "1"))),
            "invalid_grant",
        ),
        (
            |form| drop(form.insert("client_id", "another".into())),
            "invalid_grant",
        ),
        (
            |form| drop(form.insert("redirect_uri", "http://127.0.0.1:1/cb".into())),
            "invalid_grant",
        ),
        (
            |form| drop(form.insert("code", "nonsense".into())),
            "invalid_grant",
        ),
        (
            |form| drop(form.insert("grant_type", "refresh_token".into())),
            "unsupported_grant_type",
        ),
        (|form| drop(form.remove("code_verifier")), "invalid_request"),
        (|form| drop(form.remove("code")), "invalid_request"),
        (|form| drop(form.remove("grant_type")), "invalid_request"),
    ];
    for (change, error) in wrong {
        let code = site.code("/one/authorize", &site.alice, ALICES).await;
        let answer = got(site.token("/one/token", &code, change)).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (400, &json!(error)),
            "{answer:?}"
        );
    }
    assert_eq!(
        site.call(&site.alice).await.code(),
        "byok_auth_required",
        "none of them kept the key"
    );

    let code = site.code("/one/authorize", &site.alice, ALICES).await;
    let brief: Change = |form| {
        form.remove("redirect_uri");
        form.remove("client_id");
    };
    let answers = tokio::join!(
        got(site.token("/one/token", &code, brief)),
        got(site.token("/v1/mcp/oauth/token", &code, brief))
    );
    let mut statuses = [answers.0.status, answers.1.status];
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 400],
        "once, and without what OAuth 2.1 leaves out"
    );

    let code = site.code("/one/authorize", &site.alice, ALICES).await;
    site.gateway.advance(300);
    site.gateway.looks().await;
    let late = got(site.token("/one/token", &code, |_| {})).await;
    assert_eq!(late.body["error"], "invalid_grant");
    // A key that is blocked in between gets nothing.
    let code = site.code("/one/authorize", &site.bob, BOBS).await;
    site.town.block("bobs").await;
    site.gateway.looks().await;
    let blocked = got(site.token("/one/token", &code, |_| {})).await;
    assert_eq!(blocked.body["error"], "invalid_grant");
}

#[tokio::test]
async fn the_page_is_for_whoever_is_there_and_for_loopback_alone() {
    let site = Site::start().await;
    for uri in [
        "https://evil.example/cb",
        "https://vscode.dev/redirect",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "http://127.0.0.1@evil.example/cb",
        "http://localhost.evil.example/cb",
        "http://127.0.0.1:1/cb#f",
        "javascript:alert(1)",
        "",
    ] {
        for path in ["/v1/mcp/oauth/authorize", "/one/authorize"] {
            let change = |query: &mut HashMap<&'static str, String>| {
                drop(query.insert("redirect_uri", uri.to_owned()));
            };
            let asked = site.gateway.http.get(site.authorize(path, change));
            let form = site.form(path, ALICES, change);
            for request in [asked, form] {
                let answer = got(request.header("x-litellm-api-key", &site.alice)).await;
                assert_eq!(
                    (answer.status, answer.header("location")),
                    (400, ""),
                    "{path} {uri}"
                );
            }
        }
    }
    for uri in [
        "http://[::1]:5/cb",
        "http://127.8.0.1:5/cb",
        "http://localhost/cb",
    ] {
        let change =
            |query: &mut HashMap<&'static str, String>| drop(query.insert("redirect_uri", uri.to_owned()));
        let form = site.form("/one/authorize", ALICES, change);
        let answer = got(form.header("x-litellm-api-key", &site.alice)).await;
        assert_eq!(answer.status, 302, "{uri}");
        assert!(answer.header("location").starts_with(uri), "{answer:?}");
    }
    for (name, value) in [
        ("response_type", "token"),
        ("code_challenge_method", "plain"),
        ("code_challenge_method", ""),
        ("code_challenge", "short"),
        ("client_id", ""),
    ] {
        let change = |query: &mut HashMap<&'static str, String>| drop(query.insert(name, value.to_owned()));
        let asked = site.gateway.http.get(site.authorize("/one/authorize", change));
        let answer = got(asked.header("x-litellm-api-key", &site.alice)).await;
        assert_eq!(answer.status, 400, "{name} {value}");
    }
    // Nobody in front of the browser: no page, no code, and no word on which servers there are.
    let nobody = site.form("/v1/mcp/oauth/authorize", ALICES, |_| {});
    assert_eq!(got(nobody).await.status, 401);
    let named = site.form("/v1/mcp/oauth/authorize", ALICES, |form| {
        form.insert("client_id", "alice".into());
    });
    assert_eq!(got(named).await.status, 401, "client_id is nobody");
    let shared = site
        .form("/one/authorize", ALICES, |_| {})
        .header("x-litellm-api-key", KEY);
    assert_eq!(
        got(shared).await.status,
        400,
        "the master key is nobody in particular"
    );
    // A form of another site's, and a server that the key is not for.
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let form = site.form("/one/authorize", "canary-planted", |_| {});
        let form = form.header("x-litellm-api-key", &site.alice).header(name, value);
        assert_eq!(got(form).await.header("location"), "", "{name}");
    }
    let narrow = site.town.key("narrow", "carol", &["two"]).await;
    site.gateway.looks().await;
    let form = site.form("/one/authorize", ALICES, |_| {});
    assert_eq!(got(form.header("x-litellm-api-key", &narrow)).await.status, 403);
    let form = site.form("/v1/mcp/oauth/authorize", ALICES, |form| {
        form.insert("server_id", "two".into());
    });
    assert_eq!(
        got(form.header("x-litellm-api-key", &site.alice)).await.status,
        400
    );
    // A key that does not fit is asked for again, and not repeated.
    let form = site.form("/one/authorize", "canary\u{1}bad", |_| {});
    let again = got(form.header("x-litellm-api-key", &site.alice)).await;
    let text = again.body.as_str().expect("a page");
    assert!(
        again.status == 400 && text.contains("role=\"alert\"") && !text.contains("canary"),
        "{text}"
    );
    assert_eq!(site.call(&site.alice).await.code(), "byok_auth_required");
}

#[tokio::test]
async fn a_client_registers_for_loopback_alone() {
    let site = Site::start().await;
    let register = |uris: Value| {
        let request = site.gateway.http.post(site.gateway.url("/one/register"));
        got(request.json(&json!({"client_name": "A client", "redirect_uris": uris})))
    };
    let made = register(json!([REDIRECT, "https://evil.example/cb"])).await;
    assert_eq!(
        (made.status, &made.body["redirect_uris"]),
        (201, &json!([REDIRECT]))
    );
    assert_eq!(made.body["token_endpoint_auth_method"], "none");
    let own_origin = site.gateway.url("/cb");
    for refused in [
        json!(["https://evil.example/cb"]),
        json!([own_origin.replace("127.0.0.1", "evil.example")]),
    ] {
        let answer = register(refused).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (400, &json!("invalid_redirect_uri"))
        );
    }
    let id = made.body["client_id"].as_str().expect("an id");
    let form = site.form("/one/authorize", ALICES, |form| {
        drop(form.insert("client_id", id.to_owned()));
    });
    let answer = got(form.header("x-litellm-api-key", &site.alice)).await;
    assert_eq!(answer.status, 302, "{answer:?}");
}

#[tokio::test]
async fn a_key_that_the_server_refuses_is_asked_for_again() {
    let site = Site::start().await;
    site.bring(&site.alice, &json!({"credential": ALICES})).await;
    let refusal = Answer::raw(
        401,
        &[(
            "WWW-Authenticate",
            "Bearer resource_metadata=\"https://evil.example\"",
        )],
        "no",
    );
    site.upstream.push(refusal);
    let answer = site.call(&site.alice).await;
    assert_eq!(
        (answer.status, answer.code()),
        (401, "byok_key_refused"),
        "{answer:?}"
    );
    let challenge = answer.header("www-authenticate");
    assert!(
        challenge.contains("error=\"invalid_token\"") && !challenge.contains("evil"),
        "{challenge}"
    );
    // What a caller brings for the server by name comes before what is kept.
    let request = site.request(Method::POST, "/one/mcp", &site.alice);
    let answer = got(request.header("x-mcp-auth", "canary-brought").json(&echo("x"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-brought"));
}

#[tokio::test]
async fn what_another_replica_writes_counts_within_a_look() {
    let site = Site::start().await;
    let other = site.town.start(servers(&site.upstream, &site.two)).start().await;
    site.bring(&site.alice, &json!({"credential": ALICES})).await;
    let call = |gateway: &TestGateway| {
        let request = gateway.http.post(gateway.url("/one/mcp"));
        got(request
            .header("x-litellm-api-key", &site.alice)
            .json(&echo("hello")))
    };
    // A key that was not there is looked for at every call.
    assert_eq!(call(&other).await.status, 200);
    site.bring(&site.alice, &json!({"credential": "canary-newer"}))
        .await;
    other.looks().await;
    assert_eq!(call(&other).await.status, 200);
    assert_eq!(site.shown().as_deref(), Some("canary-newer"));
    got(site.request(Method::DELETE, ONE, &site.alice)).await;
    other.looks().await;
    assert_eq!(call(&other).await.code(), "byok_auth_required");
    // Sessions are opened by whichever replica, too.
    let session = site.session(&site.alice, ALICES).await;
    let request = other.http.post(other.url("/one/mcp")).bearer_auth(&session);
    assert_eq!(got(request.json(&echo("hello"))).await.status, 200);
}
