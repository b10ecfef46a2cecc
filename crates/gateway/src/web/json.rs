//! JSON that nobody keeps: what every document and error of OAuth is answered with.

use crate::web::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// A JSON response with `no-store`, and with the `Pragma` that RFC 6749 section 5.1 wants beside it.
pub fn no_store(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_it() {
        let response = no_store(StatusCode::CREATED, "{}");
        assert_eq!(response.status(), 201);
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(headers[header::PRAGMA], "no-cache");
    }
}
