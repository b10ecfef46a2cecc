//! A TCP client that speaks HTTP/1.1 by hand: half a header, a lying length, bytes that are no HTTP at all.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{
    DEADLINE,
    wire::{Framing, find, framing, invalid, read_body, read_head},
};

/// One connection. Every read and write fails with `TimedOut` after [`DEADLINE`]; dropping it closes the connection.
pub struct RawClient {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A response as it came.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Every header line in order, names in the case they were sent in.
    pub headers: Vec<(String, String)>,
    /// The body, without chunked framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl RawClient {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = in_time(TcpStream::connect(addr)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        in_time(self.writer.write_all(bytes.as_ref())).await
    }

    /// Reads one response and its body; also one to a HEAD request must have the body its headers announce.
    pub async fn read_response(&mut self) -> io::Result<Response> {
        let mut response = self.read_head().await?;
        let framing = match response.status {
            100..=199 | 204 | 304 => return Ok(response),
            _ => framing(&response.headers)?,
        };
        response.body = in_time(read_body(&mut self.reader, framing)).await?;
        Ok(response)
    }

    /// Reads a response up to its empty line; the body stays on the wire.
    pub async fn read_head(&mut self) -> io::Result<Response> {
        let head = in_time(read_head(&mut self.reader))
            .await?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head
            .start_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| invalid("the status line has no status"))?;
        Ok(Response {
            status,
            headers: head.headers,
            body: Vec::new(),
        })
    }

    /// Reads until what came, framing included, has `needle` in it; gives back all of it.
    pub async fn read_until(&mut self, needle: &str) -> io::Result<String> {
        let mut text = Vec::new();
        let found = |text: &[u8]| {
            text.windows(needle.len())
                .any(|window| window == needle.as_bytes())
        };
        in_time(async {
            while !found(&text) {
                let byte = self.reader.read_u8().await?;
                text.push(byte);
            }
            Ok(())
        })
        .await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Reads that many bytes, framing included.
    pub async fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        in_time(self.reader.read_exact(&mut bytes)).await?;
        Ok(bytes)
    }

    /// Reads all there is until the other side closes.
    pub async fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        in_time(read_body(&mut self.reader, Framing::None)).await
    }

    /// Says that nothing more is sent; reading goes on.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        in_time(self.writer.shutdown()).await
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(DEADLINE, work)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Upstream};

    const GET: &str = "GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test]
    async fn reads_every_framing() {
        let upstream = Upstream::start().await;
        let mut client = RawClient::connect(upstream.addr()).await.expect("a connection");
        upstream.push(Answer::raw(200, &[("X-A", "1"), ("x-a", "2")], "{\"a\":1}"));
        client.write(&GET[..10]).await.expect("written");
        client.write(&GET[10..]).await.expect("written");
        let response = client.read_response().await.expect("a response");
        assert_eq!(
            (response.status, response.header("X-a"), response.text().as_str()),
            (200, Some("1"), "{\"a\":1}")
        );
        assert_eq!(
            (response.headers[1].0.as_str(), &response.json()["a"]),
            ("x-a", &1.into())
        );

        let chunks = "3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        upstream.push(Answer::raw(201, &[("Transfer-Encoding", "chunked")], chunks));
        upstream.push(Answer::raw(204, &[], ""));
        client.write([GET, GET].concat()).await.expect("written");
        assert_eq!(client.read_response().await.expect("a response").text(), "abcde");
        assert_eq!(client.read_response().await.expect("a response").status, 204);
        assert_eq!(upstream.connections(), 1);

        upstream.push(Answer::Verbatim(b"HTTP/1.0 200 OK\r\n\r\nto the end".to_vec()));
        client.write(GET).await.expect("written");
        assert_eq!(
            client.read_response().await.expect("a response").text(),
            "to the end"
        );
    }

    #[tokio::test]
    async fn reads_piecewise_and_half_closes() {
        let upstream = Upstream::start().await;
        let mut client = RawClient::connect(upstream.addr()).await.expect("a connection");
        upstream.push(Answer::Verbatim(b"HTTP/1.1 200 OK\r\n\r\none two three".to_vec()));
        client.write(GET).await.expect("written");
        assert_eq!(client.read_head().await.expect("a head").status, 200);
        assert_eq!(client.read_until("two").await.expect("a text"), "one two");
        assert_eq!(client.read_exactly(3).await.expect("three bytes"), b" th");
        assert_eq!(client.read_to_close().await.expect("the rest"), b"ree");

        let mut client = RawClient::connect(upstream.addr()).await.expect("a connection");
        client.write(GET).await.expect("written");
        client.shutdown().await.expect("half closed");
        assert_eq!(client.read_response().await.expect("a response").status, 405);
        assert_eq!(client.read_to_close().await.expect("the end"), b"");
        assert!(client.read_response().await.is_err());
    }
}
