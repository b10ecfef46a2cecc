//! The console's style sheet, script and icon. They are in the program, and a name has a digest of what it names, so
//! that browsers keep them for good.

use crate::digest::sha256;
use crate::web::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use std::sync::LazyLock;

/// Where they are.
pub(super) const PATH: &str = "/ui/assets/{name}";

/// One file.
pub(super) struct Asset {
    /// Its path.
    pub(super) path: String,
    kind: &'static str,
    content: &'static [u8],
}

/// The style sheet.
pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("assets/console.css");
    Asset::new("css", "text/css; charset=utf-8", content)
});
/// The script.
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("assets/console.js");
    Asset::new("js", "text/javascript; charset=utf-8", content)
});
/// The icon.
pub(super) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("assets/icon.svg");
    Asset::new("svg", "image/svg+xml", content)
});

impl Asset {
    fn new(extension: &str, kind: &'static str, content: &'static [u8]) -> Self {
        let mark: String = sha256(content)[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            path: format!("/ui/assets/console-{mark}.{extension}"),
            kind,
            content,
        }
    }
}

/// The file at `path`.
pub(super) fn at(path: &str) -> Option<Response<Body>> {
    let assets = [&STYLE, &SCRIPT, &ICON];
    let asset = assets.into_iter().find(|asset| asset.path == path)?;
    let mut response = Response::new(Body::full(Bytes::from_static(asset.content)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    Some(response)
}
