//! Markup in everything that comes from outside, on every page: a parser that browsers would agree with finds no
//! element and no attribute that the text brought along.

use crate::browser::{encoded, registering};
use crate::console_harness::{Person, Place, put_key, put_user};
use crate::harness::{KEY, answer, echo, keyed};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scraper::Html;
use serde_json::json;
use vestibule_testkit::Provider;

/// Elements that no page of ours has and that the texts below try to make, and attributes likewise.
const ELEMENTS: [&str; 9] = [
    "img", "iframe", "object", "embed", "base", "xss", "marquee", "style", "template",
];
const ATTRIBUTES: [&str; 6] = ["onerror", "onclick", "onfocus", "srcdoc", "style", "xss"];

/// What breaks out of text, of an attribute, of a comment, of a script, of a title.
const NASTY: [&str; 9] = [
    "<img src=x onerror=alert(1)>",
    "\"><xss xss=1>",
    "'><xss xss=1>",
    "\" onfocus=alert(1) xss=\"",
    "</title><xss>",
    "</script><script>alert(1)</script>",
    "</textarea><xss><!--",
    "javascript:alert(1)",
    "{{7*7}}<style>*{display:none}</style>\u{202e}",
];

#[track_caller]
fn assert_harmless(body: &str, what: &str) {
    let page = Html::parse_document(body);
    for node in page.tree.nodes() {
        let Some(element) = node.value().as_element() else {
            continue;
        };
        let name = element.name();
        assert!(!ELEMENTS.contains(&name), "{what}: <{name}>");
        if name == "script" {
            assert!(
                element
                    .attr("src")
                    .is_some_and(|src| src.starts_with("/ui/assets/")),
                "{what}: a script"
            );
        }
        for (attribute, value) in element.attrs() {
            assert!(
                !ATTRIBUTES.contains(&attribute) && !attribute.starts_with("on"),
                "{what}: {attribute}"
            );
            if matches!(attribute, "href" | "src" | "action" | "data-live") {
                assert!(
                    value.starts_with("/ui") || value == "#main",
                    "{what}: {attribute}={value}"
                );
            }
        }
    }
}

/// Every page, with every text where a page takes one.
fn pages() -> Vec<String> {
    let mut paths = vec![
        "/ui/connections".to_owned(),
        "/ui/keys".into(),
        "/ui/keys/new".into(),
        "/ui/users".into(),
        "/ui/users/new".into(),
        "/ui/activity".into(),
        "/ui/activity/rows".into(),
        "/ui/health".into(),
        "/ui/sessions".into(),
    ];
    for (number, nasty) in NASTY.iter().enumerate() {
        let segment = |text: &str| encoded(&[("", text)])[1..].replace('+', "%20");
        let key = segment(&format!("{nasty}{number}"));
        for page in ["", "/edit", "/rotate", "/delete"] {
            paths.push(format!("/ui/keys/{key}{page}"));
        }
        let value = segment(nasty);
        for page in ["one", "edit", "block", "delete"] {
            paths.push(format!("/ui/users/{page}?user={value}"));
        }
        for name in ["user_id", "server", "tool", "outcome", "kind", "before", "since"] {
            paths.push(format!("/ui/activity?{name}={value}"));
        }
        paths.push(format!("/ui/keys?search={value}"));
        paths.push(format!("/ui/keys/new?user={value}"));
        paths.push(format!("/ui/connect/{value}"));
        paths.push(format!("/ui/{value}"));
        paths.push(format!(
            "/ui/mcp/oauth/callback?state={value}&error={value}&error_description={value}"
        ));
    }
    paths
}

#[tokio::test]
async fn nothing_from_outside_becomes_markup() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let place = Place::new();
    let store = place.store().await;
    for (number, nasty) in NASTY.iter().enumerate() {
        put_user(&store, nasty, "admin").await;
        let document = json!({
            "object_permission": {
                "mcp_servers": [nasty], "mcp_access_groups": [nasty], "mcp_tool_permissions": {*nasty: [nasty]},
            },
            "metadata": {*nasty: nasty},
        });
        let id = format!("{nasty}{number}");
        put_key(&store, &id, Some(nasty), &document.to_string()).await;
    }
    let whole = put_key(&store, "whole", Some(NASTY[0]), "{}").await;
    let servers = registering("one", &upstream, "allow_all_keys: true");
    let gateway = place.start(keyed(&servers)).start().await;
    let operator = Person::signed_in(&gateway, &whole, "").await;
    // Calls and sign-ins with markup in what their clients say.
    for nasty in NASTY {
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": nasty, "arguments": {nasty: nasty}},
        });
        for message in [message, echo(nasty)] {
            let request = gateway.post("/one/mcp", &message);
            let request = match reqwest::header::HeaderValue::from_str(nasty) {
                Ok(value) => request.header("user-agent", value),
                Err(_) => request,
            };
            answer(request).await;
        }
        provider.set(|modes| modes.refuses_people = Some((nasty.into(), Some(nasty.into()))));
        operator.open("/ui/connections").await;
        let page = operator.follow("/ui/connect").await;
        assert_harmless(&page.html(), nasty);
        assert_harmless(&operator.page("/ui/connections").await.html(), nasty);
    }
    let browser = operator.browser.cookies();
    // A session of a browser that calls itself markup.
    let other = Person::at(&gateway);
    let headers = [("origin", other.origin.as_str()), ("user-agent", NASTY[0])];
    let form = [("key", KEY), ("user_id", NASTY[1])];
    let got = other
        .browser
        .submit(&gateway.url("/ui/login"), &form, &headers)
        .await;
    assert_eq!(got.status, 303, "{got:?}");
    operator.browser.set_cookies(browser);

    let mut paths = pages();
    let rows = operator.open("/ui/activity?kind=sign_in").await;
    let page = Html::parse_document(rows.body.as_str().expect("a page"));
    let links = scraper::Selector::parse("tbody a").expect("selector");
    paths.extend(
        page.select(&links)
            .filter_map(|link| link.value().attr("href"))
            .map(str::to_owned),
    );
    for path in &paths {
        let got = operator.open(path).await;
        assert!(got.status < 500, "{path}: {got:?}");
        assert_harmless(got.body.as_str().unwrap_or_default(), path);
    }
    // Forms that come back.
    for nasty in NASTY {
        let all = [
            "alias", "user", "duration", "rpm", "server", "group", "tools", "user_id", "role", "email",
            "next",
        ];
        let form: Vec<(&str, &str)> = all.iter().map(|name| (*name, nasty)).collect();
        for path in ["/ui/keys", "/ui/users", "/ui/login"] {
            let got = operator.send(path, &form).await;
            assert!(matches!(got.status, 400 | 401 | 409 | 429), "{path}: {got:?}");
            assert_harmless(got.body.as_str().expect("a page"), path);
        }
    }
}

#[test]
fn no_text_breaks_out() {
    let mut runner = TestRunner::new(Config {
        cases: 64,
        ..Config::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let gateway = runtime.block_on(crate::harness::TestGateway::with_servers(
        "  one:\n    url: http://127.0.0.1:9/mcp\n",
    ));
    let person = runtime.block_on(Person::operator(&gateway));
    let pieces = prop::sample::select(vec![
        "<", ">", "\"", "'", "&", "/", "=", "xss", "img", " ", "!--", "é", "\u{2028}", "]]>", "&lt;",
    ]);
    let texts = prop::collection::vec(pieces, 1..20).prop_map(|pieces| pieces.concat());
    runner
        .run(&texts, |text| {
            runtime.block_on(async {
                let query = encoded(&[
                    ("search", &text),
                    ("user", &text),
                    ("server", &text),
                    ("user_id", &text),
                ]);
                for path in [
                    "/ui/keys",
                    "/ui/keys/new",
                    "/ui/users/one",
                    "/ui/activity",
                    "/ui/login",
                ] {
                    let got = person.open(&format!("{path}?{query}")).await;
                    assert_harmless(got.body.as_str().unwrap_or_default(), &text);
                }
            });
            Ok(())
        })
        .expect("holds");
}
