//! Parameters of an authorization request that stand several times, and those that the operator wrote.

use crate::asked_scopes::{LOOPBACK, query, shared};
use crate::harness::{TestGateway, got, logged};

const IDP: &str = "https://idp.example/authorize";

#[tokio::test]
async fn a_client_may_name_several_resources() {
    let gateway = TestGateway::with_servers(&shared("one", IDP, "consent: never")).await;
    let resources = "&resource=https%3A%2F%2Fa.example&resource=https%3A%2F%2Fb.example";
    let answer = got(gateway.http.get(gateway.url(&query(resources, LOOPBACK)))).await;
    assert_eq!(answer.status, 302, "{answer:?}");
    let location = answer.header("location");
    assert!(
        location.starts_with(IDP) && !location.contains("resource"),
        "{location}"
    );
}

#[tokio::test]
async fn what_stands_twice_is_logged_by_its_name() {
    let gateway = TestGateway::with_servers(&shared("twice", IDP, "consent: never")).await;
    for name in ["redirect_uri", "a%0Ab"] {
        let path = query("", LOOPBACK).replace("/one/", "/twice/");
        let answer = got(gateway
            .http
            .get(gateway.url(&format!("{path}&{name}=1&{name}=2"))))
        .await;
        assert_eq!(
            (answer.status, answer.body["detail"].as_str()),
            (400, Some("invalid_request"))
        );
    }
    let log = logged();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("server=twice") && line.contains("WARN"))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, parameter) in lines.iter().zip(["parameter=redirect_uri", "parameter=a"]) {
        assert!(
            line.contains(parameter) && line.contains("stands several times"),
            "{line}"
        );
        assert!(!line.contains("redirect_uri="), "{line}");
    }
}

#[tokio::test]
async fn an_operators_resource_counts_where_the_gateway_sends_none() {
    let url = format!("{IDP}?resource=https%3A%2F%2Fapi.example&state=x");
    for (more, sent) in [
        ("", "resource=https%3A%2F%2Fapi.example"),
        ("send_resource: never", "resource=https%3A%2F%2Fapi.example"),
        (
            "send_resource: always\nresource: https://mcp.example/",
            "resource=https%3A%2F%2Fmcp.example%2F",
        ),
    ] {
        let gateway =
            TestGateway::with_servers(&shared("one", &url, &format!("consent: never\n{more}"))).await;
        let answer = got(gateway.http.get(gateway.url(&query("", LOOPBACK)))).await;
        let location = answer.header("location");
        let all: Vec<&str> = location
            .split(['?', '&'])
            .filter(|pair| pair.starts_with("resource="))
            .collect();
        assert_eq!(all, [sent], "{more}: {answer:?}");
        assert!(
            location.split(['?', '&']).all(|pair| pair != "state=x"),
            "{location}"
        );
    }
}
