//! Tables of redirect URIs, good and bad, and what no URI may do.

use super::*;
use proptest::prelude::*;
use url::Url;

const PUBLIC: &str = "https://llm.example.com";

fn rules() -> RedirectRules {
    let (rules, warnings) = RedirectRules::parse(
        "app.example.com, *.tools.example.com ,https://Full.Example.com:443/some/path, port.example.com:8443",
        "warp://mcp/oauth2callback, app://host/callback*, dir://host/cb/*",
    );
    assert_eq!(warnings, Vec::<String>::new());
    rules
}

fn judge(uri: &str) -> Result<JudgedRedirectUri, RedirectRejection> {
    rules().judge(uri, &Origin::parse(PUBLIC).expect("origin"))
}

#[test]
fn what_is_trusted_and_why() {
    for (uri, trust, host) in [
        (
            "https://llm.example.com/ui/cb",
            Trust::SameOrigin,
            "llm.example.com",
        ),
        (
            "https://llm.example.com:443/ui/cb",
            Trust::SameOrigin,
            "llm.example.com:443",
        ),
        ("HTTPS://LLM.Example.COM/cb", Trust::SameOrigin, "llm.example.com"),
        ("https://llm.example.com", Trust::SameOrigin, "llm.example.com"),
        (
            "https://llm.example.com/?a=b%20c",
            Trust::SameOrigin,
            "llm.example.com",
        ),
        ("http://localhost", Trust::Loopback, "localhost"),
        ("http://localhost/callback", Trust::Loopback, "localhost"),
        (
            "http://LOCALHOST:3118/callback",
            Trust::Loopback,
            "localhost:3118",
        ),
        (
            "https://localhost:3118/callback",
            Trust::Loopback,
            "localhost:3118",
        ),
        (
            "http://127.0.0.1:60108/callback",
            Trust::Loopback,
            "127.0.0.1:60108",
        ),
        ("http://127.8.9.10/", Trust::Loopback, "127.8.9.10"),
        ("http://[::1]:1", Trust::Loopback, "[::1]:1"),
        ("http://[0:0:0:0:0:0:0:1]:80/cb", Trust::Loopback, "[::1]:80"),
        (
            "http://[::ffff:127.0.0.1]:1/",
            Trust::Loopback,
            "[::ffff:7f00:1]:1",
        ),
        (
            "http://127.0.0.1:33418/?x=1&y=2",
            Trust::Loopback,
            "127.0.0.1:33418",
        ),
        ("https://app.example.com/cb", Trust::Listed, "app.example.com"),
        (
            "https://app.example.com:443/cb",
            Trust::Listed,
            "app.example.com:443",
        ),
        ("https://full.example.com/else", Trust::Listed, "full.example.com"),
        (
            "https://port.example.com:8443/cb",
            Trust::Listed,
            "port.example.com:8443",
        ),
        (
            "https://a.tools.example.com/cb",
            Trust::Listed,
            "a.tools.example.com",
        ),
        (
            "https://a.b.tools.example.com/",
            Trust::Listed,
            "a.b.tools.example.com",
        ),
        (
            "https://a.tools.example.com:8443/cb",
            Trust::Listed,
            "a.tools.example.com:8443",
        ),
        (
            "cursor://anysphere.cursor-mcp/oauth/callback",
            Trust::Native,
            "cursor://anysphere.cursor-mcp",
        ),
        (
            "CURSOR://Anysphere.Cursor-MCP/OAuth/Callback",
            Trust::Native,
            "cursor://anysphere.cursor-mcp",
        ),
        ("warp://mcp/oauth2callback", Trust::Native, "warp://mcp"),
        ("app://host/callback", Trust::Native, "app://host"),
        ("app://host/callback/extra", Trust::Native, "app://host"),
        ("dir://host/cb/x/y", Trust::Native, "dir://host"),
        ("dir://host/cb/", Trust::Native, "dir://host"),
    ] {
        let judged = judge(uri).unwrap_or_else(|rejection| panic!("{uri}: {rejection}"));
        assert_eq!(
            (judged.as_str(), judged.trust(), judged.host()),
            (uri, trust, host)
        );
    }
}

#[test]
fn what_is_well_formed_and_not_trusted() {
    for (uri, setting) in [
        ("https://llm.example.com:8443/cb", ORIGINS_SETTING),
        ("http://llm.example.com/cb", "PROXY_BASE_URL"),
        ("http://llm.example.com:443/cb", "PROXY_BASE_URL"),
        ("https://llm.example.com./cb", ORIGINS_SETTING),
        ("https://evil.com/https://llm.example.com/", ORIGINS_SETTING),
        ("https://llm.example.com.evil.com/", ORIGINS_SETTING),
        ("https://evil-llm.example.com/", ORIGINS_SETTING),
        ("http://127.0.0.1.evil.com/cb", "PROXY_BASE_URL"),
        ("https://127.0.0.1.evil.com/cb", ORIGINS_SETTING),
        ("http://localhost.evil.com/cb", "PROXY_BASE_URL"),
        ("http://localhost./cb", "PROXY_BASE_URL"),
        ("http://evil.localhost/cb", "PROXY_BASE_URL"),
        ("http://0.0.0.0/cb", "PROXY_BASE_URL"),
        ("http://[::]/cb", "PROXY_BASE_URL"),
        ("http://[::ffff:10.0.0.1]/cb", "PROXY_BASE_URL"),
        ("https://8.8.8.8/cb", ORIGINS_SETTING),
        ("http://app.example.com/cb", "PROXY_BASE_URL"),
        ("http://a.tools.example.com/cb", "PROXY_BASE_URL"),
        ("https://app.example.com:8443/cb", ORIGINS_SETTING),
        ("https://port.example.com/cb", ORIGINS_SETTING),
        ("https://tools.example.com/cb", ORIGINS_SETTING),
        ("https://eviltools.example.com/cb", ORIGINS_SETTING),
        ("https://tools.example.com.attacker.net/cb", ORIGINS_SETTING),
        ("https://vscode.dev/redirect", ORIGINS_SETTING),
        ("cursor://anysphere.cursor-mcp/oauth/callback/x", NATIVE_SETTING),
        ("cursor://anysphere.cursor-mcp/oauth/callback2", NATIVE_SETTING),
        ("cursor://anysphere.cursor-mcp:1/oauth/callback", NATIVE_SETTING),
        ("cursor://evil/oauth/callback", NATIVE_SETTING),
        ("app://host/callback-2", NATIVE_SETTING),
        ("dir://host/cb", NATIVE_SETTING),
        ("vscode://anysphere.cursor-mcp/oauth/callback", NATIVE_SETTING),
    ] {
        let rejection = judge(uri).expect_err(uri);
        assert_eq!(rejection.setting(), Some(setting), "{uri}");
        assert!(rejection.to_string().contains(setting), "{uri}: {rejection}");
        assert!(rejection.to_string().contains(PUBLIC), "{uri}: {rejection}");
        assert!(!rejection.public_text().contains("llm.example"), "{uri}");
    }
}

#[test]
fn what_is_malformed_whatever_the_settings() {
    use UriFault as Fault;
    let long = format!("https://llm.example.com/{}", "a".repeat(LENGTH_LIMIT));
    for (uri, fault) in [
        ("", Fault::Empty),
        (long.as_str(), Fault::TooLong),
        ("https://llm.example.com/\u{fc}", Fault::Character),
        ("http://loc\u{ff41}lhost/cb", Fault::Character),
        ("http://127\u{3002}0.0.1/cb", Fault::Character),
        (" https://llm.example.com/", Fault::Character),
        ("https://llm.example.com/\n", Fault::Character),
        ("java\tscript://h/", Fault::Character),
        ("https://llm.example.com\\@evil.com/", Fault::Character),
        ("https://llm.example.com/a\\..\\b", Fault::Character),
        ("https://llm.example.com/\"><script>", Fault::Character),
        ("https://llm.example.com/{x}", Fault::Character),
        ("https://llm.example.com/\0", Fault::Character),
        ("https://llm.example.com/?a[]=1", Fault::Character),
        ("https://llm.example.com/%", Fault::PercentEncoding),
        ("https://llm.example.com/%2", Fault::PercentEncoding),
        ("https://llm.example.com/%zz", Fault::PercentEncoding),
        ("https://llm.example.com/#", Fault::Fragment),
        ("http://localhost/cb#x", Fault::Fragment),
        ("cursor://anysphere.cursor-mcp/oauth/callback#x", Fault::Fragment),
        ("llm.example.com/cb", Fault::NoScheme),
        ("//llm.example.com/cb", Fault::NoScheme),
        ("/cb", Fault::NoScheme),
        ("1http://localhost/", Fault::NoScheme),
        ("localhost:3000/cb", Fault::NoHost),
        ("urn:ietf:wg:oauth:2.0:oob", Fault::NoHost),
        ("com.example.app:/oauth2redirect", Fault::NoHost),
        ("https:/llm.example.com/", Fault::NoHost),
        ("https:llm.example.com", Fault::NoHost),
        ("https:///llm.example.com", Fault::NoHost),
        ("https:///x", Fault::NoHost),
        ("https://", Fault::NoHost),
        ("https://?x", Fault::NoHost),
        ("cursor:///oauth/callback", Fault::NoHost),
        ("javascript:alert(1)", Fault::DangerousScheme),
        ("JavaScript://llm.example.com/%0aalert(1)", Fault::DangerousScheme),
        ("data:text/html,x", Fault::DangerousScheme),
        ("file:///etc/passwd", Fault::DangerousScheme),
        ("vbscript://h/x", Fault::DangerousScheme),
        ("blob:https://llm.example.com/x", Fault::DangerousScheme),
        ("ftp://llm.example.com/", Fault::DangerousScheme),
        ("wss://llm.example.com/", Fault::DangerousScheme),
        ("http://localhost:80@evil.com/", Fault::UserInformation),
        ("https://llm.example.com:443@evil.com/", Fault::UserInformation),
        ("https://user@llm.example.com/", Fault::UserInformation),
        ("https://@llm.example.com/", Fault::UserInformation),
        (
            "cursor://x@anysphere.cursor-mcp/oauth/callback",
            Fault::UserInformation,
        ),
        ("http://0x7f.1/", Fault::Host),
        ("http://0x7f000001/", Fault::Host),
        ("http://2130706433/", Fault::Host),
        ("http://127.1/", Fault::Host),
        ("http://127.0.0.01/", Fault::Host),
        ("http://0177.0.0.1/", Fault::Host),
        ("http://127.0.0.1./", Fault::Host),
        ("http://%6cocalhost/", Fault::Host),
        ("http://local%00host/", Fault::Host),
        ("http://[::1%25lo]/", Fault::Host),
        ("http://[::1/", Fault::Host),
        ("http://[::1]evil.com/", Fault::Host),
        ("http://[localhost]/", Fault::Host),
        ("http://::1/", Fault::Host),
        ("http://localhost:/", Fault::Host),
        ("http://localhost:0/", Fault::Host),
        ("http://localhost:080/", Fault::Host),
        ("http://localhost:65536/", Fault::Host),
        ("http://localhost:80:80/", Fault::Host),
        ("http://localhost;evil.com/", Fault::Host),
        ("http://localhost,evil.com/", Fault::Host),
        ("https://*.tools.example.com/", Fault::Host),
        ("https://.tools.example.com/", Fault::Host),
        ("https://a..tools.example.com/", Fault::Host),
        ("https://llm.example.com/a/../b", Fault::Rewritten),
        ("https://llm.example.com/./b", Fault::Rewritten),
        ("https://llm.example.com/%2e%2E/b", Fault::Rewritten),
        ("https://llm.example.com/.%2e", Fault::Rewritten),
        ("dir://host/cb/../../evil", Fault::Rewritten),
        ("dir://host/cb/%2e%2e/evil", Fault::Rewritten),
    ] {
        let rejection = judge(uri).expect_err(uri);
        assert_eq!(rejection, RedirectRejection::Malformed(fault), "{uri:?}");
        assert_eq!(rejection.setting(), None);
    }
}

#[test]
fn a_native_callback_has_no_query() {
    let rejection = judge("cursor://anysphere.cursor-mcp/oauth/callback?x=1").expect_err("query");
    assert!(matches!(rejection, RedirectRejection::NativeWithQuery { .. }));
    assert!(rejection.to_string().contains("query"));
}

#[test]
fn entries_that_grant_nothing_are_named() {
    let (rules, warnings) = RedirectRules::parse(
        ", *..example.com,*,*.,/path,https://,a b,u@h,*.127.0.0.1,*.[::1],x:0,x:y,*.*.x, good.example.com,",
        "https://a/b,javascript://x/*,com.app:/cb,app://h/cb?x,app://h*,app://h/#f,ok://h/cb,**",
    );
    assert_eq!(warnings.len(), 19, "{warnings:#?}");
    let of = |setting: &str| warnings.iter().filter(|w| w.starts_with(setting)).count();
    assert_eq!((of(ORIGINS_SETTING), of(NATIVE_SETTING)), (12, 7));
    let public = Origin::parse(PUBLIC).expect("origin");
    for (uri, accepted) in [
        ("https://good.example.com/cb", true),
        ("ok://h/cb", true),
        ("cursor://anysphere.cursor-mcp/oauth/callback", true),
        ("https://a.example.com/cb", false),
        ("https://a.127.0.0.1/cb", false),
        ("app://h/cb", false),
        ("app://h/", false),
    ] {
        assert_eq!(rules.judge(uri, &public).is_ok(), accepted, "{uri}");
    }
}

#[test]
fn a_port_on_a_wildcard_entry_narrows_it() {
    let (rules, _) = RedirectRules::parse("*.a.example:8443,*.b.example:443", "");
    let public = Origin::parse(PUBLIC).expect("origin");
    for (uri, accepted) in [
        ("https://x.a.example:8443/", true),
        ("https://x.a.example/", false),
        ("https://x.b.example/", true),
        ("https://x.b.example:8443/", true),
    ] {
        assert_eq!(rules.judge(uri, &public).is_ok(), accepted, "{uri}");
    }
}

#[test]
fn an_http_gateway_is_its_own_origin() {
    let public = Origin::parse("http://gateway.internal:4000").expect("origin");
    let trust = |uri: &str| {
        RedirectRules::default()
            .judge(uri, &public)
            .map(|judged| judged.trust())
    };
    assert_eq!(trust("http://gateway.internal:4000/cb"), Ok(Trust::SameOrigin));
    assert!(trust("http://gateway.internal/cb").is_err());
    assert!(trust("https://gateway.internal:4000/cb").is_err());
}

#[test]
fn registered_and_presented() {
    for (registered, presented, same) in [
        ("https://a.b/cb", "https://a.b/cb", true),
        ("https://a.b/cb", "https://a.b/cb/", false),
        ("https://a.b/cb", "https://A.b/cb", false),
        ("https://a.b/cb", "https://a.b:443/cb", false),
        ("https://a.b/cb", "https://a.b/cb?x=1", false),
        ("https://a.b/cb", "https://a.b:8443/cb", false),
        ("http://a.b/cb", "http://a.b:1/cb", false),
        (
            "http://localhost/callback",
            "http://localhost:49152/callback",
            true,
        ),
        ("http://localhost:1/callback", "http://localhost:2/callback", true),
        (
            "http://localhost:3118/callback",
            "http://localhost/callback",
            true,
        ),
        ("http://LOCALHOST/callback", "http://localhost:2/callback", true),
        ("http://127.0.0.1/", "http://127.0.0.1:33418", true),
        ("http://127.0.0.1", "http://127.0.0.1:33418/", true),
        ("http://[::1]/cb", "http://[::1]:5/cb", true),
        ("http://[::1]/cb", "http://[0:0:0:0:0:0:0:1]:5/cb", true),
        ("http://localhost/cb?x=1", "http://localhost:5/cb?x=1", true),
        ("http://localhost/cb?x=1", "http://localhost:5/cb", false),
        ("http://localhost/cb", "http://localhost:5/cb?x=1", false),
        ("http://localhost/cb", "http://localhost:5/cb?", false),
        ("http://localhost/cb", "http://localhost:5/CB", false),
        ("http://localhost/cb", "http://localhost:5/cb/", false),
        ("http://localhost/cb", "http://127.0.0.1:5/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.2:5/cb", false),
        ("http://127.0.0.1/cb", "http://[::1]:5/cb", false),
        ("http://localhost/cb", "https://localhost:5/cb", false),
        ("https://localhost/cb", "https://localhost:5/cb", false),
        ("http://localhost/cb", "http://localhost:80@evil.com/cb", false),
        ("http://localhost/cb", "http://localhost.evil.com:5/cb", false),
        ("http://127.0.0.1/cb", "http://127.0.0.1.evil.com:5/cb", false),
        ("http://localhost/cb", "http://localhost:5/cb#x", false),
        ("http://127.0.0.1/cb", "http://0x7f.1:5/cb", false),
        ("cursor://a/b", "cursor://a/b", true),
        ("cursor://a/b", "cursor://a:1/b", false),
        ("cursor://a/b", "CURSOR://a/b", false),
        ("not a uri", "not a uri", true),
        ("", "http://localhost/", false),
    ] {
        assert_eq!(
            matches_registered(registered, presented),
            same,
            "{registered} {presented}"
        );
    }
}

#[test]
fn parameters_are_added_and_nothing_else_is_touched() {
    let answer = [("code", "a b&c"), ("state", "\u{fc}=+/")];
    for (uri, whole) in [
        (
            "http://127.0.0.1:1/cb",
            "http://127.0.0.1:1/cb?code=a+b%26c&state=%C3%BC%3D%2B%2F",
        ),
        ("http://h/cb?", "http://h/cb?code=a+b%26c&state=%C3%BC%3D%2B%2F"),
        (
            "http://h?x=%2a",
            "http://h?x=%2a&code=a+b%26c&state=%C3%BC%3D%2B%2F",
        ),
        (
            "http://h/?x=1&",
            "http://h/?x=1&code=a+b%26c&state=%C3%BC%3D%2B%2F",
        ),
        (
            "CURSOR://H/Cb",
            "CURSOR://H/Cb?code=a+b%26c&state=%C3%BC%3D%2B%2F",
        ),
        ("http://h/#f", "http://h/?code=a+b%26c&state=%C3%BC%3D%2B%2F"),
    ] {
        assert_eq!(with_parameters(uri, &answer), whole);
    }
    assert_eq!(
        with_parameters(
            "http://127.0.0.1:60108/callback",
            &[
                ("error", "access_denied"),
                ("error_description", "User declined access"),
                ("state", "client-original-state-xyz")
            ]
        ),
        "http://127.0.0.1:60108/callback?error=access_denied&error_description=User+declined+access\
         &state=client-original-state-xyz"
    );
    assert_eq!(with_parameters("http://h/cb?", &[]), "http://h/cb?");
    let judged = judge("http://localhost:1/?a=b").expect("loopback");
    assert_eq!(
        judged.with_parameters(&[("c", "d")]),
        "http://localhost:1/?a=b&c=d"
    );
}

proptest! {
    #[test]
    fn what_is_accepted_means_the_same_to_a_url_parser(
        uri in "(https?|HTTP|cursor|app|ftp|)(://|:/|:)((localhost|127\\.0\\.0\\.1|\\[::1\\]|app\\.example\\.com|host)|[a-z0-9.@:%\\\\\\[\\]-]{0,12})(:[0-9]{0,5})?[/a-zA-Z0-9.%?=&#@:\\\\ '-]{0,20}"
    ) {
        if let Ok(judged) = judge(&uri) {
            let url = Url::parse(&uri).expect("a URL parser takes it too");
            let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
            let shown = judged.host();
            let shown = shown.split_once("://").map_or(shown, |(_, rest)| rest);
            prop_assert!(shown == host || shown.strip_prefix(&host).is_some_and(|port| port.starts_with(':')));
            prop_assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
            if judged.trust() == Trust::Loopback {
                prop_assert!(is_loopback_host(&host));
            }
            prop_assert!(matches_registered(&uri, &uri));
            let answered = Url::parse(&judged.with_parameters(&[("code", "x y")])).expect("URL");
            prop_assert_eq!(answered.host_str(), url.host_str());
            prop_assert_eq!(answered.path(), url.path());
            let code = answered.query_pairs().last();
            prop_assert_eq!(code, Some(("code".into(), "x y".into())));
        }
    }

    #[test]
    fn nothing_makes_it_panic(uri in any::<String>(), other in any::<String>()) {
        let _ = judge(&uri);
        let _ = matches_registered(&uri, &other);
        let _ = with_parameters(&uri, &[(&other, &uri)]);
        let _ = RedirectRules::parse(&uri, &other);
    }
}
