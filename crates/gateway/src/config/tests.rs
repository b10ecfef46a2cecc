//! What files mean and what is said about wrong ones.

use super::*;
use secrecy::ExposeSecret;

fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn load_with(text: &str, pairs: &[(&str, &str)]) -> Loaded {
    load(text, &environment(pairs))
}

pub(super) fn lines(text: &str) -> Vec<String> {
    load_with(text, &[])
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub(super) fn settings(text: &str) -> Settings {
    let loaded = load_with(text, &[]);
    loaded
        .settings
        .unwrap_or_else(|| panic!("{:#?}", loaded.findings))
}

pub(super) fn server(fields: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    format!("mcp_servers:\n  one:\n    url: http://localhost:1/mcp\n{fields}")
}

const MACHINE: &str =
    "auth_type: oauth2\nclient_id: id\nclient_secret: s3cret\ntoken_url: http://localhost:1/token\n";

#[test]
fn the_seeds_machine_example() {
    let loaded = load_with(
        r#"
mcp_servers:
  my_mcp_server:
    url: "https://my-mcp-server.com/mcp"
    auth_type: oauth2
    client_id: os.environ/MCP_CLIENT_ID
    client_secret: os.environ/MCP_CLIENT_SECRET
    token_url: "https://auth.example.com/oauth/token"
    scopes: ["mcp:read", "mcp:write"] # optional
"#,
        &[("MCP_CLIENT_ID", "null"), ("MCP_CLIENT_SECRET", "s3cret")],
    );
    let settings = loaded.settings.expect("usable");
    let Auth::ClientCredentials { token_url, request } = &settings.servers[0].auth else {
        panic!("machine token")
    };
    assert_eq!(token_url.as_str(), "https://auth.example.com/oauth/token");
    let ExchangeClient::Shared(client) = &request.client else {
        panic!("{request:?}");
    };
    assert_eq!(client.id, "null");
    let secret = client.secret.as_ref().expect("a secret");
    assert_eq!(secret.expose_secret(), "s3cret");
    assert_eq!(request.grant.scopes, ["mcp:read", "mcp:write"]);
    assert_eq!(
        loaded.findings[0].to_string(),
        "3:3: note: mcp_servers.my_mcp_server: oauth2_flow is client_credentials: token_url, client_id and \
         client_secret are set, and authorization_url is not"
    );
    assert!(!format!("{settings:?}").contains("s3cret"));
}

#[test]
fn every_problem_is_reported_at_once_with_place_and_nearest_name() {
    let found = lines(
        "mcp_server: {}\n\
         mcp_servers:\n\
         \x20 a-b: {url: 'ftp://x'}\n\
         \x20 two:\n\
         \x20   url: os.environ/NOWHERE\n\
         \x20   tokn_url: x\n\
         \x20   zebra: x\n\
         \x20   alowed_tools: []\n\
         \x20   pinned_tools: [echo]\n\
         \x20   timeout: soon\n\
         \x20   extra_headers: x\n\
         general_settings:\n\
         \x20 master_keey: x\n\
         \x20 mcp_what: 1\n\
         \x20 alerting: [slack]\n",
    );
    are(
        &found,
        "1:1: error: mcp_server: unknown section; did you mean mcp_servers?
3:3: error: mcp_servers.a-b: a server's name cannot contain '-', which separates it from a tool's name; use '_'
3:14: error: mcp_servers.a-b.url: takes an http or https URL, and this begins with ftp:
5:10: error: mcp_servers.two.url: the environment variable NOWHERE is not set
6:5: error: mcp_servers.two.tokn_url: unknown field; did you mean token_url?
7:5: error: mcp_servers.two.zebra: unknown field
8:5: error: mcp_servers.two.alowed_tools: unknown field; did you mean allowed_tools?
9:5: error: mcp_servers.two.pinned_tools: not supported yet; it belongs to tool rules
10:14: error: mcp_servers.two.timeout: takes a number of seconds above 0 and up to 2592000
11:20: error: mcp_servers.two.extra_headers: takes a list of texts
13:3: error: general_settings.master_keey: unknown field; did you mean master_key?
14:3: error: general_settings.mcp_what: unknown field",
    );
}

fn are(found: &[String], expected: &str) {
    assert_eq!(found.join("\n"), expected);
}

#[test]
fn what_is_litellms_business_is_passed_over() {
    let loaded = load_with(
        "model_list: [{model_name: os.environ/UNSET}]\nrouter_settings: {}\nlitellm_settings: {drop_params: true}\n\
         mcp_servers: {}\n",
        &[],
    );
    assert!(loaded.settings.is_some(), "{:?}", loaded.findings);
    assert_eq!(
        loaded.passed_over,
        ["model_list", "router_settings", "litellm_settings.drop_params"]
    );
}

#[test]
fn sections_that_would_change_behaviour_are_refused() {
    assert_eq!(
        lines("include: [a.yaml]\nmcp_servers: {}\n"),
        ["1:1: error: include: not supported yet; it belongs to configuration split over several files"]
    );
}

#[test]
fn modes_that_are_not_built_are_refused_by_name() {
    let found = lines(&server("tool_name_to_display_name: {echo: say}")).join("\n");
    assert!(
        found.contains("not supported yet; it belongs to tool rules"),
        "{found}"
    );
}

#[test]
fn the_value_that_means_nothing_is_no_problem() {
    settings(&server(
        "delegate_auth_to_upstream: false\navailable_on_public_internet: true\nregistration_url:",
    ));
}

#[test]
fn flow_inference() {
    let with = |more: &str| lines(&server(&format!("{MACHINE}{more}"))).join("\n");
    assert!(with("").contains("note: mcp_servers.one: oauth2_flow is client_credentials"));
    assert!(
        with("authorization_url: http://localhost:1/a")
            .contains("note: mcp_servers.one: oauth2_flow is authorization_code: authorization_url is set")
    );
    let bare = lines(&server("auth_type: oauth2")).join("\n");
    let expected = "note: mcp_servers.one: oauth2_flow is authorization_code: token_url, client_id, client_secret left out";
    assert!(bare.contains(expected), "{bare}");
    assert_eq!(
        with("authorization_url: http://localhost:1/a\noauth2_flow: client_credentials"),
        ""
    );
    let missing = lines(&server(
        "auth_type: oauth2\noauth2_flow: client_credentials\nclient_id: a",
    ))
    .join("\n");
    assert!(missing.contains("needs token_url, client_secret"), "{missing}");
}

#[test]
fn sign_in_fields() {
    let settings = settings(&server(
        "auth_type: oauth2\nclient_id: a\nscopes: [x, y]\nsend_resource: always\nrequire_pkce: false\n\
         consent: never\ntoken_validation: {team.id: T1}\ntoken_storage_ttl_seconds: 60\nissuer: https://as/",
    ));
    let Auth::AuthorizationCode(sign_in) = &settings.servers[0].auth else {
        panic!("sign-in")
    };
    let client = sign_in.client.as_ref().expect("a client");
    assert_eq!(client.auth_method, vestibule_oauth::ClientAuthMethod::None);
    assert_eq!(sign_in.scopes, ["x", "y"]);
    assert_eq!(sign_in.resource, SendResource::Always(None));
    assert_eq!(sign_in.consent, Consent::Never);
    assert_eq!(sign_in.issuer.as_deref(), Some("https://as/"));
    assert!(!sign_in.require_pkce && !sign_in.token_rules.is_empty());
    assert_eq!(sign_in.storage_ttl, Some(std::time::Duration::from_secs(60)));
    for (fields, expected) in [
        (
            "client_secret: s",
            "client_secret: has no effect without client_id",
        ),
        ("consent: never", "consent: has no effect without client_id"),
        (
            "client_id: a\nregistration_url: https://as/r",
            "is not used beside client_id",
        ),
        ("issuer: 'https://as/?x'", "without query and fragment"),
        (
            "audience: a",
            "has no effect with oauth2_flow: authorization_code",
        ),
        ("token_validation: [a]", "token_validation: "),
        ("token_validation: {a: {b: c}}", "token_validation: "),
        ("send_resource: sometimes", "send_resource: "),
    ] {
        let found = lines(&server(&format!("auth_type: oauth2\n{fields}"))).join("\n");
        assert!(
            found.contains("error: ") && found.contains(expected),
            "{fields}: {found}"
        );
    }
    let machine = lines(&server(&format!("{MACHINE}require_pkce: false"))).join("\n");
    assert!(
        machine.contains("has no effect with oauth2_flow: client_credentials"),
        "{machine}"
    );
}

#[test]
fn the_public_origin_and_who_may_name_it() {
    let with = |general: &str, base: Option<&str>| {
        let text = format!("general_settings: {general}\nmcp_servers: {{}}");
        let pairs: Vec<_> = base.map(|base| ("PROXY_BASE_URL", base)).into_iter().collect();
        load_with(&text, &pairs)
    };
    let base = |text| {
        let loaded = with("{}", Some(text));
        let settings = loaded.settings.expect("usable");
        (
            settings.origin.base.map(|base| base.to_string()),
            loaded.findings.len(),
        )
    };
    for (text, expected) in [
        ("https://llm.example.com", "https://llm.example.com"),
        ("https://llm.example.com/", "https://llm.example.com"),
        (" https://llm.example.com:443 ", "https://llm.example.com"),
        ("http://llm.example.com:8080", "http://llm.example.com:8080"),
    ] {
        assert_eq!(base(text), (Some(expected.to_owned()), 0), "{text}");
    }
    for text in [
        "llm.example.com",
        "ftp://x",
        "https://",
        "://x",
        "https://x/path",
        "https://x?y",
        "words",
    ] {
        let (found, findings) = base(text);
        assert_eq!((found, findings), (None, 1), "{text}");
    }
    let trusting = "{use_x_forwarded_for: true, mcp_trusted_proxy_ranges: ['10.0.0.0/8', '::1']}";
    let loaded = with(trusting, None);
    assert_eq!(loaded.settings.expect("usable").origin.trusted_peers.len(), 2);
    for (general, expected) in [
        (
            "{use_x_forwarded_for: true}",
            "warning: general_settings.use_x_forwarded_for: has no effect",
        ),
        (
            "{mcp_trusted_proxy_ranges: ['10.0.0.0/8']}",
            "warning: general_settings.mcp_trusted_proxy_ranges",
        ),
        (
            "{use_x_forwarded_for: true, mcp_trusted_proxy_ranges: ['0.0.0.0/0']}",
            "trusts every address",
        ),
        (
            "{use_x_forwarded_for: true, mcp_trusted_proxy_ranges: [ten]}",
            "neither an address nor",
        ),
    ] {
        let loaded = with(general, None);
        let found: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        assert!(found.join("\n").contains(expected), "{general}: {found:?}");
        let trusted = loaded.settings.map(|settings| settings.origin.trusted_peers);
        assert!(trusted.is_none_or(|trusted| trusted.is_empty()), "{general}");
    }
}

#[test]
fn static_types_map_to_headers() {
    for (auth_type, token, header, value) in [
        ("api_key", "k", "x-api-key", "k"),
        ("bearer_token", "k", "authorization", "Bearer k"),
        ("bearer_token", "Bearer k", "authorization", "Bearer k"),
        ("token", "k", "authorization", "token k"),
        ("authorization", "Custom k", "authorization", "Custom k"),
        ("basic", "user:pass", "authorization", "Basic dXNlcjpwYXNz"),
        ("basic", "dXNlcjpwYXNz", "authorization", "Basic dXNlcjpwYXNz"),
        (
            "basic",
            "Basic dXNlcjpwYXNz",
            "authorization",
            "Basic dXNlcjpwYXNz",
        ),
    ] {
        let settings = settings(&server(&format!(
            "auth_type: {auth_type}\nauthentication_token: {token}"
        )));
        let Auth::Static { name, value: got, .. } = &settings.servers[0].auth else {
            panic!("static")
        };
        assert_eq!(
            (name.as_str(), got.to_str().expect("text")),
            (header, value),
            "{auth_type} {token}"
        );
        assert!(got.is_sensitive());
    }
}

#[test]
fn half_a_credential_is_refused() {
    for (fields, expected) in [
        (
            "auth_type: api_key",
            "auth_type: api_key needs authentication_token",
        ),
        (
            "auth_type: basic\nauthentication_token: nocolon",
            "takes user:password, or that in base64",
        ),
        (
            "auth_type: api_key\nauthentication_token: a\nauth_value: b",
            "are the same setting; keep one",
        ),
        (
            "authentication_token: a",
            "has no effect with auth_type: none; it belongs to a static auth_type",
        ),
        (
            "client_id: a",
            "has no effect with auth_type: none; it belongs to auth_type: oauth2",
        ),
        (
            "auth_type: token\nauthentication_token: a\nscopes: [b]",
            "has no effect with auth_type: token",
        ),
        (
            "auth_type: token\nauthentication_token: \"a\\nb\"",
            "has a character that no header may carry",
        ),
    ] {
        let found = lines(&server(fields)).join("\n");
        assert!(found.contains(expected), "{fields}: {found}");
    }
}

#[test]
fn headers_that_are_the_gateways_own_cannot_be_configured() {
    for (fields, expected) in [
        (
            "extra_headers: [X-LiteLLM-API-Key]",
            "x-litellm-api-key is the gateway's own and is never passed on",
        ),
        ("extra_headers: [mcp-session-id]", "is never passed on"),
        ("static_headers: {Host: x}", "is the gateway's own header"),
        ("static_headers: {'a b': x}", "is not a header name"),
        ("static_headers: {a: x, A: y}", "stands twice"),
    ] {
        let found = lines(&server(fields)).join("\n");
        assert!(found.contains(expected), "{fields}: {found}");
    }
    let found = lines(&server(&format!("{MACHINE}static_headers: {{authorization: x}}"))).join("\n");
    assert!(found.contains("would replace the credential"), "{found}");
}

#[test]
fn names_are_unique_across_servers_and_aliases() {
    let found = lines(
        "mcp_servers:\n  a: {url: 'http://x/', alias: b}\n  b: {url: 'http://x/', server_id: s}\n\
         \x20 c: {url: 'http://x/', server_id: s}\n  mcp: {url: 'http://x/'}\n",
    )
    .join("\n");
    assert!(
        found.contains("the name b already belongs to mcp_servers.a"),
        "{found}"
    );
    assert!(found.contains("has the same server_id as mcp_servers"), "{found}");
    assert!(found.contains("mcp is a path of the gateway"), "{found}");
}

#[test]
fn aliases_from_litellm_settings() {
    let text =
        "litellm_settings: {mcp_aliases: {short: long_name}}\nmcp_servers: {long_name: {url: 'http://x/'}}\n";
    assert_eq!(settings(text).servers[0].alias.as_deref(), Some("short"));
    let found = lines(&text.replace("{long_name:", "{long_nam:")).join("\n");
    assert!(
        found.contains("there is no server long_name; did you mean long_nam?"),
        "{found}"
    );
    let found = lines(&text.replace("{short:", "{sho-rt:")).join("\n");
    assert!(found.contains("cannot contain '-'"), "{found}");
}

#[test]
fn environment_variables_section_comes_before_the_process() {
    let text = "environment_variables: {A: from_file, B: os.environ/PROCESS}\n\
                general_settings: {master_key: os.environ/A}\n\
                mcp_servers: {a: {url: 'http://x/', static_headers: {x: os.environ/B}}}\n";
    let loaded = load_with(text, &[("A", "from_process"), ("PROCESS", "p")]);
    let settings = loaded.settings.expect("usable");
    assert_eq!(settings.master_key.expect("key").expose_secret(), "from_file");
    assert_eq!(settings.servers[0].static_headers[0].1, "p");
}

#[test]
fn the_master_key_comes_from_the_environment_too() {
    let key = |pairs: &[(&str, &str)]| {
        load_with("mcp_servers: {}\n", pairs)
            .settings
            .expect("usable")
            .master_key
            .map(|key| key.expose_secret().to_owned())
    };
    assert_eq!(key(&[("LITELLM_MASTER_KEY", "sk-1")]).as_deref(), Some("sk-1"));
    assert_eq!(key(&[("LITELLM_MASTER_KEY", "")]), None);
    let found = lines("general_settings: {master_key: 'a b'}\nmcp_servers: {}\n").join("\n");
    assert!(found.contains("takes printable ASCII without spaces"), "{found}");
}

#[test]
fn urls_that_would_leak_or_do_nothing_are_refused() {
    for (url, expected) in [
        ("http://user:pw@x/mcp", "has a user name or password in it"),
        ("http://x/mcp#a", "has a fragment"),
        ("x/mcp", "is not a URL"),
    ] {
        let found = lines(&format!("mcp_servers: {{a: {{url: '{url}'}}}}\n")).join("\n");
        assert!(found.contains(expected) && !found.contains("pw"), "{found}");
    }
    let found = lines(&server(
        &MACHINE.replace("localhost:1/token", "idp.example/token"),
    ))
    .join("\n");
    assert!(
        found.contains("warning: mcp_servers.one.token_url: http sends the client secret"),
        "{found}"
    );
}

#[test]
fn resource_is_checked_and_auto_is_the_url() {
    let resource = |value: &str| {
        let settings = settings(&server(&format!("{MACHINE}{value}")));
        let Auth::ClientCredentials { request, .. } = &settings.servers[0].auth else {
            panic!("machine token")
        };
        request.grant.resource.clone()
    };
    assert_eq!(
        resource("resource: auto").as_deref(),
        Some("http://localhost:1/mcp")
    );
    assert_eq!(resource("upstream_resource: urn:x:y").as_deref(), Some("urn:x:y"));
    assert_eq!(resource(""), None);
    assert!(!lines(&server(&format!("{MACHINE}resource: not a uri"))).is_empty());
    assert!(
        lines(&server(&format!(
            "{MACHINE}resource: auto\nupstream_resource: auto"
        )))
        .join("")
        .contains("keep one")
    );
}

#[test]
fn limits_are_read_and_bounded() {
    let text = "mcp_servers: {a: {url: 'http://x/', timeout: 0.5}}\nvestibule: {limits: {max_body_bytes: 10, drain_timeout: 1.5}}\n";
    let settings = settings(text);
    assert_eq!(settings.limits.max_body_bytes, 10);
    assert_eq!(settings.limits.drain_timeout.as_millis(), 1500);
    assert_eq!(settings.servers[0].first_byte_timeout.as_millis(), 500);
    let found =
        lines("mcp_servers: {}\nvestibule: {limits: {max_header_bytes: 10, max_body_bytes: -1, drain: 1}}\n")
            .join("\n");
    for expected in [
        "takes at least 8192",
        "takes a whole number above zero",
        "limits.drain: unknown field",
    ] {
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn server_ids_are_litellms() {
    // printf 'one|http://localhost:1/mcp|http||' | sha256sum | head -c 32
    assert_eq!(
        settings(&server("")).servers[0].id,
        "53ce4cff439a4df5a1e2acc2b03a1526"
    );
    assert_eq!(settings(&server("server_id: pinned")).servers[0].id, "pinned");
}
