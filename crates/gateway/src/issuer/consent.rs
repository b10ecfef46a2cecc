//! The gateway's own consent, where one client at the provider serves many MCP clients: the provider's consent is
//! remembered for that one client, so without ours any client could ride on it (MCP Security Best Practices,
//! "Confused Deputy"). Asked once for a client, its redirect URI and a server; remembered by the person's browser.

use crate::digest::sha256_of_parts;
use crate::web::body::Body;
use crate::web::{cookie, page};
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::borrow::Cow;
use std::time::Duration;
use vestibule_oauth::redirect_uri::JudgedRedirectUri;
use vestibule_store::keys::{KeyRing, MasterKeys};

/// Names the browser, so that a page shown to one person cannot be answered by another.
const BROWSER: &str = "vestibule_browser";
/// The consents given, sealed.
const MEMORY: &str = "vestibule_consents";
/// How long a page may be looked at.
const PAGE_LIFE: Duration = Duration::from_secs(600);
/// How long a consent is remembered.
const MEMORY_LIFE: Duration = Duration::from_secs(180 * 24 * 60 * 60);
/// Scopes consented to that one browser remembers, which a cookie has to hold; the oldest are asked for again.
const MEMORIES: usize = 150;
const DIGEST: usize = 16;

/// One scope that one client may have of one server.
type Fact = [u8; DIGEST];

/// Asks and remembers.
pub(super) struct Consents {
    tickets: KeyRing,
    memory: KeyRing,
}

/// What a person is asked about.
pub(super) struct Question<'q> {
    /// The server's name.
    pub(super) server: &'q str,
    /// The server's id.
    pub(super) server_id: &'q str,
    /// What the client calls itself.
    pub(super) client_name: Option<&'q str>,
    /// Where the answer goes.
    pub(super) redirect_uri: &'q JudgedRedirectUri,
    /// The scopes that the provider will be asked for, whoever named them.
    pub(super) scope: Option<&'q str>,
    /// The whole request, to which the answer is bound.
    pub(super) query: &'q str,
    /// By what id the record has the sign-in, where the person is asked.
    pub(super) flow: &'q str,
}

/// The browser in front of the person.
#[derive(Clone, Copy)]
pub(super) struct Browser<'h> {
    /// Of its request.
    pub(super) headers: &'h HeaderMap,
    /// In seconds since 1970.
    pub(super) now: u64,
    /// Whether it speaks https with us.
    pub(super) secure: bool,
}

/// What the person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Go on.
    Approve,
    /// Not this client.
    Deny,
}

impl Consents {
    /// With rings for these purposes alone.
    pub(super) fn new(keys: &MasterKeys) -> Self {
        Self {
            tickets: keys.ring("consent-page"),
            memory: keys.ring("consent-memory"),
        }
    }

    /// Whether this browser's person consented to all of it before, at once or one by one.
    pub(super) fn remembers(&self, question: &Question<'_>, browser: Browser<'_>) -> bool {
        let memories = self.memories(browser);
        question.facts().iter().all(|fact| memories.contains(fact))
    }

    /// The `Set-Cookie` that remembers an approval.
    pub(super) fn remember(&self, question: &Question<'_>, browser: Browser<'_>) -> Option<HeaderValue> {
        let mut memories = self.memories(browser);
        let facts = question.facts();
        if facts.iter().all(|fact| memories.contains(fact)) {
            return None;
        }
        memories.retain(|memory| !facts.contains(memory));
        memories.extend(facts);
        let kept = memories.len().saturating_sub(MEMORIES);
        let sealed = self.memory.seal(
            &memories[kept..].concat(),
            browser.now + MEMORY_LIFE.as_secs(),
            &[browser.id()?.as_bytes()],
        )?;
        browser.set_cookie(MEMORY, &sealed)
    }

    /// They count in the browser that they were made in.
    fn memories(&self, browser: Browser<'_>) -> Vec<Fact> {
        let opened = || {
            let sealed = browser.cookie(MEMORY)?;
            self.memory
                .open(sealed.as_bytes(), browser.now, &[browser.id()?.as_bytes()])
        };
        let bytes = opened().unwrap_or_default();
        bytes
            .chunks_exact(DIGEST)
            .filter_map(|fact| fact.try_into().ok())
            .collect()
    }

    /// The page, bound to this browser and this request.
    ///
    /// # Panics
    /// When the system gives no random bytes.
    #[expect(
        clippy::expect_used,
        reason = "without randomness no browser is told from another"
    )]
    pub(super) fn page(&self, question: &Question<'_>, browser: Browser<'_>) -> Option<Response<Body>> {
        let id = browser.id().map_or_else(
            || {
                let mut bytes = [0; 16];
                rand::fill(&mut bytes).expect("the system gives random bytes");
                BASE64_URL_SAFE_NO_PAD.encode(bytes)
            },
            str::to_owned,
        );
        let ticket = self.tickets.seal(
            &[&question.digest(), question.flow.as_bytes()].concat(),
            browser.now + PAGE_LIFE.as_secs(),
            &[id.as_bytes(), question.server_id.as_bytes()],
        )?;
        let mut response = page::respond(StatusCode::OK, question.html(&ticket));
        let cookie = browser.set_cookie(BROWSER, &id)?;
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Some(response)
    }

    /// The sign-in of `ticket`, if that stood on a page that this browser got for this question.
    pub(super) fn answered(
        &self,
        ticket: &str,
        question: &Question<'_>,
        browser: Browser<'_>,
    ) -> Option<String> {
        let context = [browser.id()?.as_bytes(), question.server_id.as_bytes()];
        let opened = self.tickets.open(ticket.as_bytes(), browser.now, &context)?;
        let flow = opened.strip_prefix(&question.digest())?;
        String::from_utf8(flow.to_vec()).ok()
    }
}

impl<'h> Browser<'h> {
    /// The name that we gave it.
    fn id(self) -> Option<&'h str> {
        self.cookie(BROWSER).filter(|id| id.len() == 22)
    }

    fn cookie(self, name: &str) -> Option<&'h str> {
        cookie::get(self.headers, &cookie::of_this_host(name, self.secure))
    }

    fn set_cookie(self, name: &str, value: &str) -> Option<HeaderValue> {
        let name = cookie::of_this_host(name, self.secure);
        cookie::set(&name, value, "/", MEMORY_LIFE, self.secure)
    }
}

impl Question<'_> {
    /// What an approval grants: each scope to the client, which is what it calls itself and where it is answered; a
    /// loopback port changes with every start. Without a scope the provider gives what it likes, which is a grant of
    /// its own. A fact for each scope, so that who asks for less than was approved is not asked again.
    fn facts(&self) -> Vec<Fact> {
        let mut scopes: Vec<&str> = self
            .scope
            .unwrap_or_default()
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .collect();
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            scopes.push("");
        }
        let redirect_uri = without_port(self.redirect_uri);
        let fact = |scope: &str| {
            let parts = [
                self.server_id,
                self.client_name.unwrap_or_default(),
                &redirect_uri,
                scope,
            ];
            let mut short = [0; DIGEST];
            short.copy_from_slice(&sha256_of_parts(&parts.map(str::as_bytes))[..DIGEST]);
            short
        };
        scopes.into_iter().map(fact).collect()
    }

    /// All that the page says.
    fn digest(&self) -> [u8; 32] {
        let scope = self.scope.unwrap_or_default();
        sha256_of_parts(&[self.query.as_bytes(), scope.as_bytes()])
    }

    fn html(&self, ticket: &str) -> String {
        let client = page::escape(self.client_name.unwrap_or("An MCP client without a name"));
        let server = page::escape(self.server);
        let host = page::escape(self.redirect_uri.host());
        let scope = self.scope.map_or_else(
            || "what the server gives by default".to_owned(),
            |scope| format!("<code>{}</code>", page::escape(scope)),
        );
        let query = page::escape(self.query);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>Let {client} use {server}?</title>\
             <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;\
             margin:3rem auto;padding:0 1rem}}h1,dd{{overflow-wrap:anywhere}}dt{{opacity:.75}}dd{{margin:0 0 .7rem}}\
             button{{font:inherit;padding:.5rem 1.2rem;margin-right:.7rem}}</style></head>\n<body><h1>Let {client} use {server}?</h1>\n\
             <dl><dt>Client, as it calls itself</dt><dd>{client}</dd>\n\
             <dt>The answer goes to</dt><dd><strong>{host}</strong></dd>\n\
             <dt>MCP server</dt><dd>{server}</dd>\n<dt>Scopes</dt><dd>{scope}</dd></dl>\n\
             <p>Approve only if you started this sign-in yourself, just now, in that client. \
             {loopback}</p>\n\
             <form method=\"post\" action=\"?{query}\"><input type=\"hidden\" name=\"ticket\" value=\"{ticket}\">\
             <button type=\"submit\" name=\"decision\" value=\"approve\">Approve</button>\
             <button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button></form>\n</body></html>",
            loopback = if self.redirect_uri.trust() == vestibule_oauth::Trust::Loopback {
                "The answer stays on this computer; any program on it could have asked."
            } else {
                "You will be signed in at the host above."
            },
        )
    }
}

/// A loopback redirect URI without its port (RFC 8252 section 7.3); any other whole.
fn without_port(uri: &JudgedRedirectUri) -> Cow<'_, str> {
    let text = uri.as_str();
    let whole = Cow::Borrowed(text);
    if uri.trust() != vestibule_oauth::Trust::Loopback {
        return whole;
    }
    let Some(start) = text.find("://").map(|at| at + 3) else {
        return whole;
    };
    let end = text[start..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |at| start + at);
    let (authority, rest) = (&text[start..end], &text[end..]);
    match authority.rsplit_once(':') {
        // What is left of an IPv6 address ends in its bracket.
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Cow::Owned(format!("{}{host}{rest}", &text[..start]))
        }
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use vestibule_oauth::RedirectRules;
    use vestibule_oauth::origin::Origin;

    fn consents() -> Consents {
        Consents::new(&MasterKeys::from_environment(&HashMap::new()).expect("keys"))
    }

    fn judged(uri: &str) -> JudgedRedirectUri {
        let origin = Origin::parse("https://gw.example").expect("origin");
        RedirectRules::default().judge(uri, &origin).expect("trusted")
    }

    fn question<'q>(redirect_uri: &'q JudgedRedirectUri, scope: Option<&'q str>) -> Question<'q> {
        Question {
            server: "one",
            server_id: "id",
            client_name: Some("Client"),
            redirect_uri,
            scope,
            query: "client_id=x",
            flow: "f",
        }
    }

    fn browser(headers: &HeaderMap, secure: bool) -> Browser<'_> {
        Browser {
            headers,
            now: 100,
            secure,
        }
    }

    /// As a browser would send them.
    fn cookies<'c>(lines: impl IntoIterator<Item = &'c HeaderValue>) -> HeaderMap {
        let pairs = lines.into_iter().map(|line| {
            let pair = line.to_str().expect("text").split(';').next().expect("a pair");
            (header::COOKIE, HeaderValue::from_str(pair).expect("value"))
        });
        let mut headers = HeaderMap::new();
        headers.extend(pairs);
        headers
    }

    /// The `Set-Cookie` that names a browser.
    fn named(consents: &Consents, question: &Question<'_>, secure: bool) -> HeaderValue {
        let page = consents.page(question, browser(&HeaderMap::new(), secure));
        page.expect("a page").headers()[header::SET_COOKIE].clone()
    }

    fn approved(uri: &str, scope: Option<&str>) -> (Consents, HeaderMap) {
        let (consents, uri) = (consents(), judged(uri));
        let question = question(&uri, scope);
        let name = named(&consents, &question, false);
        let memory = consents.remember(&question, browser(&cookies([&name]), false));
        let headers = cookies([&name, &memory.expect("remembered")]);
        (consents, headers)
    }

    #[test]
    fn what_was_approved_covers_less_and_never_more() {
        let uri = judged("http://localhost:1/cb");
        for (approved_scope, asked, covered) in [
            (Some("read"), Some("read"), true),
            (Some("read"), Some("read write"), false),
            (Some("read"), Some("reader"), false),
            (Some("write  read"), Some("read write"), true),
            (Some("read write"), Some("write"), true),
            (Some("read"), None, false),
            (None, None, true),
            (None, Some("read"), false),
        ] {
            let (consents, headers) = approved("http://localhost:1/cb", approved_scope);
            assert_eq!(
                consents.remembers(&question(&uri, asked), browser(&headers, false)),
                covered,
                "{approved_scope:?} {asked:?}"
            );
        }
    }

    #[test]
    fn of_a_loopback_address_all_but_the_port_counts() {
        for (approved_uri, asked, covered) in [
            ("http://localhost:1/cb", "http://localhost:2/cb", true),
            ("http://localhost/cb", "http://localhost:2/cb", true),
            ("http://[::1]:1/cb", "http://[::1]:2/cb", true),
            ("http://[::1]/cb", "http://[::1]:2/cb", true),
            ("http://localhost:1/cb", "http://localhost:1/other", false),
            ("http://localhost:1/cb", "http://localhost:1/cb?x=1", false),
            ("http://localhost:1/cb", "http://127.0.0.1:1/cb", false),
            ("http://localhost:1/cb", "https://localhost:1/cb", false),
        ] {
            let (consents, headers) = approved(approved_uri, Some("read"));
            let uri = judged(asked);
            assert_eq!(
                consents.remembers(&question(&uri, Some("read")), browser(&headers, false)),
                covered,
                "{approved_uri} {asked}"
            );
        }
    }

    #[test]
    fn over_https_a_sibling_subdomain_plants_nothing() {
        let (consents, uri) = (consents(), judged("http://localhost:1/cb"));
        let question = question(&uri, Some("read"));
        let name = named(&consents, &question, true);
        let memory = consents
            .remember(&question, browser(&cookies([&name]), true))
            .expect("remembered");
        for cookie in [&name, &memory] {
            let text = cookie.to_str().expect("text");
            assert!(text.starts_with("__Host-vestibule_"), "{text}");
            assert!(
                text.contains("; Path=/;") && text.ends_with("; Secure") && !text.contains("Domain"),
                "{text}"
            );
        }
        let own = cookies([&name, &memory]);
        assert!(consents.remembers(&question, browser(&own, true)));
        // The attacker's own approval, in another browser, with or without the attacker's browser name.
        let other = named(&consents, &question, true);
        let planted = cookies([&other, &memory]);
        assert!(!consents.remembers(&question, browser(&planted, true)));
        let nameless = cookies([&memory]);
        assert!(!consents.remembers(&question, browser(&nameless, true)));
        // Names without the prefix can be set from anywhere.
        let plain = [&name, &memory].map(|cookie| {
            let text = cookie.to_str().expect("text").replace("__Host-", "");
            HeaderValue::from_str(&text).expect("value")
        });
        assert!(!consents.remembers(&question, browser(&cookies(&plain), true)));
    }

    #[test]
    fn an_answer_is_to_what_the_page_said() {
        let (consents, uri) = (consents(), judged("http://localhost:1/cb"));
        let name = named(&consents, &question(&uri, None), false);
        let headers = cookies([&name]);
        let browser = browser(&headers, false);
        let asked = question(&uri, Some("read"));
        let ticket = consents
            .tickets
            .seal(
                &[&asked.digest(), &b"f"[..]].concat(),
                200,
                &[browser.id().expect("a name").as_bytes(), b"id"],
            )
            .expect("sealed");
        let flow = consents.answered(&ticket, &asked, browser);
        assert_eq!(flow.as_deref(), Some("f"));
        // The scopes were learned anew in between.
        let more = question(&uri, Some("read write"));
        assert_eq!(consents.answered(&ticket, &more, browser), None);
        let later = Browser { now: 200, ..browser };
        assert_eq!(consents.answered(&ticket, &asked, later), None);
    }

    #[test]
    fn a_cookie_holds_as_much_as_is_remembered() {
        let many: Vec<String> = (0..500).map(|n| format!("scope-{n}")).collect();
        let (consents, headers) = approved("http://localhost:1/cb", Some(&many.join(" ")));
        let cookie = headers.get_all(header::COOKIE).iter().map(HeaderValue::len).max();
        assert!(cookie.is_some_and(|length| length < 3800), "{cookie:?}");
        assert_eq!(consents.memories(browser(&headers, false)).len(), MEMORIES);
    }
}
