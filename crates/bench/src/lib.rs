//! What the three programs of `scripts/bench` share: listening on loopback and saying so.
//! Development only; no other crate depends on it.

use std::{
    io::{self, Write as _},
    net::Ipv4Addr,
};

use tokio::net::TcpListener;

/// Listens on 127.0.0.1 and prints the line `scripts/bench` waits for.
///
/// Port 0 takes a free one.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;
    Ok(listener)
}
