//! An MCP server over standard input and output, for the gateway to start: this test binary itself, run as one test
//! of its own. So there is a real program with every fault that is wanted, and nothing that has to be installed.

#![expect(clippy::print_stdout, reason = "standard output is the transport")]
#![expect(clippy::print_stderr, reason = "what is said there is part of what is tested")]

use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use tokio::signal::unix::{SignalKind, signal};
use vestibule_testkit::conversation::result;
use vestibule_testkit::{Conversation, Say};

/// An entry of `mcp_servers` that runs this program; `more` are further fields, one a line.
pub(crate) fn entry(name: &str, more: &str) -> String {
    let program = program();
    let args =
        r#"[--exact, "stdio_peer::serves_until_its_input_ends", --ignored, --nocapture, --test-threads=1]"#;
    crate::harness::entry(
        name,
        &format!("transport: stdio\ncommand: {program}\nargs: {args}\n{more}"),
    )
}

/// Its path.
pub(crate) fn program() -> String {
    let path = std::env::current_exe().expect("a path");
    path.to_str().expect("text").to_owned()
}

/// Begins with the harness's own lines, which are no messages.
#[test]
#[ignore = "the child of other tests"]
fn serves_until_its_input_ends() {
    let mode = std::env::var_os("PEER_MODE").unwrap_or_default();
    let mode = mode.to_str().expect("text");
    println!();
    eprintln!("started with token {:?}", std::env::var_os("CANARY_TOKEN"));
    if mode == "exits" {
        std::process::exit(3);
    }
    if mode.contains("stubborn") {
        std::thread::spawn(swallow_sigterm);
    }
    if mode == "parent" {
        let mut command = Command::new("sleep");
        let mut child = command.arg("1000").stdin(Stdio::null()).spawn().expect("sleep");
        std::thread::spawn(move || child.wait());
    }
    if mode == "deaf" {
        loop {
            std::thread::park();
        }
    }
    let mut conversation = Conversation::default();
    for line in io::stdin().lock().lines() {
        let line = line.expect("text");
        let message: Value = serde_json::from_str(&line).expect("one message a line");
        let tool = message["params"]["name"].as_str().unwrap_or_default();
        let said = match tool {
            "environment" => vec![result(&message["id"], &environment())],
            "pid" => vec![result(&message["id"], &std::process::id().to_string())],
            "crash" => std::process::abort(),
            // Answers with what is said at this address, when all of it is said.
            "told" => {
                let address = message["params"]["arguments"]["message"].as_str().expect("text");
                let mut said = String::new();
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.read_to_string(&mut said).expect("text");
                vec![result(&message["id"], &said)]
            }
            "say-arguments" => {
                eprintln!("arguments {:?}", std::env::args().collect::<Vec<_>>());
                vec![result(&message["id"], "said")]
            }
            "flood" => {
                flood();
                vec![result(&message["id"], "flooded")]
            }
            "endless" => {
                endless();
                Vec::new()
            }
            _ => conversation.hear(&message),
        };
        for say in said {
            match say {
                Say::Message(message) => println!("{message}"),
                Say::End => std::process::exit(0),
            }
        }
        io::stdout().flush().expect("a reader");
    }
    if mode.contains("stubborn") {
        loop {
            std::thread::park();
        }
    }
}

fn environment() -> String {
    std::env::vars_os().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{}={}", name.to_string_lossy(), value.to_string_lossy());
        text
    })
}

/// Twenty megabytes of no messages.
fn flood() {
    let line = "x".repeat(1000);
    for _ in 0..10_000 {
        println!("{line}");
        eprintln!("{line}");
    }
}

/// One line without an end.
fn endless() {
    let chunk = vec![b'x'; 64 * 1024];
    while io::stdout().write_all(&chunk).is_ok() {}
}

fn swallow_sigterm() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).expect("a signal");
        loop {
            terminated.recv().await;
        }
    });
}
