//! A person's browser in front of the console: it signs in, sends forms as browsers do, and reads pages with a parser
//! that browsers would agree with.

use crate::browser::Browser;
use crate::harness::{Got, KEY, Start, TestGateway};
use scraper::{Html, Selector};
use std::collections::HashMap;
use vestibule_store::{DatabaseUrl, MasterKeys, NewApiKey, NewUser, Store, UserId};

/// A browser at one gateway.
pub(crate) struct Person<'g> {
    pub(crate) gateway: &'g TestGateway,
    pub(crate) browser: Browser,
    /// By what name the browser calls the gateway; what is sent there arrives at `gateway`.
    pub(crate) origin: String,
    /// What a proxy before the gateway adds.
    pub(crate) proxied: Vec<(&'static str, String)>,
}

impl<'g> Person<'g> {
    /// Nobody yet.
    pub(crate) fn at(gateway: &'g TestGateway) -> Self {
        Self {
            gateway,
            browser: Browser::new(),
            origin: format!("http://{}", gateway.address),
            proxied: Vec::new(),
        }
    }

    /// The same browser behind whose name there is another gateway by now.
    pub(crate) fn moved_to(self, gateway: &'g TestGateway) -> Self {
        Self { gateway, ..self }
    }

    /// Signed in with a key; `user` is who holds the master key.
    pub(crate) async fn signed_in(gateway: &'g TestGateway, key: &str, user: &str) -> Self {
        let person = Self::at(gateway);
        let got = person.sign_in(key, user).await;
        assert_eq!(got.status, 303, "{got:?}");
        person
    }

    /// Signed in with the master key as `operator`.
    pub(crate) async fn operator(gateway: &'g TestGateway) -> Self {
        Self::signed_in(gateway, KEY, "operator").await
    }

    pub(crate) async fn sign_in(&self, key: &str, user: &str) -> Got {
        self.send("/ui/login", &[("key", key), ("user_id", user)]).await
    }

    /// Opens a page from one of the gateway's own; redirects are not followed.
    pub(crate) async fn open(&self, path: &str) -> Got {
        self.open_from(path, "same-origin").await
    }

    /// The same, from a page of this kind of site.
    pub(crate) async fn open_from(&self, path: &str, site: &str) -> Got {
        let mut headers = vec![("sec-fetch-site", site)];
        headers.extend(self.proxied.iter().map(|(name, value)| (*name, value.as_str())));
        self.browser.open_with(&self.gateway.url(path), &headers).await
    }

    /// Opens an address, and follows redirects to wherever they lead until there is a page.
    pub(crate) async fn follow(&self, start: &str) -> Html {
        let mut to = start.to_owned();
        for _ in 0..20 {
            let path = to.strip_prefix(&self.origin).unwrap_or(&to);
            let got = if path.starts_with('/') {
                self.open(path).await
            } else {
                self.browser.open(path).await
            };
            match got.status {
                301..=303 => got.header("location").clone_into(&mut to),
                200 => match got.header("refresh").strip_prefix("0; url=") {
                    Some(next) => next.clone_into(&mut to),
                    None => return html(&got),
                },
                _ => panic!("{path}: {got:?}"),
            }
        }
        panic!("no end of redirects from {start}")
    }

    /// To the provider and as far as the address that it sends the browser to.
    pub(crate) async fn at_the_provider(&self, path: &str) -> String {
        let got = self.open(path).await;
        assert_eq!(got.status, 302, "{got:?}");
        let got = self.browser.open(got.header("location")).await;
        assert_eq!(got.status, 302, "{got:?}");
        got.header("location").to_owned()
    }

    /// A page that is there.
    pub(crate) async fn page(&self, path: &str) -> Html {
        let got = self.open(path).await;
        assert_eq!(got.status, 200, "{path}: {got:?}");
        html(&got)
    }

    /// Sends a form from a page of the gateway's own.
    pub(crate) async fn send(&self, path: &str, form: &[(&str, &str)]) -> Got {
        let mut headers = vec![
            ("origin", self.origin.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        headers.extend(self.proxied.iter().map(|(name, value)| (*name, value.as_str())));
        self.browser.submit(&self.gateway.url(path), form, &headers).await
    }

    /// Sends a form, and opens the page that follows.
    pub(crate) async fn done(&self, path: &str, form: &[(&str, &str)]) -> Html {
        let got = self.send(path, form).await;
        assert_eq!(got.status, 303, "{path}: {got:?}");
        self.page(got.header("location")).await
    }
}

/// The page, read as browsers do.
pub(crate) fn html(got: &Got) -> Html {
    Html::parse_document(got.body.as_str().expect("a page"))
}

/// The text of what is selected, one blank between words.
pub(crate) fn text(page: &Html, selector: &str) -> String {
    let selector = Selector::parse(selector).expect("a selector");
    let texts = page.select(&selector).flat_map(|element| element.text());
    let whole: String = texts.collect::<Vec<_>>().join(" ");
    whole.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The attribute of the first element that is selected.
pub(crate) fn attribute(page: &Html, selector: &str, name: &str) -> String {
    let selector = Selector::parse(selector).expect("a selector");
    let element = page.select(&selector).next().expect("an element");
    element.value().attr(name).expect("an attribute").to_owned()
}

/// How many elements are selected.
pub(crate) fn count(page: &Html, selector: &str) -> usize {
    page.select(&Selector::parse(selector).expect("a selector"))
        .count()
}

/// A database of a test's own that the test writes into beside the gateway.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.directory.path().join("v.db").display())
    }

    /// The keys to it, for the gateways of the test.
    pub(crate) fn environment() -> HashMap<String, String> {
        [(
            "LITELLM_SALT_KEY".to_owned(),
            "a salt that nobody guesses".to_owned(),
        )]
        .into()
    }

    /// A gateway with these servers.
    pub(crate) fn start(&self, text: impl Into<String>) -> Start {
        let mut start = Start::new(text).database(self.url());
        for (name, value) in Self::environment() {
            start = start.environment(&name, &value);
        }
        start
    }

    pub(crate) async fn store(&self) -> Store {
        let keys = MasterKeys::from_environment(&Self::environment()).expect("keys");
        let url = DatabaseUrl::parse(&self.url()).expect("a url");
        Store::open(&url, &keys).await.expect("opens")
    }
}

/// A person with this role.
pub(crate) async fn put_user(store: &Store, id: &str, role: &str) {
    let user = NewUser {
        id: UserId::new(id).expect("an id"),
        role: role.into(),
        alias: None,
        email: None,
        blocked: false,
    };
    store.put_user(&user, 1).await.expect("put");
}

/// A key of this person, which is `sk-{id}` with much behind it.
pub(crate) async fn put_key(store: &Store, id: &str, user: Option<&str>, document: &str) -> String {
    let text = format!("sk-{id}-0123456789abcdef");
    let key = NewApiKey {
        id: id.into(),
        digest: vestibule::admission::keys::digest_of(text.as_bytes()),
        hint: "sk-…cdef".into(),
        alias: Some(format!("{id} alias")),
        user_id: user.map(|user| UserId::new(user).expect("an id")),
        document: document.into(),
        blocked: false,
        expires_at: None,
        created_by: None,
    };
    store.put_api_key(&key, 1).await.expect("put");
    text
}
