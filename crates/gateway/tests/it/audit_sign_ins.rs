//! What the record says about sign-ins: one id from the first request on, the steps, and the one that failed.

use crate::audit_harness::Kept;
use crate::browser::{
    Browser, REDIRECT, Registered, STATE, VERIFIER, encoded, metadata, parameter, registering, shared,
};
use crate::console_harness::Person;
use crate::harness::{KEY, TestGateway, got, personal};
use crate::kept_harness::{Door, Fault, Site};
use crate::postgres::Postgres;
use serde_json::{Value, json};
use tokio::time::timeout;
use vestibule_store::MasterKeys;
use vestibule_testkit::{DEADLINE, Provider, TokenMode, Upstream};

/// A gateway with a registered client at a provider.
struct Setup {
    provider: Provider,
    _upstream: Upstream,
    kept: Kept,
    gateway: TestGateway,
    client: Registered,
}

impl Setup {
    async fn new(more: &str) -> Self {
        let provider = Provider::start().await;
        let upstream = provider.upstream().await;
        let kept = Kept::new();
        let gateway = kept
            .start(personal(&registering("one", &upstream, more), ""))
            .start()
            .await;
        let client = Registered::at(&gateway, "/one").await;
        gateway.row("kind=sign_in").await;
        Self {
            provider,
            _upstream: upstream,
            kept,
            gateway,
            client,
        }
    }

    /// The token request for a code, with the gateway key.
    async fn exchange(&self, code: &str, changes: &[(&str, &str)]) -> u16 {
        let request = self.client.exchange(&self.gateway, code, changes);
        got(request.header("x-litellm-api-key", KEY)).await.status
    }

    /// The steps of the one sign-in that has an `authorize`, once there are so many.
    async fn steps(&self, count: usize) -> Vec<(String, String)> {
        let flow = flow_of(&self.gateway).await;
        steps(&self.gateway, &flow, count).await
    }
}

/// The id of the one sign-in.
async fn flow_of(gateway: &TestGateway) -> String {
    let begun = async {
        loop {
            let mut rows = gateway.rows("kind=sign_in").await.into_iter();
            if let Some(row) = rows.find(|row| row["trace"]["sign_in"]["step"] == "authorize") {
                return row;
            }
        }
    };
    let row = timeout(DEADLINE, begun).await.expect("a sign-in in time");
    assert_eq!(row["flow"], row["request_id"]);
    row["flow"].as_str().expect("an id").to_owned()
}

/// Step and outcome of each row of a sign-in.
async fn steps(gateway: &TestGateway, flow: &str, count: usize) -> Vec<(String, String)> {
    let rows = gateway.until_rows(&format!("flow={flow}"), count).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.iter()
        .map(|row| (text(&row["trace"]["sign_in"]["step"]), text(&row["outcome"])))
        .collect()
}

fn expected(steps: &[(&str, &str)]) -> Vec<(String, String)> {
    steps
        .iter()
        .map(|(step, outcome)| ((*step).to_owned(), (*outcome).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_sign_in_is_its_steps_and_says_who_it_was() {
    let setup = Setup::new("").await;
    let code = setup.client.code(&setup.gateway, &Browser::new()).await;
    assert_eq!(setup.exchange(&code, &[]).await, 200);
    let flow = flow_of(&setup.gateway).await;
    let rows = setup.gateway.until_rows(&format!("flow={flow}"), 3).await;
    for (row, step) in rows.iter().zip(["authorize", "callback", "token"]) {
        assert_eq!(row["trace"]["sign_in"]["step"], step);
        assert_eq!(
            (&row["outcome"], &row["server"]),
            (&json!("ok"), &json!("one")),
            "{row:#}"
        );
    }
    assert_eq!(rows[0]["trace"]["sign_in"]["client"], "Claude Code (one)");
    assert_eq!(rows[2]["trace"]["sign_in"]["grant"], "authorization_code");
    assert_eq!(rows[2]["user_id"], "default_user_id");
    let registered = setup.gateway.rows("kind=sign_in").await.remove(0);
    assert_eq!(registered["trace"]["sign_in"]["step"], "register");
    assert!(
        registered["flow"].is_null(),
        "a registration is for many sign-ins"
    );
}

#[tokio::test]
async fn every_step_of_a_connection_says_whose_it_is() {
    let setup = Setup::new("").await;
    let ada = Person::signed_in(&setup.gateway, KEY, "ada").await;
    let page = ada.page("/ui/connections").await;
    let link = scraper::Selector::parse("main a[href^='/ui/connect/']").expect("a selector");
    let link = page.select(&link).next().expect("a link");
    ada.follow(link.value().attr("href").expect("a path")).await;
    // By its id, as whose key stands on the first request.
    let mut client = Registered::at(&setup.gateway, "/one").await;
    client.path = "/v1/mcp/server/oauth/one".into();
    client.code(&setup.gateway, &Browser::with_key(KEY)).await;
    let mut named = Vec::new();
    for row in setup.gateway.until_rows("kind=sign_in", 7).await {
        let step = row["trace"]["sign_in"]["step"]
            .as_str()
            .expect("a step")
            .to_owned();
        let user = row["user_id"].as_str().map(str::to_owned);
        if step != "register" {
            assert_eq!(row["outcome"], "ok", "{row:#}");
            named.push((step, user.unwrap_or_default()));
        }
    }
    let expected = [
        ("authorize", "ada"),
        ("callback", "ada"),
        ("token", "ada"),
        ("authorize", "default_user_id"),
        ("callback", "default_user_id"),
    ];
    let expected = expected.map(|(step, user)| (step.to_owned(), user.to_owned()));
    assert_eq!(named, expected);
}

#[tokio::test]
async fn a_consent_is_a_step_of_the_same_sign_in() {
    let provider = Provider::start().await;
    let gateway = TestGateway::with_servers(&shared("one", &provider, "")).await;
    let client = Registered::at(&gateway, "/one").await;
    for (decision, outcome) in [("deny", "access_denied"), ("approve", "ok")] {
        let browser = Browser::new();
        let url = client.authorize_url(&gateway, &[]);
        let asked = browser.open(&url).await;
        let flow = asked.header("x-request-id").to_owned();
        let page = asked.body.as_str().expect("a page");
        let ticket = page.split("name=\"ticket\" value=\"").nth(1).expect("a ticket");
        let ticket = ticket.split('"').next().expect("an end");
        browser
            .submit(&url, &[("ticket", ticket), ("decision", decision)], &[])
            .await;
        let steps = steps(&gateway, &flow, 2).await;
        assert_eq!(steps, expected(&[("authorize", "asked"), ("consent", outcome)]));
    }
}

#[tokio::test]
async fn each_step_that_fails_is_found_by_the_sign_ins_id() {
    // The provider denies.
    let setup = Setup::new("").await;
    let denied = ("access_denied".to_owned(), Some("Ann said <b>no</b>".to_owned()));
    setup.provider.set(|modes| modes.refuses_people = Some(denied));
    setup.client.sign_in(&setup.gateway, &Browser::new()).await;
    let steps = setup.steps(2).await;
    assert_eq!(
        steps,
        expected(&[("authorize", "ok"), ("callback", "access_denied")])
    );
    let row = setup.gateway.row("outcome=access_denied").await;
    assert_eq!(row["trace"]["sign_in"]["description"], "Ann said <b>no</b>");

    // Another verifier than the one that was promised.
    let setup = Setup::new("").await;
    let code = setup.client.code(&setup.gateway, &Browser::new()).await;
    let wrong = "canary-wrong-verifier-0123456789-0123456789-0123";
    assert_eq!(setup.exchange(&code, &[("code_verifier", wrong)]).await, 400);
    let steps = setup.steps(3).await;
    assert_eq!(steps[2], ("token".to_owned(), "invalid_grant".to_owned()));
    // The code counted once; who shows it again is told so, and it is a sign-in of its own to the record.
    assert_eq!(setup.exchange(&code, &[]).await, 400);
    let rows = setup.gateway.until_rows("outcome=invalid_grant", 2).await;
    assert_eq!(rows[1]["flow"], rows[1]["request_id"]);

    // The token endpoint fails, or refuses the code.
    for (answer, outcome) in [
        (TokenMode::Html500("canary-page".into()), "server_error"),
        (
            TokenMode::Json(400, json!({"error": "invalid_grant"})),
            "invalid_grant",
        ),
    ] {
        let setup = Setup::new("").await;
        let code = setup.client.code(&setup.gateway, &Browser::new()).await;
        setup.provider.set(|modes| modes.token = answer);
        setup.exchange(&code, &[]).await;
        let steps = setup.steps(3).await;
        assert_eq!(steps[2], ("token".to_owned(), outcome.to_owned()));
    }

    // The tokens break the operator's rules.
    let setup = Setup::new("token_validation: {organization: ours}").await;
    let code = setup.client.code(&setup.gateway, &Browser::new()).await;
    setup.exchange(&code, &[]).await;
    let steps = setup.steps(3).await;
    assert_eq!(
        steps[2],
        ("token".to_owned(), "token_validation_failed".to_owned())
    );
}

#[tokio::test]
async fn what_cannot_be_told_apart_is_not_made_up() {
    let setup = Setup::new("").await;
    let browser = Browser::new();
    let to = browser
        .open(&setup.client.authorize_url(&setup.gateway, &[]))
        .await;
    let state = parameter(to.header("location"), "state").expect("a state");
    let other = format!("{}{}", &state[..42], if state.ends_with('A') { "B" } else { "A" });
    let query = encoded(&[("state", &other), ("code", "canary-code-in-the-wrong-place")]);
    let back = browser
        .open(&setup.gateway.url(&format!("/callback?{query}")))
        .await;
    assert_eq!(back.status, 400);
    let id = back.header("x-request-id");
    let row = setup.gateway.row(&format!("request_id={id}")).await;
    assert_eq!(
        (&row["outcome"], &row["flow"], &row["server"]),
        (&json!("invalid_request"), &json!(id), &Value::Null)
    );
    assert_eq!(row["trace"]["sign_in"]["step"], "callback");
    // A redirect URI that nobody registered ends before there is a client.
    let elsewhere = [("redirect_uri", "https://elsewhere.example/canary-path")];
    let refused = browser
        .open(&setup.client.authorize_url(&setup.gateway, &elsewhere))
        .await;
    assert_eq!(refused.status, 400);
    let row = setup.gateway.row("outcome=invalid_redirect_uri").await;
    assert_eq!(row["trace"]["sign_in"]["step"], "authorize");
    // What the provider says may repeat what it was sent; the record does not.
    let said = format!("no such state {state}");
    let query = encoded(&[
        ("state", &state),
        ("error", "server_error"),
        ("error_description", &said),
        ("iss", &setup.provider.issuer()),
    ]);
    browser
        .open(&setup.gateway.url(&format!("/callback?{query}")))
        .await;
    let row = setup.gateway.row("outcome=server_error").await;
    assert_eq!(row["trace"]["sign_in"]["description"], "(holds a secret)");
    let bytes = String::from_utf8_lossy(&setup.kept.bytes()).into_owned();
    for secret in [state.as_str(), STATE, VERIFIER, "canary-code", "canary-path"] {
        assert!(!bytes.contains(secret), "{secret} is in the database");
    }
}

#[tokio::test]
async fn renewals_and_revocations_belong_to_the_sign_in() {
    let site = Site::start().await;
    let kept = Kept::new();
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = kept.start(personal(&servers, "")).start().await;
    let door = Door::of(&gateway);
    door.sign_in(&site.provider).await;
    let flow = flow_of(&gateway).await;
    site.advance(&[&gateway], 301);
    door.works().await;
    let seen = steps(&gateway, &flow, 4).await;
    assert_eq!(seen[3], ("renewal".to_owned(), "ok".to_owned()));
    site.advance(&[&gateway], 301);
    site.provider
        .set(|manners| manners.fault = Some(Fault::Error(400, "temporarily_unavailable")));
    assert_eq!(door.called().await.status, 503);
    let seen = steps(&gateway, &flow, 5).await;
    assert_eq!(
        seen[4],
        ("renewal".to_owned(), "temporarily_unavailable".to_owned())
    );
    let path = "/v1/mcp/server/one/oauth-user-credential";
    let delete = gateway
        .http
        .delete(gateway.url(path))
        .header("x-litellm-api-key", KEY);
    assert_eq!(got(delete).await.status, 200);
    let seen = steps(&gateway, &flow, 6).await;
    assert_eq!(seen[5].0, "revocation");
    let change = gateway.row("kind=change").await;
    assert_eq!(
        (
            &change["outcome"],
            &change["trace"]["subject"],
            &change["key_alias"]
        ),
        (
            &json!("user_credential.delete"),
            &json!("one"),
            &json!("master key")
        )
    );
    // Who called for whom is in the rows of calls.
    let call = gateway.rows("kind=call&outcome=ok").await.remove(0);
    assert_eq!(call["user_id"], "default_user_id");
    assert_eq!(call["trace"]["credential"]["resolution"], "stored-user-token");
}

#[tokio::test]
async fn a_sign_in_over_two_replicas_is_one() {
    let database = Postgres::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let keys = directory.path().join("keys");
    let made = MasterKeys::from_environment(&std::collections::HashMap::new()).expect("keys");
    made.write_to(&keys).expect("written");
    let site = Site::start().await;
    let text = personal(&site.provider.registered("one", &site.upstream, ""), "");
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let start = crate::harness::Start::new(text.clone()).database(database.url());
        let start = start.environment("VESTIBULE_MASTER_KEY_FILE", &keys.display().to_string());
        let start = start.environment("PROXY_BASE_URL", "http://gateway.test");
        gateways.push(start.start().await);
    }
    let [a, b] = [0, 1].map(|index| Door::of(&gateways[index]).called_as("http://gateway.test"));
    let client = a.register().await;
    let away = b.authorize(&client).await;
    let code = a.back(&away, &site.provider.approve(&away.location)).await;
    assert_eq!(got(b.keyed_token(&code)).await.status, 200);
    let flow = flow_of(&gateways[0]).await;
    for gateway in &gateways {
        let mut seen = steps(gateway, &flow, 3).await;
        // Each replica writes its own rows a moment after the answer.
        seen.sort();
        assert_eq!(
            seen,
            expected(&[("authorize", "ok"), ("callback", "ok"), ("token", "ok")])
        );
    }
    database.remove().await;
}

#[tokio::test]
async fn names_from_outside_stay_names() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let gateway = TestGateway::with_servers(&registering("one", &upstream, "")).await;
    let mut registration = metadata(&[REDIRECT]);
    registration["client_name"] = json!("<script>\u{1b}[31m\r\nok\u{202e}</script>");
    Registered::with(&gateway, "/one", &registration).await;
    let row = gateway.row("kind=sign_in").await;
    assert_eq!(row["trace"]["sign_in"]["client"], "<script>[31mok</script>");
}
