//! The other servers that are shown the caller's own token: who needs a gateway key beside it, what goes out, what
//! comes back, and that nothing lasts.

use crate::delegation::{bearer, call, calls, challenge, strict};
use crate::harness::{KEY, Start, TestGateway, assert_nothing_secret_logged, got, personal};
use serde_json::json;

const TOKEN: &str = "canary-token-of-the-upstreams-own";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn who_comes_in_and_what_goes_out() {
    let server = strict().await;
    let mut servers = server.entry("transparent", "auth_type: true_passthrough");
    servers += &server.entry("kept", "auth_type: oauth_delegate");
    servers += &server.entry("flagged", "oauth_passthrough: true");
    servers += &server.entry(
        "listed",
        "auth_type: none\noauth_passthrough: true\nextra_headers: [Authorization]",
    );
    let gateway = TestGateway::with_servers(&servers).await;
    let (key, token) = (bearer(KEY), bearer(TOKEN));
    // `None` for what never reaches the server, else its `Authorization`.
    let (nothing, ours) = (Some(""), Some(&*token));
    for (name, headers, status, code, sent) in [
        ("transparent", vec![], 401, "", nothing),
        ("transparent", vec![("authorization", &*token)], 200, "", ours),
        (
            "transparent",
            vec![("authorization", "Basic bWU6c2VjcmV0")],
            401,
            "",
            Some("Basic bWU6c2VjcmV0"),
        ),
        (
            "transparent",
            vec![("authorization", &token), ("x-litellm-api-key", KEY)],
            200,
            "",
            ours,
        ),
        (
            "transparent",
            vec![("authorization", &token), ("x-litellm-api-key", "no")],
            401,
            "wrong_key",
            None,
        ),
        ("kept", vec![], 401, "missing_key", None),
        ("kept", vec![("authorization", &token)], 401, "wrong_key", None),
        ("kept", vec![("authorization", &key)], 401, "key_in_the_way", None),
        (
            "kept",
            vec![("x-litellm-api-key", &key)],
            401,
            "callers_token_required",
            None,
        ),
        (
            "kept",
            vec![("x-litellm-api-key", &key), ("authorization", &key)],
            401,
            "callers_token_required",
            None,
        ),
        (
            "kept",
            vec![("x-litellm-api-key", &key), ("authorization", &token)],
            200,
            "",
            ours,
        ),
        (
            "kept",
            vec![("x-litellm-api-key", &key), ("authorization", "Bearer stale")],
            401,
            "",
            Some("Bearer stale"),
        ),
        ("flagged", vec![], 401, "missing_key", None),
        ("flagged", vec![("authorization", &token)], 401, "wrong_key", None),
        ("flagged", vec![("authorization", &key)], 401, "", nothing),
        ("flagged", vec![("x-litellm-api-key", KEY)], 401, "", nothing),
        (
            "flagged",
            vec![("x-litellm-api-key", KEY), ("authorization", &token)],
            200,
            "",
            ours,
        ),
        (
            "listed",
            vec![("x-litellm-api-key", KEY), ("authorization", &token)],
            200,
            "",
            ours,
        ),
    ] {
        let before = calls(&server).len();
        let answer = got(call(&gateway, &format!("/{name}/mcp"), &headers)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{name} {headers:?}"
        );
        let seen = calls(&server);
        match sent {
            None => assert_eq!(seen.len(), before, "{name} {headers:?}"),
            Some(value) => {
                let sent = seen[before].header("authorization").unwrap_or_default();
                assert_eq!(sent, value, "{name} {headers:?}");
            }
        }
        let document = gateway.url(&format!("/.well-known/oauth-protected-resource/{name}/mcp"));
        let told = challenge(&answer).concat();
        // Where a sign-in at the upstream's own helps, the challenge leads there; where the key is wrong, it does not.
        let helps = status == 401 && matches!(code, "" | "callers_token_required");
        assert_eq!(
            told.contains(&format!("resource_metadata=\"{document}\"")),
            helps,
            "{name} {headers:?} {told}"
        );
        if helps {
            let told = got(gateway.http.get(&document)).await;
            assert_eq!(told.body["resource"], gateway.url(&format!("/{name}/mcp")));
            assert_eq!(told.body["authorization_servers"][0], "https://as.example");
        }
    }
    assert_nothing_secret_logged(&[TOKEN]);
}

#[tokio::test]
async fn scripts_are_told_where_the_token_comes_from() {
    let server = strict().await;
    let servers = server.entry("transparent", "auth_type: true_passthrough")
        + &server.entry("kept", "auth_type: oauth_delegate");
    let gateway = TestGateway::with_servers(&servers).await;
    for name in ["transparent", "kept"] {
        let request = gateway
            .http
            .get(gateway.url(&format!("/mcp-rest/tools/list?server_id={name}")));
        let request = request.header("x-litellm-api-key", KEY);
        let answer = got(request).await;
        assert_eq!(
            (answer.status, answer.code()),
            (401, "callers_token_required"),
            "{answer:?}"
        );
        assert!(challenge(&answer)[0].contains(&format!("/.well-known/oauth-protected-resource/{name}/mcp")));
    }
    server.assert_never_seen(TOKEN);
}

#[tokio::test]
async fn nothing_is_kept_for_such_a_server() {
    let server = strict().await;
    let text = personal(&server.entry("kept", "auth_type: oauth_delegate"), "");
    let gateway = Start::new(text).start().await;
    let path = gateway.url("/v1/mcp/server/kept/oauth-user-credential");
    let request = gateway.http.post(path).header("x-litellm-api-key", KEY);
    let answer = got(request.json(&json!({"access_token": "x"}))).await;
    assert_eq!((answer.status, answer.code()), (404, "no_sign_in"), "{answer:?}");
}
