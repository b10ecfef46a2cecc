//! `vestibule doctor` at servers that people sign in to: metadata, clients, token endpoints that are not as they should
//! be, and the line that mends each.

use crate::child::{ConfigFile, run};
use crate::doctor::{PERSON, at, examined, nothing_secret, people, unregistered, with, without};
use crate::harness::{CLIENT_SECRET, KEY, entry, keyed};
use serde_json::json;
use vestibule_testkit::provider::ResourceRule;
use vestibule_testkit::{Answer, Idp, Provider, Reply, Upstream};

#[tokio::test]
async fn nothing_is_registered_unless_asked_for() {
    let (provider, upstream, _) = people("").await;
    let before = provider.clients();
    let entry = unregistered(&upstream, "");
    let seen = examined(&entry, &[]).await;
    seen.well();
    assert!(seen.seen("registration").contains("not tried"), "{}", seen.whole);
    assert_eq!(provider.clients(), before);

    let seen = examined(&entry, &["--register"]).await;
    seen.well();
    assert!(
        seen.seen("registration")
            .starts_with("registered client registered-"),
        "{}",
        seen.whole
    );
    assert_eq!(provider.clients(), before + 1);

    // What a provider refuses is a fault with its own words.
    provider.set(|modes| modes.register_answer = Some((400, json!({"error": "invalid_redirect_uri"}))));
    let seen = examined(&entry, &["--register"]).await;
    assert_eq!((seen.code, seen.verdict("registration")), (Some(1), "fault"));
    assert!(seen.whole.contains("PROXY_BASE_URL"), "{}", seen.whole);
}

#[tokio::test]
async fn metadata_of_another_resource_and_the_issuer_that_does_without() {
    let (provider, upstream, entry) = people("").await;
    upstream.describe(&json!({
        "resource": "https://elsewhere.example/mcp",
        "authorization_servers": [provider.issuer()],
    }));
    let seen = examined(&entry, &[]).await;
    let line = format!("issuer: {}", provider.issuer());
    seen.fault("resource_metadata", &line);
    examined(&with(&entry, &line), &["--token-env", "PERSON"])
        .await
        .well();
}

#[tokio::test]
async fn an_issuer_that_is_spelt_otherwise() {
    let (provider, upstream, entry) = people("").await;
    let slashed = format!("{}/", provider.issuer());
    upstream.describe(&json!({"resource": upstream.url(), "authorization_servers": [slashed]}));
    let line = format!("issuer: {}", provider.issuer());
    let seen = examined(&entry, &[]).await;
    seen.fault("authorization_server", &line);
    examined(&with(&entry, &line), &[]).await.well();

    // The operator's own spelling is compared as strictly.
    let seen = examined(&with(&entry, &format!("issuer: {slashed}")), &[]).await;
    seen.fault("authorization_server", &line);
}

#[tokio::test]
async fn no_metadata_at_all() {
    let provider = Provider::start().await;
    provider.add_client("shared", None);
    let upstream = Upstream::start().await;
    let entry = unregistered(&upstream, "client_id: shared");
    let seen = examined(&entry, &[]).await;
    seen.fault("authorization_server", "auth_type: none");
    let open = crate::harness::entry("one", &format!("url: {}\nauth_type: none", upstream.url()));
    examined(&open, &[]).await.well();

    upstream.accept(PERSON);
    let seen = examined(&entry, &[]).await;
    seen.fault("authorization_server", "authorization_url: 'https://…'");
    assert!(
        seen.lines("authorization_server")
            .contains(&"token_url: 'https://…'"),
        "{}",
        seen.whole
    );
    let mended = with(
        &entry,
        &format!("authorization_url: {}", provider.authorization_url()),
    );
    let mended = with(&mended, &format!("token_url: {}", provider.token_url()));
    examined(&mended, &["--token-env", "PERSON"]).await.well();
}

#[tokio::test]
async fn a_provider_for_machines_alone() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept_if(idp.issued());
    let base = upstream.base();
    let document = json!({
        "issuer": base,
        "token_endpoint": idp.url(),
        "grant_types_supported": ["client_credentials"],
    });
    let metadata = || Answer::json(200, &document);
    at(&upstream, "/.well-known/oauth-authorization-server", metadata, 4);
    let seen = examined(&unregistered(&upstream, ""), &[]).await;
    seen.fault("authorization_server", "oauth2_flow: client_credentials");
    let mut mended = unregistered(&upstream, "");
    for line in seen.lines("authorization_server") {
        let line = line.replace("os.environ/MCP_CLIENT_SECRET", CLIENT_SECRET);
        mended = with(&mended, &line);
    }
    examined(&mended, &[]).await.well();
}

#[tokio::test]
async fn no_registration_and_no_client() {
    let (provider, upstream, _) = people("").await;
    provider.set(|modes| modes.registration = false);
    let entry = unregistered(&upstream, "");
    let seen = examined(&entry, &[]).await;
    seen.fault("registration", "client_id: os.environ/MCP_CLIENT_ID");
    provider.add_client("by-hand", None);
    examined(&with(&entry, "client_id: os.environ/MCP_CLIENT_ID"), &[])
        .await
        .well();
}

#[tokio::test]
async fn what_the_provider_says_about_pkce() {
    let (provider, _upstream, entry) = people("").await;
    provider.set(|modes| modes.metadata = json!({"code_challenge_methods_supported": ["plain"]}));
    let seen = examined(&entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("pkce")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert_eq!(
        seen.step("pkce")["advice"][0]["who"],
        "upstream",
        "{}",
        seen.whole
    );
    provider.set(|modes| modes.metadata = json!({"code_challenge_methods_supported": null}));
    let seen = examined(&entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("pkce")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn what_works_and_may_not_for_long() {
    let (provider, upstream, entry) = people("").await;
    provider.set(|modes| modes.metadata = json!({"grant_types_supported": ["authorization_code"]}));
    let seen = examined(&entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("grants")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
    assert!(seen.seen("grants").contains("sign in again"), "{}", seen.whole);

    // A configured issuer whose tokens the server does not say that it takes.
    let another = Provider::start().await;
    another.add_client("shared", Some(CLIENT_SECRET));
    let pinned = with(&entry, &format!("issuer: {}", another.issuer()));
    let seen = examined(&pinned, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("authorization_server")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
    assert_eq!(
        seen.lines("authorization_server"),
        [format!("issuer: {}", provider.issuer())]
    );

    // A scope that nobody offers, and one that the server's challenge asks for.
    let seen = examined(&with(&entry, "scopes: [mcp-read]"), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("scopes")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
    assert_eq!(seen.lines("scopes"), ["scopes: ['mcp:read', 'mcp:write']"]);
    let challenge = || Answer::raw(401, &[("WWW-Authenticate", "Bearer scope=\"mcp:admin\"")], "");
    at(&upstream, "/mcp", challenge, 8);
    let seen = examined(&with(&entry, "scopes: ['mcp:read']"), &[]).await;
    assert_eq!(seen.verdict("challenge"), "warning", "{}", seen.whole);
    assert_eq!(seen.lines("scopes"), ["scopes: ['mcp:read', 'mcp:admin']"]);
}

#[tokio::test]
async fn resource_that_a_provider_refuses_or_demands() {
    let (provider, upstream, entry) = people("issuer: PROVIDER").await;
    provider.set(|modes| modes.resource = ResourceRule::Refused);
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "send_resource: never");
    examined(&with(&entry, "send_resource: never"), &[]).await.well();

    provider.set(|modes| modes.resource = ResourceRule::Demanded);
    upstream.describe(&json!({"authorization_servers": [provider.issuer()]}));
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "send_resource: always");
    examined(&with(&entry, "send_resource: always"), &[]).await.well();
}

#[tokio::test]
async fn a_client_that_the_provider_refuses() {
    let (provider, _upstream, entry) = people("issuer: PROVIDER").await;
    provider.forget_clients();
    let seen = examined(&entry, &[]).await;
    seen.fault("token", "token_endpoint_auth_method: client_secret_basic");
    assert!(seen.seen("token").contains("invalid_client"), "{}", seen.whole);

    provider.add_client("shared", Some(CLIENT_SECRET));
    provider.set(|modes| modes.auth_methods = vec!["client_secret_basic".into()]);
    let seen = examined(&entry, &[]).await;
    seen.fault(
        "client_authentication",
        "token_endpoint_auth_method: client_secret_basic",
    );
    examined(
        &with(&entry, "token_endpoint_auth_method: client_secret_basic"),
        &[],
    )
    .await
    .well();

    // A public client where there must be a secret.
    let public = without(&entry, "client_secret");
    let seen = examined(&public, &[]).await;
    seen.fault(
        "client_authentication",
        "client_secret: os.environ/MCP_CLIENT_SECRET",
    );
}

#[tokio::test]
async fn a_secret_is_not_shown_to_whom_the_server_alone_names() {
    let (provider, _upstream, entry) = people("").await;
    let seen = examined(&entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("authorization_server")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
    assert_eq!(seen.verdict("token"), "ok", "{}", seen.whole);
    assert_eq!(provider.requests_to("/token").len(), 1);
    provider.assert_never_seen(CLIENT_SECRET);

    let line = format!("issuer: {}", provider.issuer());
    assert_eq!(seen.lines("authorization_server"), [line.as_str()]);
    let seen = examined(&with(&entry, &line), &[]).await;
    seen.well();
    assert_eq!(seen.verdict("authorization_server"), "ok", "{}", seen.whole);
    let shown = provider.requests_to("/token");
    assert_eq!(
        shown[1].form_value("client_secret").as_deref(),
        Some(CLIENT_SECRET)
    );
}

#[tokio::test]
async fn a_token_endpoint_that_is_none() {
    let (provider, _upstream, entry) = people("").await;
    provider
        .set(|modes| modes.metadata = json!({"token_endpoint": format!("{}/nothing", provider.issuer())}));
    let seen = examined(&entry, &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("token")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );

    // Of a configured one the metadata knows better. With it the entry reads as a machine's, which the provider says.
    provider.set(|modes| modes.metadata = json!({}));
    let line = format!("token_url: {}", provider.token_url());
    let inferred = with(&entry, &line);
    let seen = examined(&inferred, &[]).await;
    seen.fault("token", "oauth2_flow: authorization_code");
    let named = with(&inferred, "oauth2_flow: authorization_code");
    examined(&named, &[]).await.well();
    let mistaken = format!("token_url: {}/nothing?key=canary-query", provider.issuer());
    let seen = examined(&with(&named, &mistaken), &[]).await;
    seen.fault("token", &line);
}

#[tokio::test]
async fn a_token_endpoint_that_tells_secrets_or_gives_anybody_a_token() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept(PERSON);
    let fields = format!(
        "url: {}\nauth_type: oauth2\nclient_id: shared\nclient_secret: {CLIENT_SECRET}\nauthorization_url: {}/authorize\n\
         token_url: {}",
        upstream.url(),
        idp.base(),
        idp.url()
    );
    let seen = examined(&entry("one", &fields), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("token")),
        (Some(1), "fault"),
        "{}",
        seen.whole
    );
    assert!(
        seen.seen("token").contains("a code that nobody gave"),
        "{}",
        seen.whole
    );
    assert!(!seen.whole.contains(&idp.last_token()));

    idp.set_default(Reply::OAuthError {
        status: 400,
        error: "server_error".into(),
        description: Some(format!("you sent {CLIENT_SECRET}")),
    });
    let seen = examined(&entry("one", &fields), &[]).await;
    assert_eq!(
        (seen.code, seen.verdict("token")),
        (Some(0), "warning"),
        "{}",
        seen.whole
    );
}

#[tokio::test]
async fn a_persons_token_that_is_over_and_one_that_is_a_key() {
    let (_provider, upstream, entry) = people("").await;
    upstream.revoke(PERSON);
    let seen = examined(&entry, &["--token-env", "PERSON"]).await;
    assert_eq!((seen.code, seen.verdict("initialize")), (Some(1), "fault"));
    assert!(
        seen.seen("initialize").starts_with("sign_in_ended"),
        "{}",
        seen.whole
    );

    let file = ConfigFile::new(&keyed(&entry));
    let arguments = ["doctor", "--config", file.path(), "one", "--token-env", "PERSON"];
    let said = run(&arguments, &[("PERSON", KEY)]).await;
    nothing_secret(&said);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("gateway's own key"), "{said:?}");
    upstream.assert_never_seen(KEY);
}
