//! The program as a person or a supervisor meets it: exit codes, what it prints, what it refuses to start, the
//! walk with `mock` and `serve`, signals.

use crate::by_hand::Nobody;
use crate::child::{ConfigFile, Finished, Program, run};
use crate::harness::{CLIENT_SECRET, Got, KEY, answer, echo, entry, got, keyed, machine};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use vestibule_testkit::{Answer, Idp, Reply, Upstream};

/// The configuration of the walk-through in LiteLLM's documentation.
const WALK: &str = r#"mcp_servers:
  test_oauth2:
    url: "http://localhost:8765/mcp"
    auth_type: oauth2
    client_id: "test-client"
    client_secret: "test-secret"
    token_url: "http://localhost:8765/oauth/token"
"#;

fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy();
    client.build().expect("a client")
}

async fn check(config: &ConfigFile, environment: &[(&str, &str)]) -> Finished {
    run(&["check", "--config", config.path()], environment).await
}

#[tokio::test]
async fn check_says_ok_and_how_many_servers_there_are() {
    let one = ConfigFile::new(&keyed(&entry("one", "url: http://localhost:1/mcp")));
    let checked = check(&one, &[]).await;
    assert_eq!(
        (checked.code, checked.out, checked.err.as_str()),
        (Some(0), format!("{}: ok, 1 MCP server\n", one.path()), "")
    );

    // What is only worth knowing is told and is no failure; what is LiteLLM's own business is named.
    let two = [
        "model_list: []\n",
        &keyed(&machine(
            "one",
            "https://a.example/mcp",
            "https://a.example/t",
            "",
        )),
        &entry("two", "url: http://localhost:1/mcp"),
    ];
    let two = ConfigFile::new(&two.concat());
    let checked = run(&["check"], &[("VESTIBULE_CONFIG", two.path())]).await;
    let path = two.path();
    let expected = format!(
        "{path}:5:3: note: mcp_servers.one: oauth2_flow is client_credentials: token_url, client_id and \
         client_secret are set, and authorization_url is not\n\
         {path}: note: passed over, being LiteLLM's other business: model_list\n\
         {path}: ok, 2 MCP servers\n"
    );
    assert_eq!((checked.code, checked.out), (Some(0), expected));
}

#[tokio::test]
async fn check_names_every_problem_on_a_line_of_its_own_and_fails() {
    let text = format!(
        "mcp_servers:\n  a-b:\n    url: http://localhost:1/mcp\n  two:\n    url: https://x.example/mcp\n    \
         tokn_url: {CLIENT_SECRET}\n    auth_type: oauth3\n    client_secret: [{CLIENT_SECRET}]\n    client_id: x\n\
         general_settings:\n  master_key: os.environ/NOWHERE\n"
    );
    let config = ConfigFile::new(&text);
    let checked = check(&config, &[]).await;
    assert_eq!(
        (checked.code, checked.err.as_str()),
        (Some(1), ""),
        "{}",
        checked.out
    );
    let lines: Vec<_> = checked.out.lines().collect();
    for (line, expected) in [
        ":2:3: error: mcp_servers.a-b: a server's name cannot contain '-'",
        ":6:5: error: mcp_servers.two.tokn_url: unknown field; did you mean token_url?",
        ":7:16: error: mcp_servers.two.auth_type: takes one of",
        ":8:20: error: mcp_servers.two.client_secret: takes text",
        ":11:15: error: general_settings.master_key: the environment variable NOWHERE is not set",
        ": 5 errors",
    ]
    .into_iter()
    .enumerate()
    {
        let expected = format!("{}{expected}", config.path());
        assert!(lines[line].starts_with(&expected), "{expected}\n{}", checked.out);
    }
    assert_eq!(lines.len(), 6);
    assert!(!checked.out.contains(CLIENT_SECRET), "{}", checked.out);
}

#[tokio::test]
async fn check_fails_on_what_serve_would_fail_on() {
    let config = ConfigFile::new(&keyed(&entry("one", "url: http://localhost:1/mcp")));
    let broken = ConfigFile::new("mcp_servers: {one: [\n");
    let checked = check(&broken, &[]).await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains(": error: "), "{checked:?}");

    let nowhere = "/nowhere/config.yaml";
    for command in ["check", "serve"] {
        let refused = run(&[command, "--config", nowhere], &[]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
        let expected = format!("vestibule: {nowhere} cannot be read: ");
        assert!(refused.err.starts_with(&expected), "{refused:?}");

        let unnamed = run(&[command], &[]).await;
        assert_eq!((unnamed.code, unnamed.out.as_str()), (Some(2), ""));
        assert!(unnamed.err.contains("--config <FILE>"), "{unnamed:?}");

        for (environment, expected) in [
            (("VESTIBULE_MASTER_KEY", "c2hvcnQ="), "key 1 of "),
            (("VESTIBULE_MASTER_KEY", ""), "holds no key"),
            (("VESTIBULE_MASTER_KEY_FILE", nowhere), nowhere),
        ] {
            let arguments = [command, "--config", config.path()];
            let port = ["--host", "127.0.0.1", "--port", "0"];
            let more = if command == "serve" { &port[..] } else { &[] };
            let refused = run(&[&arguments, more].concat(), &[environment]).await;
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert!((refused.out + &refused.err).contains(expected), "{environment:?}");
        }
    }
}

#[tokio::test]
async fn serve_starts_nothing_with_a_file_that_cannot_be_used() {
    let text = keyed("  one:\n    url: ftp://x\n    tiemout: 3\n");
    let config = ConfigFile::new(&text);
    let refused = Program::serve(&config, &[]).finished().await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    let path = config.path();
    let expected = format!(
        "{path}:5:10: error: mcp_servers.one.url: takes an http or https URL, and this begins with ftp:\n\
         {path}:6:5: error: mcp_servers.one.tiemout: unknown field; did you mean timeout?\n\
         vestibule: {path} cannot be used; nothing was started\n"
    );
    assert_eq!(refused.err, expected);
}

#[tokio::test]
async fn serve_without_a_key_stays_on_this_machine() {
    let config = ConfigFile::new(&format!(
        "mcp_servers:\n{}",
        entry("one", "url: http://localhost:1/mcp")
    ));
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        let arguments = ["serve", "--config", config.path(), "--port", "0", "--host", host];
        let refused = run(&arguments, &[]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{host}");
        assert_eq!(
            refused.err,
            format!(
                "vestibule: without general_settings.master_key the gateway binds loopback addresses only, and {host} is none\n"
            )
        );
    }
    let arguments = ["serve", "--config", config.path(), "--port", "0"];
    let mut open = Program::start(&arguments, &[]);
    let base = open.base().await;
    assert!(base.starts_with("http://127.0.0.1:"), "{base}");
    open.logs("no master key is configured").await;
}

#[tokio::test]
async fn an_internal_server_that_takes_callers_without_a_key_is_warned_of() {
    let fields = "url: https://a.example/mcp\nauth_type: oauth2\ndelegate_auth_to_upstream: true\n\
                  available_on_public_internet: false";
    let config = ConfigFile::new(&keyed(&entry("one", fields)));
    let warning =
        "mcp_servers.one.available_on_public_internet: callers without a gateway key come in all the same";
    let checked = check(&config, &[]).await;
    let expected = format!("{}:8:35: warning: {warning}", config.path());
    assert!(
        checked.code == Some(0) && checked.out.starts_with(&expected),
        "{expected}\n{checked:?}"
    );
    let mut served = Program::serve(&config, &[]);
    let line = served.logs(warning).await;
    assert!(line.contains("WARN") && line.contains(":8:35: "), "{line}");
    served.base().await;
}

#[tokio::test]
async fn serve_says_when_its_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    let config = ConfigFile::new(&keyed(&entry("one", "url: http://localhost:1/mcp")));
    let port = address.port().to_string();
    let arguments = ["serve", "--config", config.path(), "--host", "127.0.0.1"];
    let refused = run(&[&arguments[..], &["--port", &port]].concat(), &[]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    let expected = format!("vestibule: {address} cannot be bound: ");
    assert!(refused.err.contains(&expected), "{}", refused.err);
}

#[tokio::test]
async fn help_teaches_with_an_example_that_check_accepts() {
    let help = run(&["--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for command in ["serve", "check", "demo", "mock", "schema"] {
        let line = help
            .out
            .lines()
            .find(|line| line.starts_with(&format!("  {command} ")));
        let described = line.map_or(0, |line| line.split_whitespace().count());
        assert!(described > 4, "{command} is not described in\n{}", help.out);
    }
    for taught in [
        "vestibule demo",
        "vestibule check --config config.yaml",
        "vestibule serve --config config.yaml --port 4000",
        "http://HOST:4000/my_server/mcp",
        "x-litellm-api-key: Bearer <master key>",
    ] {
        assert!(help.out.contains(taught), "{taught} is not in\n{}", help.out);
    }
    let example = help
        .out
        .lines()
        .skip_while(|line| line.trim() != "general_settings:");
    let example: Vec<_> = example.take_while(|line| !line.is_empty()).collect();
    let config = ConfigFile::new(&(example.join("\n") + "\n"));
    let environment = [
        ("LITELLM_MASTER_KEY", KEY),
        ("MCP_CLIENT_ID", "id"),
        ("MCP_CLIENT_SECRET", CLIENT_SECRET),
    ];
    let checked = check(&config, &environment).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.ends_with(": ok, 1 MCP server\n"), "{checked:?}");

    for command in ["serve", "check", "demo", "mock", "schema"] {
        let help = run(&[command, "--help"], &[]).await;
        assert_eq!(help.code, Some(0), "{command}");
    }
    let version = run(&["--version"], &[]).await;
    assert_eq!(version.out, format!("vestibule {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_code_2_with_a_hint() {
    for (arguments, hint) in [
        (&[][..], "Usage: "),
        (&["sevre"], "'serve'"),
        (&["serve", "--conifg", "x"], "'--config'"),
        (&["mock", "--port", "70000"], "70000"),
        (&["serve", "--config", "x", "--host", "nowhere"], "nowhere"),
    ] {
        let refused = run(arguments, &[]).await;
        assert_eq!(
            (refused.code, refused.out.as_str()),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(refused.err.contains(hint), "{arguments:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn schema_prints_the_schema_of_the_reference() {
    let printed = run(&["schema"], &[]).await;
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&printed.out).expect("JSON");
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/config.schema.json");
    let written = std::fs::read_to_string(written).expect("readable");
    assert_eq!(schema, serde_json::from_str::<Value>(&written).expect("JSON"));
    assert!(schema["properties"]["mcp_servers"].is_object(), "{schema}");
}

/// A command line's words, as a shell reads them.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let word = words.last_mut().expect("never empty");
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '\\') => word.extend(characters.next().filter(|escaped| *escaped != '\n')),
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(String::new()),
            _ => word.push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Does what a printed `curl` line says.
async fn curl(line: &str) -> Got {
    let mut words = words(line).into_iter().skip(1);
    let (mut url, mut data, mut headers) = (None, None, Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-H" => headers.extend(words.next()),
            "-d" => data = words.next(),
            "-i" => {}
            other => assert!(url.replace(other.to_owned()).is_none(), "what is {other}?"),
        }
    }
    let url = url.expect("a URL");
    let mut request = match data {
        Some(data) => client().post(url).body(data),
        None => client().get(url),
    };
    for header in headers {
        let (name, value) = header.split_once(": ").expect("a header");
        request = request.header(name, value);
    }
    got(request).await
}

#[tokio::test]
async fn demo_takes_another_port_when_its_own_is_taken_and_what_it_prints_to_paste_works() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let mut demo = Program::start(&["demo", "--port", &port], &[]);
    let base = demo.base().await;
    assert!(!base.ends_with(&format!(":{port}")), "{base}");
    demo.line("Serving until Ctrl-C.").await;
    let printed = demo.printed();
    for line in [
        &format!("Port {port} is taken; the gateway is at {base}."),
        "   client                tools: echo, add",
        "   client                echo: hello",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}\n{printed}"
        );
    }
    assert_eq!(printed.matches("token issued").count(), 1, "{printed}");

    let printed = printed.replace("\\\n", "");
    let pasted: Vec<_> = printed
        .lines()
        .filter(|line| line.starts_with("  curl "))
        .collect();
    let [list, call, debugged] = pasted[..] else {
        panic!("three curl lines in\n{printed}")
    };
    let list = curl(list).await;
    assert_eq!(
        (list.status, &list.body["tools"][0]["name"]),
        (200, &json!("echo"))
    );
    let call = curl(call).await;
    assert_eq!(
        (call.status, &call.body["content"][0]["text"]),
        (200, &json!("hello"))
    );
    let debugged = curl(debugged).await;
    assert_eq!(debugged.status, 200);
    assert_eq!(debugged.body["result"]["tools"][0]["name"], "echo");
    assert_eq!(
        debugged.header("x-mcp-debug-auth-resolution"),
        "m2m-client-credentials"
    );

    let added = printed
        .lines()
        .find(|line| line.trim().starts_with("claude mcp add "));
    let added = words(added.expect("a line for Claude Code"));
    let url = added
        .iter()
        .find(|word| word.starts_with("http://"))
        .expect("a URL");
    let (name, value) = added
        .last()
        .and_then(|header| header.split_once(": "))
        .expect("a header");
    let (status, body) = answer(client().post(url).header(name, value).json(&echo("x"))).await;
    assert_eq!(
        (status, &body["result"]["content"][0]["text"]),
        (200, &json!("x"))
    );

    demo.signal("INT").await;
    assert_eq!(demo.finished().await.code, Some(0));
}

#[tokio::test]
async fn the_walk_of_litellms_documentation_works_as_it_is_written() {
    let mut mock = Program::start(&["mock", "--port", "0"], &[]);
    let there = mock.base().await;
    let config = ConfigFile::new(&WALK.replace("http://localhost:8765", &there));
    // Without a master key the key in the documentation is as good as any; with one it has to be that.
    for environment in [&[][..], &[("LITELLM_MASTER_KEY", "sk-1234")]] {
        let mut gateway = Program::serve(&config, environment);
        let base = gateway.base().await;
        let list = client()
            .get(format!("{base}/mcp-rest/tools/list"))
            .header("Authorization", "Bearer sk-1234");
        let (status, body) = answer(list).await;
        assert_eq!((status, &body["error"]), (200, &Value::Null), "{body}");
        let tools = body["tools"].as_array().expect("tools");
        let names: Vec<_> = tools.iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["echo", "add"]);
        assert_eq!(tools[0]["mcp_info"]["server_name"], "test_oauth2");

        let call = client()
            .post(format!("{base}/mcp-rest/tools/call"))
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer sk-1234")
            .body(r#"{"name": "echo", "arguments": {"message": "hello"}}"#);
        let (status, body) = answer(call).await;
        assert_eq!(
            (status, &body["content"][0]["text"]),
            (200, &json!("hello")),
            "{body}"
        );

        let ended = gateway.terminated().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for secret in ["sk-1234", "test-secret"] {
            assert!(!(ended.out.clone() + &ended.err).contains(secret), "{ended:?}");
        }
    }
    assert_eq!(mock.terminated().await.code, Some(0));
}

#[tokio::test]
async fn mock_prints_a_configuration_that_serve_takes() {
    let mut mock = Program::start(&["mock", "--port", "0"], &[]);
    let token_url = mock.line("    token_url: ").await;
    let printed = mock.printed();
    let config = printed.lines().skip_while(|line| *line != "mcp_servers:");
    let config: Vec<_> = config.take_while(|line| !line.is_empty()).collect();
    assert_eq!(config.last().copied(), Some(token_url.as_str()));
    let config = ConfigFile::new(&(config.join("\n") + "\n"));
    let mut gateway = Program::serve(&config, &[]);
    let url = format!("{}/test_oauth2/mcp", gateway.base().await);
    let (status, body) = answer(client().post(url).json(&echo("x"))).await;
    assert_eq!(
        (status, &body["result"]["content"][0]["text"]),
        (200, &json!("x")),
        "{body}"
    );
}

#[tokio::test]
async fn who_listens_can_be_terminated() {
    let config = ConfigFile::new(&keyed(&entry("one", "url: http://localhost:1/mcp")));
    for _ in 0..5 {
        let mut gateway = Program::serve(&config, &[]);
        gateway.base().await;
        assert_eq!(gateway.terminated().await.code, Some(0));
        let mut mock = Program::start(&["mock", "--port", "0"], &[]);
        mock.base().await;
        assert_eq!(mock.terminated().await.code, Some(0));
    }
}

#[tokio::test]
async fn sigterm_lets_a_call_under_way_finish() {
    let upstream = Upstream::start().await;
    let gate = Arc::new(Semaphore::new(0));
    upstream.push(Answer::Gate(Arc::clone(&gate)));
    let config = ConfigFile::new(&keyed(&entry("one", &format!("url: {}", upstream.url()))));
    let mut gateway = Program::serve(&config, &[]);
    let url = format!("{}/one/mcp", gateway.base().await);
    let call = client()
        .post(url)
        .header("x-litellm-api-key", KEY)
        .json(&echo("late"));
    let call = tokio::spawn(answer(call));
    upstream.wait_for(1).await;
    gateway.signal("TERM").await;
    gateway.logs("stopping").await;
    gate.add_permits(1);
    let (status, body) = call.await.expect("joined");
    assert_eq!(
        (status, &body["result"]["content"][0]["text"]),
        (200, &json!("late"))
    );
    assert_eq!(gateway.finished().await.code, Some(0));
}

#[tokio::test]
async fn nothing_secret_is_printed_however_much_is_logged() {
    for format in ["text", "json"] {
        let (idp, upstream) = (Idp::start().await, Upstream::start().await);
        upstream.accept_if(idp.issued());
        let (refusing, nobody) = (Upstream::start().await, Nobody::new());
        refusing.accept_if(|_| false);
        let token = "canary-static-token-0123456789";
        let servers = [
            machine("posted", &upstream.url(), &idp.url(), ""),
            machine(
                "basic",
                &upstream.url(),
                &idp.url(),
                "token_endpoint_auth_method: client_secret_basic",
            ),
            machine("refused", &refusing.url(), &idp.url(), ""),
            machine("down", &upstream.url(), &nobody.url(), ""),
            entry(
                "static",
                &format!(
                    "url: {}\nauth_type: api_key\nauthentication_token: {token}",
                    refusing.url()
                ),
            ),
        ];
        let config = ConfigFile::new(&format!("mcp_servers:\n{}", servers.concat()));
        let environment = [
            ("LITELLM_MASTER_KEY", KEY),
            ("VESTIBULE_LOG", "trace"),
            ("VESTIBULE_LOG_FORMAT", format),
        ];
        let mut gateway = Program::serve(&config, &environment);
        let base = gateway.base().await;
        let wrong = "sk-canary-wrong-key-0123456789";
        let session = "canary-session-0123456789";
        upstream.push(Answer::raw(
            200,
            &[("Content-Type", "application/json"), ("Mcp-Session-Id", session)],
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        ));
        for (server, key, status) in [
            ("posted", KEY, 200),
            ("posted", wrong, 401),
            ("basic", KEY, 200),
            ("refused", KEY, 502),
            ("down", KEY, 502),
            ("static", KEY, 502),
            ("nowhere", KEY, 404),
        ] {
            let call = client()
                .post(format!("{base}/{server}/mcp?key={key}"))
                .header("Authorization", format!("Bearer {key}"))
                .header("x-mcp-auth", key)
                .header("x-litellm-mcp-debug", "true")
                .json(&echo("canary-argument-0123456789"));
            assert_eq!(answer(call).await.0, status, "{server}");
        }
        // A token that is revoked, and an authorization server that repeats what it was sent.
        upstream.revoke(&idp.tokens()[0]);
        idp.push(Reply::OAuthError {
            status: 400,
            error: "invalid_client".into(),
            description: Some(format!("{CLIENT_SECRET} is wrong")),
        });
        let call = client()
            .post(format!("{base}/posted/mcp"))
            .bearer_auth(KEY)
            .json(&echo("x"));
        assert_eq!(answer(call).await.0, 502);

        let ended = gateway.terminated().await;
        assert_eq!(ended.code, Some(0));
        let printed = ended.out + &ended.err;
        assert!(
            printed.contains("TRACE") && printed.contains("token_refused"),
            "{printed}"
        );
        let encoded = BASE64_STANDARD.encode(format!("canary-id:{CLIENT_SECRET}"));
        let secrets = [
            KEY,
            CLIENT_SECRET,
            wrong,
            token,
            session,
            &encoded,
            "canary-argument",
        ];
        let tokens = idp.tokens();
        assert!(tokens.len() >= 3);
        for secret in secrets.into_iter().chain(tokens.iter().map(String::as_str)) {
            let line = printed.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} was printed");
        }
    }
}
