//! The server's endpoint, asked without a credential: what it answers, and how it asks for one.

use super::advice::{Advice, line, upstream, you};
use super::mode::Mode;
use super::walk::{PATIENCE, Unasked, Walk};
use super::{Finding, Verdict};
use crate::net::pool::SendFault;
use crate::net::stream::UpstreamBody;
use crate::net::transport::shown;
use crate::web::error::shown as plain;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::json;
use tokio::time::timeout;
use url::{Position, Url};
use vestibule_oauth::metadata::endpoint_url;
use vestibule_oauth::parse_bearer;

/// Redirects that a call follows.
const REDIRECTS: usize = 3;
/// The newest revision with `initialize`.
const REVISION: &str = "2025-11-25";
/// Of `Date`: an IMF-fixdate (RFC 9110 section 5.6.7) is a date of RFC 5322.
const DATES: DateTimeParser = DateTimeParser::new();

impl Walk {
    pub(super) async fn endpoint(&mut self) -> Option<Finding> {
        let (mut url, _) = self.address.clone().filter(|_| self.reached)?;
        for hop in 0..=REDIRECTS {
            let head = match self.ask(&url).await {
                Ok(response) => response.into_parts().0,
                Err(why) => return Some(self.unanswered(why)),
            };
            if !head.status.is_redirection() {
                self.note(&head);
                let finding = self.judge(head.status, kind(&head));
                if finding.verdict != Verdict::Ok && self.is_event_stream(&url).await {
                    self.reached = false;
                    return Some(other_transport(&finding.seen, "sse"));
                }
                return Some(if hop == 0 { finding } else { moved(finding, &url) });
            }
            match redirected(&head, &url) {
                Some(next) if matches!(head.status.as_u16(), 307 | 308) && next.origin() == url.origin() => {
                    url = next;
                }
                other => {
                    self.reached = false;
                    return Some(not_followed(&head, &url, other).advise([upstream(
                        "redirect a POST with 307 or 308 within the same origin, or not at all",
                    )]));
                }
            }
        }
        Some(
            Finding::fault(format!("more than {REDIRECTS} redirects, one after the other"))
                .advise([upstream("end the redirects")]),
        )
    }

    /// Nothing came, so there is nothing to go on with.
    pub(super) fn unanswered(&mut self, why: String) -> Finding {
        self.reached = false;
        Finding::fault(why).advise([
            you("check that url is the MCP endpoint: scheme, port and path"),
            upstream("look at the server's log"),
        ])
    }

    /// Keeps what an answer to a request without a credential says.
    pub(super) fn note(&mut self, head: &Parts) {
        let challenges = head.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = challenges.filter_map(|value| value.to_str().ok());
        let date = head.headers.get(header::DATE);
        let date = date.and_then(|value| DATES.parse_timestamp(value.as_bytes()).ok());
        self.unasked = Some(Unasked {
            status: head.status.as_u16(),
            challenges: challenges.map(str::to_owned).collect(),
            date: date.and_then(|date| u64::try_from(date.as_second()).ok()),
        });
    }

    /// `initialize` as a client without a credential sends it.
    async fn ask(&self, url: &Url) -> Result<Response<UpstreamBody>, String> {
        let body = json!({
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": REVISION,
                "capabilities": {},
                "clientInfo": {"name": "vestibule", "version": env!("CARGO_PKG_VERSION")},
            },
        });
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        self.send(url, request).await
    }

    /// Whether the url answers `initialize` as Streamable HTTP has it.
    pub(super) async fn is_streamable_http(&self, url: &Url) -> bool {
        let answer = self.ask(url).await;
        answer.is_ok_and(|response| {
            let head = response.into_parts().0;
            head.status.is_success() && is_mcp(kind(&head))
        })
    }

    /// Sends a request with the headers that every one has. The body of the answer may be an endless stream.
    pub(super) async fn send(
        &self,
        url: &Url,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<UpstreamBody>, String> {
        let target: Uri = url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .map_err(|_| "the url cannot be sent in a request".to_owned())?;
        *request.uri_mut() = target;
        for name in [header::HOST, header::USER_AGENT] {
            if let Some(value) = self.server.base_headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let (_, pool) = self.address.as_ref().ok_or("there is no address")?;
        let limit = PATIENCE.min(self.server.first_byte_timeout);
        match timeout(limit, pool.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(SendFault::Unreachable(why))) => Err(format!("it cannot be reached ({why})")),
            Ok(Err(SendFault::ConnectTimeout)) => Err("it takes no connection in time".into()),
            Ok(Err(SendFault::Closed(why))) => Err(format!("it closed without an answer ({why})")),
            Ok(Err(SendFault::NotHttp(why))) => Err(format!("what came is not HTTP ({why})")),
            // A pool speaks HTTP itself.
            Ok(Err(SendFault::Bridge(_))) | Err(_) => {
                Err(format!("no answer within {} s", limit.as_secs_f64()))
            }
        }
    }

    /// With the credential the answer may be another one, and a later step sees it.
    pub(super) fn unless_asked_again(&self, finding: String) -> Finding {
        let again = matches!(
            self.mode,
            Mode::Machine { .. } | Mode::Fixed | Mode::Own | Mode::Signed(_) | Mode::Exchanged(_)
        );
        if again || self.has_static_headers {
            Finding::warning(format!("{finding}, without a credential"))
        } else {
            Finding::fault(finding)
        }
    }

    fn judge(&self, status: StatusCode, kind: &str) -> Finding {
        let seen = answered(status, kind);
        let mcp = is_mcp(kind);
        let otherwise = |finding: String| self.unless_asked_again(finding);
        match status.as_u16() {
            200..=299 if mcp => match self.mode {
                Mode::Open => Finding::ok(seen),
                _ => Finding::ok(format!("{seen}: initialize needs no credential here")),
            },
            200..=299 => otherwise(format!("{seen}, which is not MCP")).advise([you(
                "check that url is the MCP endpoint; what answers looks like something else, perhaps a page for people",
            )]),
            401 => Finding::ok(format!("{seen}: it asks for a credential")),
            403 if matches!(self.mode, Mode::Signed(_)) => {
                Finding::ok(format!("{seen}: it asks for a signature"))
            }
            403 => Finding::warning(format!("{seen}, to a request without a credential")).advise([upstream(
                "answer 401 with a challenge where a credential is missing; a filter in front of the server may be in \
                 the way",
            )]),
            404 => otherwise(format!("{seen}: there is nothing at this path"))
                .advise([you("check the path of url; it has to be the MCP endpoint itself")]),
            405 => otherwise(format!("{seen}: this path takes no POST")).advise([you(
                "check that url is a Streamable HTTP endpoint",
            )]),
            500..=599 => otherwise(seen).advise([upstream("look at the server's log")]),
            _ => Finding::warning(format!("{seen}, to initialize without a credential")),
        }
    }

    pub(super) fn challenge(&self) -> Option<Finding> {
        let unasked = self.unasked.as_ref()?;
        let lines: Vec<&str> = unasked.challenges.iter().map(String::as_str).collect();
        let person = matches!(self.mode, Mode::Person(_) | Mode::Brought(_));
        if lines.is_empty() {
            return match unasked.status {
                401 if person => Some(
                    Finding::warning("none, so its metadata is looked for at the well-known places")
                        .advise([missing()]),
                ),
                401 => Some(Finding::ok("none")),
                _ => None,
            };
        }
        let Some(bearer) = parse_bearer(&lines) else {
            let scheme = lines[0].split([' ', ',']).next().unwrap_or_default();
            let seen = format!("{}, and no Bearer", plain(scheme, 40));
            return Some(if person {
                Finding::warning(seen).advise([missing()])
            } else {
                Finding::ok(seen)
            });
        };
        let metadata = bearer
            .resource_metadata
            .as_deref()
            .map(|text| Url::parse(text).map_or_else(|_| "that is no URL".to_owned(), |url| shown(&url)));
        let mut seen = match &metadata {
            Some(url) => format!("Bearer, metadata at {url}"),
            None => "Bearer, without resource_metadata".to_owned(),
        };
        if let Some(scope) = &bearer.scope {
            seen = format!("{seen}, scope \"{}\"", plain(scope, 200));
        }
        Some(match metadata {
            None if person => Finding::warning(seen).advise([missing()]),
            _ => Finding::ok(seen),
        })
    }
}

/// What was answered, in short.
pub(super) fn answered(status: StatusCode, kind: &str) -> String {
    let kind = match plain(kind, 60) {
        kind if kind.is_empty() => "no content type".to_owned(),
        kind => kind,
    };
    format!("status {}, {kind}", status.as_u16())
}

fn is_mcp(kind: &str) -> bool {
    kind.starts_with("application/json") || kind.starts_with("text/event-stream")
}

/// `Content-Type`, or nothing.
pub(super) fn kind(head: &Parts) -> &str {
    let kind = head.headers.get(header::CONTENT_TYPE);
    kind.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Where a redirect leads.
pub(super) fn redirected(head: &Parts, url: &Url) -> Option<Url> {
    let location = head.headers.get(header::LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

/// A redirect that no call follows.
pub(super) fn not_followed(head: &Parts, url: &Url, to: Option<Url>) -> Finding {
    let finding = Finding::fault(format!(
        "status {}: a redirect that is not followed, to {}",
        head.status.as_u16(),
        to.as_ref().map_or_else(|| "nowhere".to_owned(), shown)
    ));
    let line = to
        .filter(|next| leads_on(url, next))
        .map(|next| line("url", next.as_str(), "where the redirect leads, if you trust it"));
    finding.advise(line)
}

/// The url is of the transport `other`.
pub(super) fn other_transport(seen: &str, other: &str) -> Finding {
    let what = match other {
        "sse" => "asked with GET it is the event stream of HTTP+SSE (MCP 2024-11-05)",
        _ => "asked with POST it is a Streamable HTTP endpoint",
    };
    Finding::fault(format!("{seen}; {what}")).advise([line("transport", other, "what the url answers as")])
}

/// Whether the configuration may follow: not out of https, and to nothing that holds a secret.
fn leads_on(from: &Url, to: &Url) -> bool {
    let safe = from.scheme() != "https" || to.scheme() == "https";
    safe && to.query().is_none() && endpoint_url(to.as_str()).is_some()
}

fn missing() -> Advice {
    upstream("answer 401 with `WWW-Authenticate: Bearer resource_metadata=\"…\"` (RFC 9728 section 5.1)")
}

/// A call finds its way there too, by a detour.
fn moved(finding: Finding, url: &Url) -> Finding {
    let seen = format!(
        "{}, at {} after a redirect that every call follows",
        finding.seen,
        shown(url)
    );
    let line = (url.query().is_none()).then(|| line("url", url.as_str(), "spares every call the redirect"));
    Finding {
        seen,
        verdict: finding.verdict.max(Verdict::Warning),
        ..finding
    }
    .advise(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_leads_out_of_https_or_holds_a_secret() {
        for (from, to, expected) in [
            ("https://a.example/mcp", "https://b.example/mcp", true),
            ("http://a.example/mcp", "https://a.example/mcp", true),
            ("https://a.example/mcp", "http://a.example/mcp", false),
            ("https://a.example/mcp", "https://b.example/mcp?key=k", false),
            ("https://a.example/mcp", "https://user:pass@b.example/mcp", false),
            ("https://a.example/mcp", "file:///etc/passwd", false),
        ] {
            let url = |text| Url::parse(text).expect("url");
            assert_eq!(leads_on(&url(from), &url(to)), expected, "{to}");
        }
    }
}
