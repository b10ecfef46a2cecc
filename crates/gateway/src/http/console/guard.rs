//! What holds for every page of the console. A form counts when it comes from a page of this gateway (its `Origin` is
//! ours), and no answer may be kept, framed, or run anything but our own script.

use super::{Answer, layout};
use crate::app::Worker;
use crate::http::router::{id_of, peer_of};
use crate::web::error::{ErrorCode, Refusal, shown};
use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::IntoResponse;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use std::sync::Arc;
use vestibule_oauth::origin::Origin;

/// What a page may do: show our style, our script, our pictures, and pictures of tools' answers.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// By what name the browser calls the gateway, as far as the gateway knows.
#[derive(Clone)]
pub(super) struct Here(pub(super) Origin);

/// Around every page.
pub(super) async fn layer(State(worker): State<Arc<Worker>>, request: Request<Body>, next: Next) -> Answer {
    let id = id_of(&request, &worker);
    let (mut parts, body) = request.into_parts();
    let mut response = match judge(&worker, &parts) {
        Ok(origin) => {
            parts.extensions.insert(Here(origin));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => layout::bare_refusal(&worker, refusal, id),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn judge(worker: &Worker, parts: &Parts) -> Result<Origin, Refusal> {
    let ours = worker.app.origin.of(&parts.uri, &parts.headers, peer_of(parts));
    let ours = ours.ok_or_else(|| Refusal::new(ErrorCode::NoOrigin))?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        check_form(&parts.headers, &ours)?;
    }
    Ok(ours)
}

/// Browsers name the page that a form is sent from, and let no page name another.
pub(super) fn check_form(headers: &HeaderMap, ours: &Origin) -> Result<(), Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let Some(named) = text(header::ORIGIN) else {
        return match site {
            Some(b"same-origin") => Ok(()),
            _ => Err(Refusal::because(
                ErrorCode::ForeignForm,
                "The form does not say which page it comes from.",
            )),
        };
    };
    if named != "null" && Origin::parse(named).is_ok_and(|origin| origin == *ours) {
        return Ok(());
    }
    // The browser is at this very host or says that the page is ours: it is the gateway that has its own name wrong.
    let own_page = site == Some(b"same-origin")
        || (site.is_none() && Origin::parse(named).is_ok_and(|origin| is_asked_at(headers, &origin)));
    if own_page {
        Err(mismatch(named, ours))
    } else {
        Err(Refusal::new(ErrorCode::ForeignForm))
    }
}

/// Where somebody came from who follows a link that does something.
pub(super) enum Came {
    /// From a page of ours, or by themselves.
    FromHere,
    /// From elsewhere, or nobody can say.
    FromElsewhere,
}

/// Judges a link that does something.
///
/// # Errors
/// [`ErrorCode::OriginMismatch`] when it is on a page of ours that has another origin than we know.
pub(super) fn check_link(headers: &HeaderMap, ours: &Origin) -> Result<Came, Refusal> {
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
    let from = referer.and_then(|referer| Origin::of(&url::Url::parse(referer).ok()?));
    if let Some(from) = &from
        && from != ours
        && is_asked_at(headers, from)
    {
        return Err(mismatch(&from.to_string(), ours));
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let own = match site {
        Some(site) => matches!(site, b"same-origin" | b"none"),
        None => from.is_some_and(|from| from == *ours),
    };
    Ok(if own { Came::FromHere } else { Came::FromElsewhere })
}

/// The page of the console that a form stood on, as a path. Browsers name it, since our pages have them do so.
pub(super) fn page_before(headers: &HeaderMap, ours: &Origin) -> Option<String> {
    let url = url::Url::parse(headers.get(header::REFERER)?.to_str().ok()?).ok()?;
    let of_ours = Origin::of(&url).is_some_and(|origin| origin == *ours) && super::owns(url.path());
    of_ours.then(|| url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
}

/// Whether this request went to the host of `origin`, or says that it did before it came through a proxy.
fn is_asked_at(headers: &HeaderMap, origin: &Origin) -> bool {
    let hosts = [header::HOST, HeaderName::from_static("x-forwarded-host")];
    let mut named = hosts
        .into_iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    named.any(|host| Origin::from_authority(origin.scheme(), host).is_ok_and(|host| host == *origin))
}

/// What an operator has to set so that the gateway knows the name that browsers know.
pub(super) fn mismatch(seen: &str, expected: &Origin) -> Refusal {
    let seen = shown(seen, 200);
    Refusal::because(
        ErrorCode::OriginMismatch,
        format!(
            "Your browser is at {seen}, and the gateway takes itself for {expected}. Set PROXY_BASE_URL={seen}, or set \
             general_settings.use_x_forwarded_for with the proxy's address in mcp_trusted_proxy_ranges and let the proxy \
             send X-Forwarded-Proto and X-Forwarded-Host."
        ),
    )
}

/// On to another page, by GET.
pub(super) fn see_other(path: &str) -> Response<Body> {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(headers: &[(&'static str, &'static str)]) -> Option<ErrorCode> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let ours = Origin::parse("http://gw.example:4000").expect("origin");
        check_form(&headers, &ours).err().map(|refusal| refusal.code)
    }

    #[test]
    fn forms_of_our_own_pages_count() {
        let foreign = Some(ErrorCode::ForeignForm);
        let mismatch = Some(ErrorCode::OriginMismatch);
        for (headers, expected) in [
            (vec![("origin", "http://gw.example:4000")], None),
            (vec![("origin", "HTTP://GW.example:4000")], None),
            (vec![("sec-fetch-site", "same-origin")], None),
            (vec![], foreign),
            (vec![("sec-fetch-site", "same-site")], foreign),
            (vec![("sec-fetch-site", "none")], foreign),
            (
                vec![("origin", "null"), ("sec-fetch-site", "cross-site")],
                foreign,
            ),
            (vec![("origin", "null")], foreign),
            (vec![("origin", "")], foreign),
            (vec![("origin", "https://evil.example")], foreign),
            (vec![("origin", "http://gw.example:4000.evil.example")], foreign),
            (vec![("origin", "http://gw.example:4001")], foreign),
            (
                vec![("origin", "https://gw.example"), ("host", "gw.example")],
                mismatch,
            ),
            (
                vec![
                    ("origin", "https://public.example"),
                    ("host", "gw.example:4000"),
                    ("x-forwarded-host", "public.example"),
                ],
                mismatch,
            ),
            (
                vec![
                    ("origin", "https://public.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                mismatch,
            ),
            (
                vec![
                    ("origin", "https://gw.example"),
                    ("host", "gw.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
                foreign,
            ),
        ] {
            assert_eq!(judged(&headers), expected, "{headers:?}");
        }
    }
}
