//! The console's pages about servers: the walk-through of a machine's server, every mode by its form, edits by two
//! people, and who may not.

use crate::console_forms::{Form, link, words};
use crate::console_harness::{Person, Place, count, html, put_key, put_user, text};
use crate::harness::{
    CLIENT_SECRET, KEY, Start, TestGateway, assert_nothing_secret_logged, entry, got, keyed, machine,
};
use serde_json::json;
use std::process::Command;
use vestibule_testkit::{Idp, Provider, Reply, Request, Upstream};

const NEW: &str = "/ui/servers/new";

/// A gateway with these servers in its file, and the database of a place beside it.
pub(crate) async fn with_place(place: &Place, servers: &str) -> TestGateway {
    let mut start = Start::new(keyed(servers)).database(place.url());
    for (name, value) in Place::environment() {
        start = start.environment(&name, &value);
    }
    start.start().await
}

async fn new_form(person: &Person<'_>) -> Form {
    Form::with(person.page(NEW).await, "Create MCP Server")
}

/// The form with these choices, as the page shows it after "Show fields".
async fn shown(form: Form, person: &Person<'_>) -> Form {
    Form::with(form.press(person, "Show fields").await, "Create MCP Server")
}

pub(crate) fn body_of(request: &Request) -> String {
    String::from_utf8_lossy(&request.body).into_owned()
}

/// Adds a server without a credential; gives its path.
async fn plain(person: &Person<'_>, name: &str, url: &str) -> String {
    let form = new_form(person)
        .await
        .fill("MCP Server Name", name)
        .fill("MCP Server URL", url);
    form.done(person).await.0
}

#[tokio::test]
async fn the_walk_through_of_a_machines_server() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.accept_if(idp.issued());
    upstream.answer_with(
        "tools/list",
        r#"{"tools": [{"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}}]}"#,
    );
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;

    let list = person.page("/ui/servers").await;
    let form = Form::with(
        person.page(&link(&list, "+ Add New MCP Server")).await,
        "Create MCP Server",
    );
    assert!(!form.shows("Client ID") && !form.shows("Machine-to-Machine (M2M)"));
    let form = form
        .fill("MCP Server Name", "my_server")
        .choose("Transport Type", "HTTP")
        .fill("MCP Server URL", &upstream.url())
        .choose("Authentication", "OAuth");
    let form = shown(form, &person).await.tick("Machine-to-Machine (M2M)");
    let form = shown(form, &person).await;
    assert!(!form.shows("Authorization URL") && !form.shows("Authentication Value"));
    assert_eq!(form.value("MCP Server Name"), "my_server");
    let form = form
        .fill("Client ID", "canary-id")
        .fill("Client Secret", CLIENT_SECRET)
        .fill("Token URL", &idp.url())
        .fill("Scopes", "read write");
    let (path, page) = form.done(&person).await;
    assert!(
        text(&page, ".note").contains("my_server is there"),
        "{}",
        text(&page, "main")
    );

    let tools = person.page(&link(&page, "MCP Tools")).await;
    let tool = person.page(&link(&tools, "echo")).await;
    assert!(text(&tool, "main").contains("Says it again."));
    let missing = Form::with(tool, "Call Tool").answered(&person).await;
    assert!(
        text(&missing, ".wrong").contains("message is required"),
        "{}",
        text(&missing, "main")
    );
    let called = Form::with(missing, "Call Tool")
        .fill("message", "hello <b>there</b>")
        .answered(&person)
        .await;
    assert_eq!(text(&called, "#result > pre"), "hello <b>there</b>");
    let result = text(&called, "#result");
    assert!(
        result.contains("answered") && result.contains("m2m-client-credentials"),
        "{result}"
    );
    assert_eq!(count(&called, "#result pre b"), 0);
    let asked = body_of(idp.requests().last().expect("asked"));
    assert!(
        asked.contains("scope=read+write") || asked.contains("scope=read%20write"),
        "{asked}"
    );

    // The secret is shown nowhere, and stays when something else is changed.
    let settings = person.page(&format!("{path}/settings")).await;
    assert!(!settings.html().contains(CLIENT_SECRET));
    let form = Form::with(settings, "Save changes");
    assert_eq!(form.value("Client ID"), "canary-id");
    form.fill("Description", "Mine.").done(&person).await;
    gateway.advance(7200);
    let again = Form::with(person.page(&format!("{path}/tools?tool=echo")).await, "Call Tool");
    let called = again.fill("message", "again").answered(&person).await;
    assert!(
        text(&called, "#result").contains("again"),
        "{}",
        text(&called, "main")
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_is_lost() {
    let gateway = TestGateway::with_servers("  taken: {url: 'http://127.0.0.1:9/mcp'}\n").await;
    let person = Person::operator(&gateway).await;
    let form = new_form(&person)
        .await
        .fill("MCP Server Name", "a-b")
        .fill("MCP Server URL", "http://127.0.0.1:9/mcp")
        .fill("Description", "Kept \"<i>.");
    let got = form.send(&person).await;
    assert_eq!(got.status, 422, "{got:?}");
    let page = html(&got);
    assert!(
        text(&page, ".note.bad").contains("cannot contain '-'"),
        "{}",
        text(&page, "main")
    );
    let form = Form::with(page, "Create MCP Server");
    assert_eq!(form.value("Description"), "Kept \"<i>.");
    let got = form.fill("MCP Server Name", "taken").send(&person).await;
    assert_eq!(got.status, 422);
    assert!(text(&html(&got), ".note.bad").contains("already belongs to taken"));
    // Half of a mode.
    let form = new_form(&person)
        .await
        .fill("MCP Server Name", "half")
        .fill("MCP Server URL", "http://127.0.0.1:9/mcp");
    let form = shown(form.choose("Authentication", "OAuth"), &person)
        .await
        .tick("Machine-to-Machine (M2M)");
    let page = html(&form.send(&person).await);
    for name in [
        "Client ID is required",
        "Client Secret is required",
        "Token URL is required",
    ] {
        assert!(text(&page, ".note.bad").contains(name), "{}", text(&page, "main"));
    }
}

/// Authentication, flow, fields, and a field that is read back.
type Mode<'m> = (&'m str, Option<&'m str>, &'m [(&'m str, &'m str)], &'m str);

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a row for each mode")]
async fn every_mode_is_made_by_its_form_and_read_back() {
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;
    let modes: &[Mode<'_>] = &[
        ("None", None, &[], "None"),
        (
            "API Key",
            None,
            &[("Authentication Value", "canary-v")],
            "API Key",
        ),
        (
            "Bearer Token",
            None,
            &[("Authentication Value", "canary-v")],
            "Bearer Token",
        ),
        ("Token", None, &[("Authentication Value", "canary-v")], "Token"),
        (
            "Basic Auth",
            None,
            &[("Authentication Value", "u:canary-v")],
            "Basic Auth",
        ),
        (
            "Authorization",
            None,
            &[("Authentication Value", "canary-v")],
            "Authorization (raw header)",
        ),
        (
            "OAuth",
            Some("Interactive (PKCE)"),
            &[("Client ID", "id")],
            "Interactive (PKCE)",
        ),
        (
            "OAuth",
            Some("Delegated to the server (PKCE passthrough)"),
            &[],
            "Delegated to the server",
        ),
        (
            "OAuth Token Exchange",
            None,
            &[
                ("Token Exchange Endpoint", "https://as.test/token"),
                ("Client ID", "id"),
                ("Client Secret", "canary-v"),
            ],
            "OAuth Token Exchange (OBO)",
        ),
        ("Passthrough", None, &[], "Passthrough"),
        ("True Passthrough", None, &[], "True Passthrough"),
        ("OAuth Delegate", None, &[], "OAuth Delegate"),
        (
            "AWS SigV4",
            None,
            &[
                ("AWS Access Key ID", "AKIA"),
                ("AWS Secret Access Key", "canary-v"),
                ("AWS Region Name", "eu-west-1"),
            ],
            "AWS SigV4",
        ),
    ];
    for (index, (auth, flow, fields, label)) in modes.iter().enumerate() {
        let name = format!("mode_{index}");
        let form = new_form(&person)
            .await
            .fill("MCP Server Name", &name)
            .fill("MCP Server URL", "https://mcp.test/mcp")
            .choose("Authentication", auth);
        let mut form = shown(form, &person).await;
        if let Some(flow) = flow {
            form = shown(form.tick(flow), &person).await;
        }
        for (field, value) in *fields {
            form = form.fill(field, value);
        }
        let (path, page) = form.done(&person).await;
        assert!(
            text(&page, "dl").contains(label),
            "{label}: {}",
            text(&page, "dl")
        );
        let settings = person.page(&format!("{path}/settings")).await;
        assert!(!settings.html().contains("canary-v"), "{label}");
        let form = Form::with(settings, "Save changes");
        for (field, value) in fields.iter().filter(|(_, value)| !value.contains("canary-v")) {
            // What an access key is called is kept as a secret too.
            let expected = if *value == "AKIA" { "" } else { value };
            assert_eq!(form.value(field), expected, "{label}");
        }
        // Saved as it is, it is as it was.
        let (_, page) = form.done(&person).await;
        assert!(
            text(&page, ".note").contains("is saved"),
            "{label}: {}",
            text(&page, "main")
        );
        assert!(text(&page, "dl").contains(label), "{label}");
    }
    let list = person.page("/ui/servers").await;
    assert_eq!(count(&list, "#servers > article"), modes.len());
    let found = person.page("/ui/servers?q=mode_3").await;
    assert_eq!(count(&found, "#servers > article"), 1);
}

#[tokio::test]
async fn two_people_edit_one_server() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers("  {}\n").await;
    let (ann, bob) = (
        Person::signed_in(&gateway, KEY, "ann").await,
        Person::signed_in(&gateway, KEY, "bob").await,
    );
    let path = plain(&ann, "shared", &upstream.url()).await;
    let settings = format!("{path}/settings");
    let anns = Form::with(ann.page(&settings).await, "Save changes").fill("Description", "Ann's");
    let bobs = Form::with(bob.page(&settings).await, "Save changes").fill("Description", "Bob's <b>");
    bobs.done(&bob).await;
    let got = anns.send(&ann).await;
    assert_eq!(got.status, 409, "{got:?}");
    let page = html(&got);
    let (warning, table) = (text(&page, ".note.warn"), text(&page, "table"));
    assert!(
        warning.contains("Somebody else changed") && warning.contains("bob"),
        "{warning}"
    );
    assert!(table.contains("Bob's <b>") && table.contains("Ann's"), "{table}");
    // Saving again is a decision, and counts.
    let (_, page) = Form::with(page, "Save changes").done(&ann).await;
    assert!(text(&page, "dl").contains("Ann's"), "{}", text(&page, "dl"));
}

#[tokio::test]
async fn a_server_is_deleted_after_a_question_and_one_of_the_file_is_not() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("filed", &format!("url: {}", upstream.url()))).await;
    let person = Person::operator(&gateway).await;
    let path = plain(&person, "gone", &upstream.url()).await;
    let question = person.page(&format!("{path}/delete")).await;
    assert!(text(&question, "main").contains("This is permanent"));
    Form::with(question, "Delete").done(&person).await;
    assert_eq!(person.open(&path).await.status, 404);

    let list = person.page("/ui/servers").await;
    assert!(text(&list, "#servers").contains("file, read-only"));
    let settings = person.page(&format!("{}/settings", link(&list, "filed"))).await;
    assert!(
        text(&settings, "main").contains("read-only here")
            && text(&settings, "main").contains("mcp_servers.filed")
    );
    assert_eq!(count(&settings, "main form"), 0);
    let got = person
        .send(
            &format!("{}/settings", link(&list, "filed")),
            &[
                ("version", "1"),
                ("server_name", "filed"),
                ("url", "http://127.0.0.1:9/"),
            ],
        )
        .await;
    assert_eq!(got.status, 409, "{got:?}");
    let got = person
        .send(&format!("{}/delete", link(&list, "filed")), &[])
        .await;
    assert_eq!(got.status, 409, "{got:?}");
}

#[tokio::test]
async fn a_stored_server_that_cannot_be_used_is_shown_with_its_problem_and_mended() {
    let upstream = Upstream::start().await;
    let place = Place::new();
    let gateway = with_place(&place, "  {}\n").await;
    let path = {
        let person = Person::operator(&gateway).await;
        plain(&person, "later_taken", &upstream.url()).await
    };
    drop(gateway);
    // The file has a server of that name now.
    let gateway = with_place(&place, "  later_taken: {url: 'http://127.0.0.1:9/mcp'}\n").await;
    let person = Person::operator(&gateway).await;
    let list = person.page("/ui/servers").await;
    assert!(
        text(&list, "#servers").contains("already belongs to later_taken"),
        "{}",
        text(&list, "main")
    );
    let page = person.page(&path).await;
    assert!(
        text(&page, ".note.bad").contains("already belongs"),
        "{}",
        text(&page, "main")
    );
    assert!(!text(&page, ".tabs").contains("MCP Tools"));
    assert_eq!(person.open(&format!("{path}/tools")).await.status, 404);
    let question = person.page(&format!("{path}/delete")).await;
    Form::with(question, "Delete").done(&person).await;
}

#[tokio::test]
async fn members_see_their_servers_and_change_nothing() {
    let upstream = Upstream::start().await;
    upstream.set_tools(&["read", "write"]);
    let servers = [
        entry("mine", &format!("url: {}", upstream.url())),
        entry("others", &format!("url: {}", upstream.url())),
    ];
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "mia", "member").await;
    let permission =
        r#"{"object_permission": {"mcp_servers": ["mine"], "mcp_tool_permissions": {"mine": ["read"]}}}"#;
    let key = put_key(&store, "mias", Some("mia"), permission).await;
    let admins = put_key(&store, "anothers", Some("amy"), "{}").await;
    let gateway = with_place(&place, &servers.concat()).await;
    let person = Person::signed_in(&gateway, &key, "").await;
    let list = person.page("/ui/servers").await;
    assert_eq!(count(&list, "#servers > article"), 1);
    assert!(!text(&list, "main").contains("Add New"));
    let path = link(&list, "mine");
    let tools = person.page(&format!("{path}/tools")).await;
    assert_eq!(text(&tools, "#tools"), "read");
    // What the key may not do is refused where it is sent, too.
    let called = [("action", "call"), ("tool", "write")];
    let page = html(&person.send(&format!("{path}/tools"), &called).await);
    assert!(
        text(&page, ".note").contains("no tool write"),
        "{}",
        text(&page, "main")
    );
    let as_another = [("as", "anothers")];
    let page = html(&person.send(&format!("{path}/tools"), &as_another).await);
    assert!(
        text(&page, ".note.bad").contains("key_not_yours"),
        "{}",
        text(&page, "main")
    );
    let operator = Person::operator(&gateway).await;
    let others = link(&operator.page("/ui/servers").await, "others");
    for (path, method) in [
        (others.clone(), "get"),
        (format!("{others}/tools"), "get"),
        (NEW.to_owned(), "get"),
        (format!("{path}/settings"), "get"),
        (format!("{path}/people"), "get"),
        (format!("{path}/delete"), "get"),
        (NEW.to_owned(), "post"),
        ("/ui/servers/probe".to_owned(), "post"),
        (format!("{path}/settings"), "post"),
        (format!("{path}/delete"), "post"),
        (format!("{path}/people/revoke?user=mia"), "post"),
    ] {
        let form = [("url", upstream.url()), ("server_name", "evil".to_owned())];
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let got = match method {
            "get" => person.open(&path).await,
            _ => person.send(&path, &form).await,
        };
        assert_eq!(got.status, 403, "{method} {path}");
    }
    let _ = admins;
}

#[tokio::test]
async fn the_snippets_work_when_they_are_pasted() {
    let upstream = Upstream::start().await;
    let gateway = TestGateway::with_servers(&entry("one", &format!("url: {}", upstream.url()))).await;
    let person = Person::operator(&gateway).await;
    let path = link(&person.page("/ui/servers").await, "one");
    let page = person.page(&format!("{path}/connect")).await;
    let selector = scraper::Selector::parse("main pre").expect("a selector");
    let snippets: Vec<String> = page.select(&selector).map(|pre| pre.text().collect()).collect();
    assert_eq!(snippets.len(), 4);
    let curl = snippets
        .iter()
        .find(|text| text.starts_with("curl"))
        .expect("curl");
    let pasted = curl
        .replace("sk-YOUR_KEY", KEY)
        .replace("curl ", "curl -s --noproxy '*' ");
    let run = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &pasted]).output());
    let out = run.await.expect("ran").expect("a shell");
    let body: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(body["tools"][0]["name"], "echo", "{body}");
    assert!(
        snippets[0].contains(&format!("{}/one/mcp", gateway.url(""))),
        "{}",
        snippets[0]
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one walk")]
async fn markup_of_a_servers_is_text_on_every_page() {
    const EVIL: &str = "\"><img src=x onerror=alert(1)><script>alert(2)</script>";
    let upstream = Upstream::start().await;
    let tool = json!({"tools": [{
        "name": EVIL, "title": EVIL, "description": EVIL,
        "inputSchema": {"type": "object", "properties": {EVIL: {"type": "string", "title": EVIL, "description": EVIL, "default": EVIL}}, "required": [EVIL]},
    }]});
    upstream.answer_with("tools/list", &tool.to_string());
    upstream.answer_with(
        "tools/call",
        &json!({"content": [
            {"type": "text", "text": EVIL}, {"type": "image", "mimeType": EVIL, "data": "AAAA"},
            {"type": "resource_link", "uri": "https://x.test/\"><b>", "name": EVIL, "description": EVIL},
            {"type": "resource", "resource": {"uri": EVIL, "text": EVIL}},
        ], "structuredContent": {EVIL: EVIL}})
        .to_string(),
    );
    upstream.answer_with("prompts/list", &json!({"prompts": [{"name": EVIL, "description": EVIL, "arguments": [{"name": EVIL, "description": EVIL}]}]}).to_string());
    upstream.answer_with(
        "resources/list",
        &json!({"resources": [{"uri": EVIL, "name": EVIL, "description": EVIL, "mimeType": EVIL}]})
            .to_string(),
    );
    upstream.answer_with(
        "resources/templates/list",
        &json!({"resourceTemplates": [{"uriTemplate": EVIL, "name": EVIL}]}).to_string(),
    );
    upstream.answer_with(
        "prompts/get",
        &json!({"messages": [{"role": EVIL, "content": {"type": "text", "text": EVIL}}]}).to_string(),
    );
    upstream.answer_with(
        "resources/read",
        &json!({"contents": [{"uri": EVIL, "text": EVIL}]}).to_string(),
    );
    upstream.answer_with(
        "initialize",
        &json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "prompts": {}, "resources": {}}, "serverInfo": {"name": EVIL, "version": EVIL}}).to_string(),
    );
    let place = Place::new();
    let store = place.store().await;
    put_key(&store, "evil", None, "{}").await;
    let gateway = with_place(&place, "  {}\n").await;
    let person = Person::operator(&gateway).await;
    let form = new_form(&person)
        .await
        .fill("MCP Server Name", "one")
        .fill("MCP Server URL", &upstream.url())
        .fill("Description", EVIL)
        .fill("Access Groups", "g")
        .fill("MCP Info", &json!({"x": EVIL}).to_string());
    let (path, _) = form.done(&person).await;
    let mut pages = Vec::new();
    let encoded: String = url::form_urlencoded::byte_serialize(EVIL.as_bytes()).collect();
    for page in [
        "/ui/servers".to_owned(),
        format!("/ui/servers?q={encoded}"),
        path.clone(),
        format!("{path}/tools"),
        format!("{path}/tools?tool={encoded}"),
        format!("{path}/tools?tool={encoded}x"),
        format!("{path}/prompts"),
        format!("{path}/settings"),
        format!("{path}/people"),
        format!("{path}/people/revoke?user={encoded}"),
        format!("{path}/connect"),
        format!("{path}/delete"),
    ] {
        pages.push((page.clone(), person.open(&page).await));
    }
    let argument = format!("arg/{}", EVIL.replace('~', "~0").replace('/', "~1"));
    for form in [
        vec![("action", "call"), ("tool", EVIL), (argument.as_str(), EVIL)],
        vec![("action", "call"), ("tool", EVIL)],
        vec![("as", EVIL)],
    ] {
        pages.push((
            format!("tools {form:?}"),
            person.send(&format!("{path}/tools"), &form).await,
        ));
    }
    for form in [
        vec![("action", "get"), ("name", EVIL)],
        vec![("action", "read"), ("uri", EVIL)],
    ] {
        pages.push((
            format!("prompts {form:?}"),
            person.send(&format!("{path}/prompts"), &form).await,
        ));
    }
    let wrong = [
        ("server_name", EVIL),
        ("url", EVIL),
        ("timeout", EVIL),
        ("description", EVIL),
    ];
    pages.push(("new".into(), person.send(NEW, &wrong).await));
    let mut told = 0;
    for (name, got) in pages {
        let page = html(&got);
        assert_eq!(
            count(&page, "img, body script, [onerror], b"),
            0,
            "{name}: {}",
            page.html()
        );
        told += usize::from(text(&page, "main").contains("onerror=alert(1)"));
    }
    assert!(told >= 10, "{told} pages show the text at all");
}

#[tokio::test]
async fn a_probe_says_what_is_there_and_fills_in_what_is_empty() {
    let provider = Provider::start().await;
    let guarded = provider.upstream().await;
    let open = Upstream::start().await;
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;
    let probe = async |url: &str| html(&person.send("/ui/servers/probe", &[("url", url)]).await);
    let said = probe(&open.url()).await;
    assert!(
        text(&said, ".note").contains("MCP over Streamable HTTP answers"),
        "{}",
        said.html()
    );
    let said = text(&probe(&guarded.url()).await, ".note");
    for words in [
        "asks for a credential",
        "Authorization server",
        "registers clients by itself",
        "PKCE with S256 is offered",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = text(&probe("http://127.0.0.1:9/mcp").await, ".note");
    assert!(said.contains("Nothing usable answered"), "{said}");
    for nonsense in ["", "ftp://x.test/", "javascript:alert(1)", "http://"] {
        let said = text(&probe(nonsense).await, ".note");
        assert!(
            said.contains("takes an http or https address"),
            "{nonsense}: {said}"
        );
    }
    // Without a script the button does it, and what was typed stays.
    let form = new_form(&person)
        .await
        .fill("MCP Server Name", "one")
        .fill("MCP Server URL", &guarded.url());
    let page = form.press(&person, "Probe").await;
    assert!(
        text(&page, "#probe").contains("Authorization server"),
        "{}",
        text(&page, "main")
    );
    let form = Form::with(page, "Create MCP Server");
    assert_eq!(form.value("Authentication"), "oauth2");
    assert_eq!(form.value("MCP Server Name"), "one");
    form.done(&person).await;
    // Too many are told so.
    let mut told = false;
    for _ in 0..40 {
        told |= text(&probe("http://127.0.0.1:9/mcp").await, ".note").contains("Too many probes");
    }
    assert!(told, "there is a limit");
    let unknown = got(gateway.http.post(gateway.url("/ui/servers/probe")).body("url=x")).await;
    assert_eq!(unknown.status, 403, "no form of ours");
}

#[tokio::test]
async fn nobody_probes_what_is_no_server() {
    let gateway = TestGateway::with_servers("  {}\n").await;
    let person = Person::operator(&gateway).await;
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://0xa9fea9fe/mcp",
        "http://169.254.0.7:8080/mcp",
        "http://[fe80::1]/mcp",
        "http://[::ffff:169.254.169.254]/mcp",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://100.100.100.200/mcp",
        "http://0.0.0.0:9/mcp",
    ] {
        let said = html(&person.send("/ui/servers/probe", &[("url", url)]).await);
        let said = text(&said, ".note");
        let refused = "This is the address of a metadata service, link-local or reserved.";
        assert!(said.contains(refused), "{url}: {said}");
    }
}

#[tokio::test]
async fn health_is_told_apart_from_sign_ins() {
    let provider = Provider::start().await;
    let (up, asks) = (Upstream::start().await, provider.upstream().await);
    let idp = Idp::start().await;
    idp.set_default(Reply::error(400, "invalid_client"));
    let servers = [
        entry("up", &format!("url: {}", up.url())),
        entry("down", "url: http://127.0.0.1:9/mcp"),
        entry("asks", &format!("url: {}\nauth_type: oauth2", asks.url())),
        machine("locked", &up.url(), &idp.url(), ""),
    ];
    let gateway = TestGateway::with_servers(&servers.concat()).await;
    let person = Person::operator(&gateway).await;
    let list = person.page("/ui/servers").await;
    assert!(
        text(&list, "#servers").contains("health unknown"),
        "{}",
        text(&list, "main")
    );
    let list = person.done("/ui/servers/check", &[]).await;
    let card = |name: &str| {
        let selector = scraper::Selector::parse("article").expect("a selector");
        let mut cards = list.select(&selector);
        let found = cards.find(|card| {
            card.value()
                .attr("data-text")
                .is_some_and(|text| text.starts_with(name))
        });
        words(found.expect("a card"))
    };
    assert!(
        !card("up ").contains("unhealthy") && card("up ").contains("healthy"),
        "{}",
        card("up ")
    );
    assert!(
        card("down ").contains("unhealthy") && card("down ").contains("upstream_unreachable"),
        "{}",
        card("down ")
    );
    assert!(
        card("locked ").contains("unhealthy") && card("locked ").contains("token_refused"),
        "{}",
        card("locked ")
    );
    let asking = card("asks ");
    assert!(
        asking.contains("health unknown") && asking.contains("sign-in needed"),
        "{asking}"
    );
    let down = person.page(&link(&list, "down")).await;
    let told = text(&down, "section[aria-labelledby=health]");
    assert!(told.contains("unhealthy") && told.contains("since"), "{told}");
}

#[tokio::test]
async fn who_is_connected_is_shown_and_ended() {
    let provider = Provider::start().await;
    let upstream = provider.upstream().await;
    let fields = format!("url: {}\nauth_type: oauth2\nallow_all_keys: true", upstream.url());
    let place = Place::new();
    let store = place.store().await;
    put_user(&store, "mia", "member").await;
    let key = put_key(&store, "mias", Some("mia"), "{}").await;
    let gateway = with_place(&place, &entry("one", &fields)).await;
    let operator = Person::operator(&gateway).await;
    let path = link(&operator.page("/ui/servers").await, "one");
    let id = path.rsplit('/').next().expect("an id");
    let keep = gateway
        .http
        .post(gateway.url(&format!("/v1/mcp/server/{id}/oauth-user-credential")))
        .header("x-litellm-api-key", &key)
        .json(&json!({"access_token": "canary-access"}));
    assert_eq!(got(keep).await.status, 200);
    let mia = Person::signed_in(&gateway, &key, "").await;
    assert!(text(&mia.page("/ui/servers").await, "#servers").contains("connected"));
    let people = operator.page(&format!("{path}/people")).await;
    assert!(
        text(&people, "tbody").contains("mia"),
        "{}",
        text(&people, "main")
    );
    assert!(!people.html().contains("canary-access"));
    let question = operator.page(&link(&people, "Revoke")).await;
    let (_, after) = Form::with(question, "Revoke").done(&operator).await;
    assert!(
        text(&after, "main").contains("Nobody is connected"),
        "{}",
        text(&after, "main")
    );
    assert!(text(&mia.page("/ui/servers").await, "#servers").contains("sign-in needed"));
}

#[tokio::test]
async fn what_a_provider_says_is_text() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    idp.set_default(Reply::OAuthError {
        status: 400,
        error: "invalid_client".into(),
        description: Some("<img src=x onerror=alert(1)>".into()),
    });
    let gateway = TestGateway::with_servers(&machine("one", &upstream.url(), &idp.url(), "")).await;
    let person = Person::operator(&gateway).await;
    let path = link(&person.page("/ui/servers").await, "one");
    for page in [format!("{path}/tools"), format!("{path}/prompts"), path.clone()] {
        let page = person.page(&page).await;
        assert_eq!(count(&page, "img, [onerror]"), 0);
        assert!(
            text(&page, "main").contains("token_refused"),
            "{}",
            text(&page, "main")
        );
    }
    assert_nothing_secret_logged(&[]);
}
