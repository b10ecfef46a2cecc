//! What a page's form was filled in with.

use super::{Answer, layout};
use crate::app::Worker;
use crate::http::relay::read_body;
use crate::http::router::id_of;
use crate::web::error::{ErrorCode, Refusal};
use axum::body::Body;
use axum::extract::FromRequest;
use http::{Request, header};
use std::sync::Arc;
use url::form_urlencoded;

/// The largest form that is read: arguments of a tool may be long.
const LIMIT: usize = 1024 * 1024;

/// The most fields of a form: more than any page of ours has.
const FIELD_LIMIT: usize = 2000;

/// The fields of a form, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded`, from a body or a query. Lines end as they do in files, not as HTML
    /// forms have it.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text).into_owned();
        Self(
            pairs
                .map(|(name, value)| (name, value.replace("\r\n", "\n")))
                .collect(),
        )
    }

    /// [`Self::parse`], of no more fields than this.
    fn within(text: &[u8], limit: usize) -> Result<Self, Refusal> {
        if form_urlencoded::parse(text).nth(limit).is_some() {
            let message = format!("The form has more than {limit} fields.");
            return Err(Refusal::because(ErrorCode::FormUnreadable, message));
        }
        Ok(Self::parse(text))
    }

    /// A field, without the blanks around it; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// A field as it came.
    pub(crate) fn raw(&self, name: &str) -> &str {
        let mut all = self.0.iter();
        all.find(|(found, _)| found == name)
            .map_or("", |(_, value)| value)
    }

    /// A field that somebody filled in.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// Whether there is such a field, filled in or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.iter().any(|(found, _)| found == name)
    }

    /// Everything as it came, in its order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Puts `value` in the place of whatever the field has.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(found, _)| found != name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Every value of a field that may stand several times.
    pub(crate) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0
            .iter()
            .filter(move |(found, _)| found == name)
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    }
}

/// What is wrong with a form, field by field.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Errors(Vec<(String, String)>);

impl Errors {
    /// One error more, of the field `name`; of the whole form where that is empty.
    pub(crate) fn add(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.0.push((name.into(), message.into()));
    }

    /// What is wrong with the field `name`.
    pub(crate) fn of(&self, name: &str) -> Option<&str> {
        let mut all = self.iter();
        all.find(|(found, _)| *found == name).map(|(_, message)| message)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, message)| (name.as_str(), message.as_str()))
    }

    /// Adds those of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl FromRequest<Arc<Worker>> for Fields {
    type Rejection = Answer;

    async fn from_request(request: Request<Body>, worker: &Arc<Worker>) -> Result<Self, Answer> {
        let id = id_of(&request, worker);
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        let is_form = kind.is_none_or(|kind| {
            kind.as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"application/x-www-form-urlencoded")
        });
        let read = async {
            if !is_form {
                return Err(Refusal::new(ErrorCode::FormUnreadable));
            }
            read_body(body, LIMIT, worker.app.limits.body_timeout).await
        };
        let fields = match read.await {
            Ok(body) => Self::within(&body, FIELD_LIMIT),
            Err(refusal) => Err(refusal),
        };
        fields.map_err(|refusal| layout::bare_refusal(worker, refusal, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let mut fields = Fields::parse(b"a=+1+&b=&c=x&c=&c=y%26&d=1%0D%0A2");
        assert_eq!(fields.raw("d"), "1\n2");
        assert!(fields.has("b") && !fields.has("e"));
        fields.set("d", "");
        assert_eq!((fields.get("a"), fields.raw("a")), ("1", " 1 "));
        assert_eq!((fields.filled("b"), fields.filled("d")), (None, None));
        assert_eq!(fields.all("c").collect::<Vec<_>>(), ["x", "y&"]);
    }

    #[test]
    fn a_form_has_so_many_fields() {
        let form = b"a=1&a=2&a=3";
        assert_eq!(Fields::within(form, 3).expect("read").all("a").count(), 3);
        let refusal = Fields::within(form, 2).expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::FormUnreadable);
        assert!(refusal.message.contains("more than 2 fields"), "{refusal:?}");
    }
}
