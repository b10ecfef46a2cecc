//! HTTP/1.1 messages as they are on the wire: order, case and repetition of headers are kept, and little is judged.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use url::form_urlencoded;

pub(crate) type Headers = Vec<(String, String)>;

/// A request as a fake received it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method as sent.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Every header line in order, names in the case they were sent in.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Vec<u8>,
    head: Vec<u8>,
}

impl Request {
    /// The target up to the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// The first query parameter of that name.
    pub fn query_value(&self, name: &str) -> Option<String> {
        let mut query = self.query().into_iter();
        query.find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The token of an `Authorization: Bearer` header.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The body decoded as a form.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first form parameter of that name.
    pub fn form_value(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(&self.body)
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the request line, a header or the body has `needle` in it.
    pub fn contains(&self, needle: &str) -> bool {
        let needle = needle.as_bytes();
        [&self.head, &self.body]
            .into_iter()
            .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    }
}

/// The lines before a body.
pub(crate) struct Head {
    pub(crate) start_line: String,
    pub(crate) headers: Headers,
    raw: Vec<u8>,
}

/// Reads a request; `None` when the peer closed before the first byte.
pub(crate) async fn read_request(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Request>> {
    let Some(head) = read_head(reader).await? else {
        return Ok(None);
    };
    let mut words = head.start_line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = match framing(&head.headers)? {
        Framing::None => Vec::new(),
        framing => read_body(reader, framing).await?,
    };
    Ok(Some(Request {
        method,
        target,
        headers: head.headers,
        body,
        head: head.raw,
    }))
}

/// Reads up to the empty line; `None` when the peer closed before the first byte.
pub(crate) async fn read_head(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let mut raw = Vec::new();
    let mut lines = Vec::new();
    loop {
        let start = raw.len();
        if reader.read_until(b'\n', &mut raw).await? == 0 && start == 0 {
            return Ok(None);
        }
        if !raw.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&raw[start..])
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let start_line = lines.next().unwrap_or_default();
    let headers = lines
        .map(|line| match line.split_once(':') {
            Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
            None => (line, String::new()),
        })
        .collect();
    Ok(Some(Head {
        start_line,
        headers,
        raw,
    }))
}

/// Where a body ends.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// RFC 9112 section 6.3, without the rules that depend on method and status.
pub(crate) fn framing(headers: &Headers) -> io::Result<Framing> {
    if find(headers, "transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"))
    {
        return Ok(Framing::Chunked);
    }
    match find(headers, "content-length") {
        None => Ok(Framing::None),
        Some(length) => length
            .parse()
            .map(Framing::Length)
            .map_err(|_| invalid("Content-Length is no number")),
    }
}

/// Reads a body; [`Framing::None`] means up to the end of the connection.
pub(crate) async fn read_body(
    reader: &mut (impl AsyncBufRead + Unpin),
    framing: Framing,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::None => {
            reader.read_to_end(&mut body).await?;
        }
        Framing::Length(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body).await?;
        }
        Framing::Chunked => loop {
            let line = read_line(reader).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk has no size"))?;
            if size == 0 {
                while !read_line(reader).await?.is_empty() {}
                break;
            }
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..]).await?;
            if !read_line(reader).await?.is_empty() {
                return Err(invalid("a chunk is longer than its size"));
            }
        },
    }
    Ok(body)
}

async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

pub(crate) fn find<'h>(headers: &'h Headers, name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

pub(crate) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// A response's bytes. Content-Length is added where the headers frame nothing and the status may have a body.
pub(crate) fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let framed = headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    let mut head = format!("HTTP/1.1 {status} \r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if !framed && status != 204 && status != 304 {
        head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_kept_as_sent() {
        let mut wire: &[u8] = b"POST /a?b=c HTTP/1.1\r\nX-One: 1\r\nx-TWO:  2 \r\nX-One: 3\r\n\
            Authorization: Bearer abc\r\nTransfer-Encoding: chunked\r\n\r\n\
            4;ext=1\r\na=b&\r\n6\r\nc=%20+\r\n0\r\nTrailer: t\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let request = read_request(&mut wire)
            .await
            .expect("readable")
            .expect("a request");
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/a?b=c")
        );
        assert_eq!(request.path(), "/a");
        assert_eq!(request.query_value("b").as_deref(), Some("c"));
        let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["X-One", "x-TWO", "X-One", "Authorization", "Transfer-Encoding"]
        );
        assert_eq!(request.header("X-Two"), Some("2"));
        assert_eq!(request.bearer(), Some("abc"));
        assert_eq!(request.form_value("c").as_deref(), Some("  "));
        assert_eq!(request.form().len(), 2);
        assert!(request.contains("b&c=%20") && request.contains("x-TWO") && request.contains("a?b"));
        assert!(!request.contains("x-two"));

        assert_eq!(
            read_request(&mut wire)
                .await
                .expect("readable")
                .expect("a request")
                .method,
            "GET"
        );
        assert!(read_request(&mut wire).await.expect("readable").is_none());
        let mut cut: &[u8] = b"GET / HTTP/1.1\r\nHo";
        assert!(read_request(&mut cut).await.is_err());
    }
}
