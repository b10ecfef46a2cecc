//! Pages for people: plain HTML without scripts, everything from outside escaped. The failure page's first
//! lines are LiteLLM's, byte for byte.

use crate::ids::RequestId;
use crate::web::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// The texts that HTML gives a meaning, written so that it gives them none.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#x27;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Language, title and width, which the first lines leave out. HTML gives these tags their meaning wherever they stand.
const FOR_READERS: &str = "<html lang=\"en\"><title>Authentication failed</title>\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n";

/// Why a sign-in failed, for the person in front of the browser: a code, what happened, and what to do.
pub fn failure(error: &str, description: Option<&str>, steps: &[&str], id: RequestId) -> Response<Body> {
    let mut html = format!(
        "<html><body><h2>Authentication failed</h2>\n<p><strong>Error:</strong> {}</p>\n",
        escape(error)
    );
    if let Some(description) = description {
        html += &format!("<p>{}</p>\n", escape(description));
    }
    html += "<p>You can close this window and try again.</p>\n";
    for step in steps {
        html += &format!("<p>{}</p>\n", escape(step));
    }
    html += &format!("<p>Request id: {id}</p>\n{FOR_READERS}</body></html>");
    respond(StatusCode::BAD_REQUEST, html)
}

/// An HTML response that nobody may frame, keep or run scripts on.
pub fn respond(status: StatusCode, html: String) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(html)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
