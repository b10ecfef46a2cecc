//! What is open to everybody is limited, and the answers say so in the words of the endpoint.

use crate::harness::{Got, TestGateway, entry, got};
use futures_util::future::join_all;
use serde_json::json;
use vestibule_testkit::{Answer, Upstream};

async fn gateway(provider: &Upstream) -> TestGateway {
    let base = provider.base();
    let fields = format!(
        "url: {}\nauth_type: oauth2\nauthorization_url: {base}/authorize\ntoken_url: {base}/token\n\
         registration_url: {base}/register",
        provider.url()
    );
    TestGateway::with_servers(&entry("one", &fields)).await
}

async fn register(gateway: &TestGateway, name: &str) -> Got {
    let metadata = json!({"client_name": name, "redirect_uris": ["http://localhost:1/cb"]});
    let request = gateway.http.post(gateway.url("/one/register"));
    got(request.json(&metadata)).await
}

#[tokio::test]
async fn new_kinds_of_clients_are_refused_before_the_provider_is_flooded() {
    let provider = Upstream::start().await;
    let gateway = gateway(&provider).await;
    let mut taken = 0;
    let refused = loop {
        let client = json!({"client_id": "at-the-provider", "token_endpoint_auth_method": "none"});
        provider.push_when(
            |request| request.path() == "/register",
            Answer::json(201, &client),
        );
        let answer = register(&gateway, &format!("client {taken}")).await;
        if answer.status != 201 {
            break answer;
        }
        taken += 1;
    };
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (429, &json!("temporarily_unavailable"))
    );
    assert_eq!(refused.header("retry-after"), "10");
    assert!((60..95).contains(&taken), "{taken}");
    assert_eq!(provider.requests().len(), taken);
    // One that the provider knows costs it nothing.
    assert_eq!(register(&gateway, "client 0").await.status, 201);
}

#[tokio::test]
async fn sign_ins_are_limited_by_address_and_generously() {
    let gateway = gateway(&Upstream::start().await).await;
    let begin = || async { got(gateway.http.get(gateway.url("/one/authorize?redirect_uri=x"))).await };
    let first = join_all((0..300).map(|_| begin())).await;
    assert!(first.iter().all(|answer| answer.status == 400), "{first:?}");
    let refused = loop {
        let more = join_all((0..100).map(|_| begin())).await;
        if let Some(refused) = more.into_iter().find(|answer| answer.status != 400) {
            break refused;
        }
    };
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, "10"),
        "{refused:?}"
    );
    let page = refused.body.as_str().expect("a page");
    assert!(
        page.contains("<strong>Error:</strong> temporarily_unavailable"),
        "{page}"
    );
}
