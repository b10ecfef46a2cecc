//! The gateway's own consent is about the scopes that the provider is really asked for.

use crate::harness::{Got, Start, TestGateway, entry, got, keyed};
use vestibule_testkit::free_addr;

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A server whose people sign in with a configured client; nobody has to answer at its addresses.
pub(crate) fn shared(name: &str, authorization_url: &str, more: &str) -> String {
    let nobody = free_addr();
    entry(
        name,
        &format!(
            "url: http://{nobody}/mcp\nauth_type: oauth2\noauth2_flow: authorization_code\nclient_id: shared-id\n\
             client_secret: shared-secret\nauthorization_url: {authorization_url}\ntoken_url: http://{nobody}/token\n{more}"
        ),
    )
}

pub(crate) fn query(scope: &str, redirect_uri: &str) -> String {
    format!(
        "/one/authorize?response_type=code&client_id=one&state=s&code_challenge={CHALLENGE}&code_challenge_method=S256\
         &redirect_uri={redirect_uri}{scope}"
    )
}

/// A browser that keeps every cookie.
struct Person<'g> {
    gateway: &'g TestGateway,
    cookies: Vec<String>,
}

impl Person<'_> {
    async fn opens(&self, path: &str) -> Got {
        let request = self.gateway.http.get(self.gateway.url(path));
        got(request.header("cookie", self.cookies.join("; "))).await
    }

    /// Reads the page and approves; gives where the browser goes.
    async fn approves(&mut self, path: &str) -> String {
        let page = self.opens(path).await;
        assert_eq!(page.status, 200, "{page:?}");
        self.keep(&page);
        let text = page.body.as_str().expect("a page");
        let (_, rest) = text.split_once("name=\"ticket\" value=\"").expect("a ticket");
        let ticket = rest.split('"').next().expect("its value");
        let request = self.gateway.http.post(self.gateway.url(path));
        let request = request
            .header("cookie", self.cookies.join("; "))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("ticket={ticket}&decision=approve"));
        let answer = got(request).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        self.keep(&answer);
        answer.header("location").to_owned()
    }

    fn keep(&mut self, got: &Got) {
        for line in got.headers.get_all("set-cookie") {
            let pair = line.to_str().expect("text").split(';').next().expect("a pair");
            let name = pair.split_once('=').expect("a name").0;
            self.cookies
                .retain(|kept| kept.split_once('=').is_none_or(|(other, _)| other != name));
            self.cookies.push(pair.to_owned());
        }
    }
}

pub(crate) const LOOPBACK: &str = "http%3A%2F%2F127.0.0.1%3A60108%2Fcallback";

#[tokio::test]
async fn the_page_shows_what_is_sent() {
    for (url, more, asked, shown) in [
        ("https://idp.example/authorize", "scopes: [a, b]", "", "a b"),
        ("https://idp.example/authorize", "scopes: [a, b]", "&scope=c", "c"),
        ("https://idp.example/authorize?scope=op", "", "&scope=c", "op"),
        (
            "https://auth.atlassian.com/authorize",
            "scopes: [a]",
            "",
            "a offline_access",
        ),
        (
            "https://auth.atlassian.com/authorize",
            "",
            "&scope=c",
            "c offline_access",
        ),
    ] {
        let gateway = TestGateway::with_servers(&shared("one", url, more)).await;
        let mut person = Person {
            gateway: &gateway,
            cookies: Vec::new(),
        };
        let path = query(asked, LOOPBACK);
        let page = person.opens(&path).await;
        let text = page.body.as_str().expect("a page");
        assert!(text.contains(&format!("<code>{shown}</code>")), "{url}: {text}");
        let location = person.approves(&path).await;
        let sent = format!("scope={}", shown.replace(' ', "+"));
        assert!(
            location.split(['?', '&']).any(|pair| pair == sent),
            "{url}: {location}"
        );
    }
}

#[tokio::test]
async fn an_approval_lets_no_further_scope_through_and_no_other_path() {
    let servers = shared("one", "https://idp.example/authorize", "");
    let gateway = Start::new(keyed(&servers))
        .environment("PROXY_BASE_URL", "https://gw.example")
        .start()
        .await;
    let mut person = Person {
        gateway: &gateway,
        cookies: Vec::new(),
    };
    person.approves(&query("&scope=read+write", LOOPBACK)).await;
    assert!(
        person
            .cookies
            .iter()
            .any(|pair| pair.starts_with("__Host-vestibule_consents=")),
        "{:?}",
        person.cookies
    );
    let other_port = "http%3A%2F%2F127.0.0.1%3A1%2Fcallback";
    let other_path = "http%3A%2F%2F127.0.0.1%3A60108%2Felsewhere";
    for (scope, redirect_uri, asks) in [
        ("&scope=read+write", LOOPBACK, false),
        ("&scope=read", other_port, false),
        ("&scope=read", other_path, true),
        ("&scope=read+admin", LOOPBACK, true),
        ("", LOOPBACK, true),
    ] {
        let got = person.opens(&query(scope, redirect_uri)).await;
        let expected = if asks { 200 } else { 302 };
        assert_eq!(got.status, expected, "{scope} {redirect_uri}: {got:?}");
    }
}

#[tokio::test]
async fn where_no_provider_is_found_nobody_is_asked() {
    let nobody = free_addr();
    let servers = entry(
        "one",
        &format!(
            "url: http://{nobody}/mcp\nauth_type: oauth2\noauth2_flow: authorization_code\nclient_id: shared-id\nclient_secret: x"
        ),
    );
    let gateway = TestGateway::with_servers(&servers).await;
    let got = got(gateway.http.get(gateway.url(&query("", LOOPBACK)))).await;
    assert_eq!(got.status, 302, "{got:?}");
    assert!(
        got.header("location").contains("error=temporarily_unavailable"),
        "{got:?}"
    );
}
