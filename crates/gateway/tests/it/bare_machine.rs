//! The program on a machine that gives it little.

use crate::child::{ConfigFile, Program};
use crate::harness::{entry, machine};

/// No certificate anywhere.
const BARE: &[(&str, &str)] = &[("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")];

#[tokio::test]
async fn without_certificates_clear_text_is_served_and_tls_refused() {
    let clear = machine("one", "http://127.0.0.1:9/mcp", "http://127.0.0.1:9/token", "");
    let config = ConfigFile::new(&format!("mcp_servers:\n{clear}"));
    assert!(
        Program::serve(&config, BARE)
            .base()
            .await
            .starts_with("http://127.0.0.1:")
    );

    for servers in [
        entry("one", "url: https://127.0.0.1:9/mcp"),
        machine("one", "http://127.0.0.1:9/mcp", "https://127.0.0.1:9/token", ""),
    ] {
        let config = ConfigFile::new(&format!("mcp_servers:\n{servers}"));
        let finished = Program::serve(&config, BARE).finished().await;
        assert_eq!(finished.code, Some(1));
        assert!(finished.err.contains("TLS cannot be set up"), "{}", finished.err);
    }
}

#[tokio::test]
async fn more_connections_than_file_descriptors_are_warned_of_at_the_start() {
    let limits = "vestibule: {limits: {max_connections: 1000000000}}\nmcp_servers: {}\n";
    let config = ConfigFile::new(limits);
    let mut program = Program::serve(&config, &[]);
    let line = program.logs("file descriptors").await;
    assert!(
        line.contains("WARN") && line.contains("max_connections"),
        "{line}"
    );
    program.base().await;
}
