//! Every choice of the form comes to a configuration that is accepted, and is read back as it was.

use super::*;
use crate::config::{self, StoredEntry};
use serde_json::json;
use std::collections::HashMap;
use vestibule_store::Version;

const SECRET: &str = "canary-secret-0123";

fn values(pairs: &[(&str, &str)]) -> Fields {
    let mut values = Fields::default();
    for (name, value) in pairs {
        values.set(name, *value);
    }
    values
}

fn create(pairs: &[(&str, &str)]) -> Result<Entered, Errors> {
    ServerForm::new(values(pairs)).read()
}

/// What the configuration finds wrong with these fields.
fn problems(fields: &Map<String, Value>) -> Vec<String> {
    let entry = StoredEntry {
        id: "1".into(),
        name: "one".into(),
        document: Value::Object(fields.clone()).to_string().into(),
        version: Version::from_number(1),
        created_at: 0,
        updated_at: 0,
        expires_at: None,
    };
    let loaded = config::load_with("mcp_servers: {}\n", &HashMap::new(), &[entry]);
    let left_out = loaded.left_out.iter().flat_map(|left| &left.problems);
    left_out.map(ToString::to_string).collect()
}

/// A filling for each mode that needs one.
fn filling(mode: &Mode) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        (NAME, "one"),
        (AUTH, mode.auth),
        ("url", "https://mcp.test/mcp"),
        ("description", "What it is."),
        ("access_groups", "a\nb"),
        ("static_headers", "X-One: 1\nX-Two: a: b"),
        ("timeout", "2.5"),
        ("allow_sampling", "false"),
        ("mcp_info", "{\"logo_url\": \"x\"}"),
    ];
    all.extend(mode.flow.map(|flow| (FLOW, flow)));
    let own: &[(&str, &str)] = match mode.auth {
        "basic" => &[("authentication_token", "user:canary-secret-0123")],
        "api_key" | "bearer_token" | "token" | "authorization" => &[("authentication_token", SECRET)],
        "oauth2" if mode.flow != Some(DELEGATED) => &[
            ("client_id", "id"),
            ("client_secret", SECRET),
            ("token_url", "https://as.test/token"),
            ("scopes", "read write\nmore"),
        ],
        "oauth2_token_exchange" => &[
            ("token_exchange_endpoint", "https://as.test/token"),
            ("client_id", "id"),
            ("client_secret", SECRET),
            ("audience", "aud"),
        ],
        "oauth2_id_jag" => &[
            ("token_exchange_endpoint", "https://idp.test/token"),
            ("id_jag_resource_token_endpoint", "https://idp.test/other"),
            ("audience", "https://as.test"),
            ("client_id", "id"),
            ("client_secret", SECRET),
        ],
        "aws_sigv4" => &[
            ("aws_access_key_id", "AKIA"),
            ("aws_secret_access_key", SECRET),
            ("aws_region_name", "eu-west-1"),
        ],
        _ => &[],
    };
    all.extend(own);
    all
}

#[test]
fn every_mode_is_accepted_and_read_back() {
    for mode in modes::MODES {
        let entered = create(&filling(mode)).unwrap_or_else(|errors| panic!("{}: {errors:?}", mode.label));
        let found = problems(&entered.fields);
        assert!(found.is_empty(), "{}: {found:?}", mode.label);
        let form = ServerForm::of("one", &entered.fields, &[]);
        assert_eq!(form.chosen().mode.label, mode.label);
        for (_, value) in form.values.iter() {
            assert!(!value.contains(SECRET), "{}: {value}", mode.label);
        }
        let html = form.render(&Errors::default(), &maud::html! {}).into_string();
        assert!(
            !html.contains(SECRET) && !html.contains("X-Two"),
            "{}",
            mode.label
        );
        // Submitted as it is, nothing changes but what was write-only, which stays.
        let again = form
            .read()
            .unwrap_or_else(|errors| panic!("{}: {errors:?}", mode.label));
        let mut expected = entered.fields.clone();
        expected.retain(|name, _| !modes::is_write_only(name));
        let mut kept = again.fields;
        kept.retain(|_, value| !value.is_null());
        assert_eq!(kept, expected, "{}", mode.label);
    }
}

#[test]
fn a_program_has_other_settings() {
    let entered = create(&[
        (NAME, "one"),
        (TRANSPORT, "stdio"),
        ("command", "npx"),
        ("args", "-y\nsome-server"),
        ("env", "TOKEN=a=b"),
        ("url", "https://left.over/"),
        ("static_headers", "X: y"),
    ])
    .expect("read");
    assert_eq!(
        Value::Object(entered.fields),
        json!({"transport": "stdio", "auth_type": "none", "command": "npx", "args": ["-y", "some-server"], "env": {"TOKEN": "a=b"}})
    );
}

#[test]
fn what_belongs_to_another_choice_is_not_sent() {
    let mut filled = filling(&modes::MODES[0]);
    filled.extend([("client_id", "left over"), ("aws_region_name", "left over")]);
    let fields = create(&filled).expect("read").fields;
    assert!(!fields.contains_key("client_id") && !fields.contains_key("aws_region_name"));
}

#[test]
fn secrets_stay_change_or_go() {
    let machine = Mode::of("oauth2", "client_credentials").expect("a mode");
    let before = create(&filling(machine)).expect("read").fields;
    let form = || ServerForm::of("one", &before, &[]);
    let edited = |pairs: &[(&str, &str)]| {
        let mut values = form().values.clone();
        for (name, value) in pairs {
            values.set(name, *value);
        }
        form().submitted(values).read()
    };
    let stays = edited(&[]).expect("read").fields;
    assert!(!stays.contains_key("client_secret") && !stays.contains_key("static_headers"));
    assert_eq!(stays["audience"], Value::Null);
    let changed = edited(&[("client_secret", "new")]).expect("read").fields;
    assert_eq!(changed["client_secret"], "new");
    let removed = edited(&[("remove:static_headers", "on")]).expect("read").fields;
    assert_eq!(removed["static_headers"], Value::Null);
    let errors = edited(&[("remove:client_secret", "on")]).expect_err("it is needed");
    assert_eq!(errors.of("client_secret"), Some("is required"));
    // With another mode the old mode's settings go, secrets too.
    let other = edited(&[(AUTH, "none")]).expect("read").fields;
    for name in ["client_secret", "client_id", "token_url", "oauth2_flow", "scopes"] {
        assert_eq!(other[name], Value::Null, "{name}");
    }
}

#[test]
fn what_cannot_be_read_is_said_by_field() {
    let errors = create(&[
        (AUTH, "oauth2"),
        (FLOW, "client_credentials"),
        ("url", " "),
        ("timeout", "soon"),
        ("static_headers", "no colon"),
        ("mcp_info", "{"),
        ("allow_sampling", "perhaps"),
    ])
    .expect_err("wrong");
    for (name, message) in [
        (NAME, "is required"),
        ("url", "is required"),
        ("client_id", "is required"),
        ("client_secret", "is required"),
        ("token_url", "is required"),
        ("timeout", "takes a number"),
        ("static_headers", "takes lines like Name: value"),
        ("allow_sampling", "takes Yes or No"),
    ] {
        assert_eq!(errors.of(name), Some(message), "{name}");
    }
    assert!(
        errors
            .of("mcp_info")
            .is_some_and(|message| message.starts_with("is not JSON"))
    );
}

#[test]
fn a_flow_that_is_not_written_is_inferred_as_the_configuration_does() {
    for (fields, flow) in [
        (
            json!({"client_id": "a", "client_secret": "b", "token_url": "c"}),
            "client_credentials",
        ),
        (
            json!({"client_id": "a", "client_secret": "b", "token_url": "c", "authorization_url": "d"}),
            "authorization_code",
        ),
        (
            json!({"client_id": "a", "client_secret": "b"}),
            "authorization_code",
        ),
        (
            json!({"delegate_auth_to_upstream": true}),
            "delegate_auth_to_upstream",
        ),
    ] {
        let mut fields = fields.as_object().expect("an object").clone();
        fields.insert("auth_type".into(), "oauth2".into());
        assert_eq!(mode_of(&fields), ("oauth2", flow), "{fields:?}");
    }
}

#[test]
fn only_the_chosen_modes_fields_are_shown() {
    let html = |pairs: &[(&str, &str)]| {
        ServerForm::new(values(pairs))
            .render(&Errors::default(), &maud::html! {})
            .into_string()
    };
    let shows = |html: &str, name: &str| {
        let field = html
            .split("<div class=\"field\"")
            .find(|part| part.contains(&format!("id=\"{name}\"")));
        !field
            .expect("on the form")
            .split('>')
            .next()
            .expect("a tag")
            .contains("hidden")
    };
    let machine = html(&[(AUTH, "oauth2"), (FLOW, "client_credentials")]);
    assert!(shows(&machine, "client_id") && shows(&machine, "token_url") && shows(&machine, "url"));
    assert!(!shows(&machine, "authorization_url") && !shows(&machine, "command"));
    let none = html(&[]);
    assert!(!shows(&none, "client_id") && !shows(&none, FLOW));
    let program = html(&[(TRANSPORT, "stdio"), ("command", "<b>\"x")]);
    assert!(shows(&program, "command") && !shows(&program, "url") && program.contains("&lt;b&gt;&quot;x"));
}
