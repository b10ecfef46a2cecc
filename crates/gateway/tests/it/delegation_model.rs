//! Who comes in to which targets: every combination of servers, of names that lead nowhere and of places of the key,
//! against a model that is written down once more.

use crate::harness::{KEY, entry, keyed};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use vestibule::admission::{Principal, Targets};
use vestibule::app::App;
use vestibule::clock::Clock;
use vestibule::config;
use vestibule::policy::access;
use vestibule::policy::visibility::Whereabouts;
use vestibule::registry::Server;
use vestibule::web::error::ErrorCode;
use vestibule_store::{DatabaseUrl, MasterKeys, Store};

/// Every kind of server, and whether it lets callers in by itself.
const KINDS: [(&str, &str, bool); 8] = [
    (
        "delegated",
        "auth_type: oauth2\ndelegate_auth_to_upstream: true",
        true,
    ),
    ("transparent", "auth_type: true_passthrough", true),
    ("kept", "auth_type: oauth_delegate", false),
    ("flagged", "oauth_passthrough: true", false),
    ("plain", "extra_headers: [Authorization]", false),
    ("fixed", "auth_type: api_key\nauthentication_token: x", false),
    (
        "person",
        "auth_type: oauth2\ndelegate_auth_to_upstream: false",
        false,
    ),
    (
        "machine",
        "auth_type: oauth2\nclient_id: a\nclient_secret: b\ntoken_url: http://127.0.0.1:1/t",
        false,
    ),
];

/// Where what stands in the request.
const X: [Option<&str>; 4] = [None, Some(""), Some(KEY), Some("sk-wrong")];
const AUTHORIZATION: [Option<&str>; 5] = [
    None,
    Some("Bearer made-up"),
    Some("Basic bWFkZTp1cA=="),
    Some("KEY"),
    Some("bearer KEY"),
];

async fn app(with_key: bool) -> App {
    let servers: String = KINDS
        .iter()
        .map(|(name, fields, _)| entry(name, &format!("url: http://127.0.0.1:1/mcp\n{fields}")))
        .collect();
    let text = if with_key {
        keyed(&servers)
    } else {
        format!("mcp_servers:\n{servers}")
    };
    let loaded = config::load(&text, &HashMap::new());
    let settings = loaded
        .settings
        .unwrap_or_else(|| panic!("{:#?}", loaded.findings));
    let keys = MasterKeys::from_environment(&HashMap::new()).expect("keys");
    let url = DatabaseUrl::parse("sqlite::memory:").expect("a database");
    let store = Store::open(&url, &keys).await.expect("opens");
    let (clock, _) = Clock::manual();
    App::build(
        settings,
        &keys,
        clock,
        Handle::current(),
        true,
        Some(Arc::new(store)),
    )
    .expect("builds")
}

/// The model: the key counts where it is; without one, the servers have a say, and all of them.
fn expected(
    with_key: bool,
    targets: &[(&str, bool)],
    resolved: bool,
    x: Option<&str>,
    authorization: Option<&str>,
) -> Result<Principal, ErrorCode> {
    let x = x.filter(|value| !value.is_empty());
    let brings_the_key = authorization.is_some_and(|value| value.ends_with("KEY"));
    let all = |holds: fn(&(&str, bool)) -> bool| resolved && !targets.is_empty() && targets.iter().all(holds);
    let opted_in = all(|(_, open)| *open);
    match (with_key, x, authorization) {
        (_, None, _) if opted_in && !(with_key && brings_the_key) => Ok(Principal::Delegated),
        (false, ..) => Ok(Principal::Anyone),
        (true, Some(KEY), _) => Ok(Principal::Master),
        (true, None, None) => Err(ErrorCode::MissingKey),
        (true, None, Some(_)) if brings_the_key && all(|(name, _)| *name == "kept") => {
            Err(ErrorCode::KeyInTheWay)
        }
        (true, None, Some(_)) if brings_the_key => Ok(Principal::Master),
        (true, ..) => Err(ErrorCode::WrongKey),
    }
}

fn headers(x: Option<&str>, authorization: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name, value: Option<&str>| {
        if let Some(value) = value {
            let value = HeaderValue::from_str(&value.replace("KEY", KEY)).expect("a value");
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    add("x-litellm-api-key", x);
    add("authorization", authorization);
    headers
}

#[tokio::test]
async fn admission_is_what_the_model_says() {
    let mut without_key = 0;
    for with_key in [true, false] {
        let app = app(with_key).await;
        let kinds: Vec<Option<usize>> = (0..KINDS.len()).map(Some).chain([None]).collect();
        // One, two and three targets; `None` is a place that is left empty.
        for (first, second, third) in kinds.iter().flat_map(|a| {
            let kinds = &kinds;
            kinds
                .iter()
                .flat_map(move |b| kinds.iter().map(move |c| (*a, *b, *c)))
        }) {
            let chosen: Vec<_> = [first, second, third]
                .into_iter()
                .flatten()
                .map(|at| KINDS[at])
                .collect();
            let servers: Vec<Arc<Server>> = chosen
                .iter()
                .map(|(name, ..)| {
                    Arc::clone(
                        app.registry
                            .seen_by(Whereabouts::Internal)
                            .by_name(name)
                            .expect("a server"),
                    )
                })
                .collect();
            let described: Vec<(&str, bool)> = chosen.iter().map(|(name, _, open)| (*name, *open)).collect();
            for all_resolved in [true, false] {
                let targets = Targets {
                    servers: &servers,
                    all_resolved,
                };
                for x in X {
                    for authorization in AUTHORIZATION {
                        let got = app.gate.admit_to(&headers(x, authorization), targets);
                        let got = got
                            .map(|admission| admission.principal)
                            .map_err(|refusal| refusal.code);
                        let model = expected(with_key, &described, all_resolved, x, authorization);
                        assert_eq!(
                            got, model,
                            "{described:?} {all_resolved} {x:?} {authorization:?} {with_key}"
                        );
                        without_key += usize::from(got == Ok(Principal::Delegated));
                    }
                }
            }
        }
    }
    assert!(without_key > 0);
}

#[tokio::test]
async fn without_a_key_a_caller_uses_no_server_that_wants_one() {
    let app = app(true).await;
    let delegated = app.registry.seen_by(Whereabouts::Internal).by_name("delegated");
    let admission = app
        .gate
        .admit_to(&HeaderMap::new(), Targets::one(delegated))
        .expect("admitted");
    for server in app.registry.all() {
        let open = KINDS.iter().any(|(name, _, open)| *name == server.name && *open);
        assert_eq!(access::may_use(&admission, server), open, "{}", server.name);
    }
    assert!(app.gate.admit(&HeaderMap::new()).is_err());
    assert!(app.gate.admit_to(&HeaderMap::new(), Targets::one(None)).is_err());
}
