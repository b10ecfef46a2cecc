//! The Rust SDK's OAuth client, which is not ours: it finds where to sign in, registers, signs a person in through the
//! gateway, calls tools and refreshes.

use crate::harness::{KEY, Start, TestGateway, entry, personal};
use crate::kept_harness::{Door, REDIRECT, Site};
use http::{HeaderName, HeaderValue};
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::json;
use vestibule_testkit::{Provider, Upstream};

/// A client with the gateway key where the gateway wants one.
fn http(key: Option<&str>) -> reqwest::Client {
    let headers = key.map(|key| {
        let value = HeaderValue::from_str(key).expect("a value");
        (HeaderName::from_static("x-litellm-api-key"), value)
    });
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let client = client.default_headers(headers.into_iter().collect());
    client.build().expect("a client")
}

/// Signs a person in; what the SDK calls with from then on.
async fn signed_in(gateway: &TestGateway, site: &Site, key: Option<&str>) -> AuthClient<reqwest::Client> {
    let url = gateway.url("/one/mcp");
    let mut state = OAuthState::new(&url, Some(http(key))).await.expect("a state");
    let request = AuthorizationRequest::new(REDIRECT).with_client_name("rmcp");
    state.start_authorization(request).await.expect("a session");
    let location = state.get_authorization_url().await.expect("a URL");
    // The browser.
    let browser = http(None);
    let away = browser.get(location).send().await.expect("answered");
    assert_eq!(away.status(), 302);
    let cookie = away.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let location = away.headers()["location"].to_str().expect("text");
    let callback = gateway.url(&site.provider.approve(location));
    let back = browser.get(callback).header("cookie", cookie).send().await;
    let back = back.expect("answered");
    assert_eq!(back.status(), 302);
    let location = back.headers()["location"].to_str().expect("text");
    // Our `iss` is among what it checks (RFC 9207).
    assert!(location.contains("iss="), "{location}");
    state.handle_callback_url(location).await.expect("tokens");
    let manager = state.into_authorization_manager().expect("authorized");
    AuthClient::new(http(key), manager)
}

/// A session that lists and calls.
async fn works(gateway: &TestGateway, client: AuthClient<reqwest::Client>) {
    let config = StreamableHttpClientTransportConfig::with_uri(gateway.url("/one/mcp"));
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let client = ().serve(transport).await.expect("a handshake");
    let tools = client.list_all_tools().await.expect("a list");
    assert_eq!(tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["echo"]);
    let arguments = json!({"message": "hello"})
        .as_object()
        .expect("an object")
        .clone();
    let call = CallToolRequestParams::new("echo").with_arguments(arguments);
    let result = client.call_tool(call).await.expect("a result");
    let text = result.content[0].as_text().map(|text| text.text.as_str());
    assert_eq!(text, Some("hello"));
    client.cancel().await.expect("an end");
}

#[tokio::test]
async fn rmcp_signs_in_calls_and_refreshes_at_an_open_gateway() {
    let site = Site::start().await;
    let servers = site.provider.registered("one", &site.upstream, "");
    let gateway = Start::new(format!("mcp_servers:\n{servers}")).start().await;
    let client = signed_in(&gateway, &site, None).await;
    works(&gateway, client.clone()).await;
    let counts = site.provider.counts();
    assert_eq!((counts.registered, counts.exchanged, counts.refreshed), (1, 1, 0));
    client
        .auth_manager
        .lock()
        .await
        .refresh_token()
        .await
        .expect("new tokens");
    works(&gateway, client).await;
    let counts = site.provider.counts();
    assert_eq!((counts.exchanged, counts.refreshed, counts.reused), (1, 1, 0));
    assert_eq!(site.provider.shown(), site.provider.last());
}

#[tokio::test]
async fn rmcp_with_the_key_shares_its_sign_in_with_who_has_only_the_key() {
    let site = Site::start().await;
    let gateway = Start::new(personal(&site.provider.registered("one", &site.upstream, ""), ""))
        .start()
        .await;
    let client = signed_in(&gateway, &site, Some(KEY)).await;
    works(&gateway, client.clone()).await;
    Door::of(&gateway).works().await;
    // The SDK refreshes what is about to end by itself; the gateway does it and keeps it. Just after a sign-in the
    // tokens would be as good as new.
    site.advance(&[&gateway], 60);
    client
        .auth_manager
        .lock()
        .await
        .refresh_token()
        .await
        .expect("new tokens");
    Door::of(&gateway).works().await;
    assert_eq!(site.provider.shown(), site.provider.last());
    works(&gateway, client).await;
    let counts = site.provider.counts();
    assert_eq!((counts.exchanged, counts.refreshed, counts.reused), (1, 1, 0));
    site.upstream.assert_never_seen(KEY);
}

#[tokio::test]
async fn it_signs_in_at_a_delegated_servers_own_provider() {
    let (provider, server) = (Provider::start().await, Upstream::start().await);
    server.accept_if(provider.issued());
    server.describe(&json!({"resource": server.url(), "authorization_servers": [provider.issuer()]}));
    let fields = format!(
        "url: {}\nauth_type: oauth2\ndelegate_auth_to_upstream: true",
        server.url()
    );
    let gateway = TestGateway::with_servers(&entry("one", &fields)).await;
    let mut state = OAuthState::new(&gateway.url("/one/mcp"), Some(http(None)))
        .await
        .expect("a state");
    let request = AuthorizationRequest::new(REDIRECT).with_client_name("rmcp");
    state.start_authorization(request).await.expect("a session");
    let location = state.get_authorization_url().await.expect("a URL");
    assert!(location.starts_with(&provider.authorization_url()), "{location}");
    let back = http(None).get(location).send().await.expect("answered");
    let location = back.headers()["location"].to_str().expect("text");
    state.handle_callback_url(location).await.expect("tokens");
    let manager = state.into_authorization_manager().expect("authorized");
    works(&gateway, AuthClient::new(http(None), manager)).await;
    // It compares the document with the URL that it calls, and tells the provider what it read there.
    let asked = provider.requests_to("/authorize");
    let resource = asked[0].query().into_iter().find(|(name, _)| name == "resource");
    assert_eq!(resource.map(|(_, value)| value), Some(gateway.url("/one/mcp")));
    assert_eq!(provider.clients(), 1, "registered there, not here");
    server.assert_never_seen(KEY);
}
