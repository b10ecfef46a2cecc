//! Forms made from schemas: what each kind becomes, what comes back, and what hostile schemas come to.

use super::schema::{DEPTH_LIMIT, PART_LIMIT, TEXT_LIMIT};
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn form(schema: &Value) -> SchemaForm {
    let raw = RawValue::from_string(schema.to_string()).expect("JSON");
    SchemaForm::of(Some(&raw))
}

fn values(pairs: &[(&str, &str)]) -> Fields {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs);
    Fields::parse(text.finish().as_bytes())
}

fn read(schema: &Value, pairs: &[(&str, &str)]) -> Result<String, Vec<(String, String)>> {
    let read = form(schema).read(&values(pairs));
    read.map(|raw| raw.get().to_owned()).map_err(|errors| {
        errors
            .iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect()
    })
}

fn object_of(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

#[test]
fn every_kind_comes_back_as_it_was_written() {
    let schema = object_of(
        &json!({
            "text": {"type": "string"}, "number": {"type": "number"}, "whole": {"type": "integer"},
            "flag": {"type": "boolean"}, "choice": {"enum": ["a", 2, null]}, "fixed": {"const": "v1"},
            "list": {"type": "array", "items": {"type": "string"}},
            "numbers": {"type": "array", "items": {"type": "integer"}},
            "some": {"type": "array", "items": {"enum": ["x", "y", "z"]}},
            "any": {}, "a/b~c": {"type": "string"},
        }),
        &["fixed"],
    );
    let pairs = [
        ("arg/text", "two\nlines \"quoted\""),
        ("arg/number", " 1.50 "),
        ("arg/whole", "123456789012345678901234567890"),
        ("arg/flag", "false"),
        ("arg/choice", "2"),
        ("arg/list", "one\n\n two \n"),
        ("arg/numbers", "1\n-2"),
        ("arg/some", "\"x\""),
        ("arg/some", "\"z\""),
        ("arg/any", " {\"deep\": [1, 2.0]} "),
        ("arg/a~1b~0c", "odd"),
    ];
    let expected = r#"{"text":"two\nlines \"quoted\"","number":1.50,"whole":123456789012345678901234567890,"flag":false,"choice":2,"fixed":"v1","list":["one"," two "],"numbers":[1,-2],"some":["x","z"],"any":{"deep": [1, 2.0]},"a/b~c":"odd"}"#;
    assert_eq!(read(&schema, &pairs).expect("read"), expected);
    assert_eq!(read(&schema, &[]).expect("read"), r#"{"fixed":"v1"}"#);
}

#[test]
fn what_is_wrong_is_said_by_field_and_stays_in_the_form() {
    let schema = object_of(
        &json!({
            "name": {"type": "string", "minLength": 2, "maxLength": 3},
            "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10},
            "rate": {"type": "number", "exclusiveMinimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
            "choice": {"enum": ["a"]}, "more": {"type": "object"}, "must": {"type": "string"},
        }),
        &["must"],
    );
    let pairs = [
        ("arg/name", "abcd<script>"),
        ("arg/count", "10"),
        ("arg/rate", "0"),
        ("arg/tags", "a\nb"),
        ("arg/choice", "\"b\""),
        ("arg/more", "{"),
    ];
    let errors = read(&schema, &pairs).expect_err("wrong");
    let fields: Vec<&str> = errors.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        fields,
        [
            "arg/name",
            "arg/count",
            "arg/rate",
            "arg/tags",
            "arg/choice",
            "arg/more",
            "arg/must"
        ]
    );
    assert_eq!(errors[0].1, "has 12 characters; 2 to 3 characters");
    assert_eq!(errors[1].1, "must be less than 10");
    assert!(errors[5].1.starts_with("is not JSON"), "{errors:?}");
    for (whole, text) in [
        ("1.5", false),
        ("2.0", true),
        ("1e1", false),
        ("x", false),
        ("0x1", false),
    ] {
        assert_eq!(
            read(&schema, &[("arg/must", "m"), ("arg/count", whole)]).is_ok(),
            text,
            "{whole}"
        );
    }
    let form = form(&schema);
    let submitted = values(&pairs);
    let errors = form.read(&submitted).expect_err("wrong");
    let html = form.render(Some(&submitted), &errors).into_string();
    assert!(
        html.contains("abcd&lt;script&gt;") && html.contains("aria-invalid=\"true\""),
        "{html}"
    );
    assert!(html.contains("must is required"), "{html}");
    assert_eq!(form.element("arg/must"), Some("arg-7"));
}

#[test]
fn objects_references_and_null() {
    let schema = json!({
        "type": "object",
        "$defs": {
            "Place": {"type": "object", "properties": {"city": {"type": "string"}, "kind": {"const": "p"}}, "required": ["city", "kind"]},
            "Color": {"enum": ["red", "blue"], "title": "Color"},
        },
        "properties": {
            "place": {"$ref": "#/$defs/Place", "description": "Where."},
            "color": {"allOf": [{"$ref": "#/$defs/Color"}]},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": null},
            "needed": {"type": ["string", "null"]},
        },
        "required": ["needed"],
    });
    assert_eq!(read(&schema, &[]).expect("read"), r#"{"needed":null}"#);
    assert_eq!(
        read(
            &schema,
            &[
                ("arg/place/city", "Rome"),
                ("arg/color", "\"red\""),
                ("arg/maybe", "3")
            ]
        )
        .expect("read"),
        r#"{"place":{"city":"Rome","kind":"p"},"color":"red","maybe":3,"needed":null}"#
    );
    // Of an optional object nothing is wanted until something is there.
    let html = form(&schema).render(None, &Errors::default()).into_string();
    assert!(!html.contains(" required>") && html.contains("Where."), "{html}");
}

#[test]
fn defaults_fill_what_is_required_and_are_told_of_the_rest() {
    let schema = object_of(
        &json!({
            "must": {"type": "string", "default": "\nfirst"},
            "may": {"type": "integer", "default": 5},
            "lines": {"type": "array", "items": {"type": "string"}, "default": ["a", "b"]},
        }),
        &["must", "lines"],
    );
    let html = form(&schema).render(None, &Errors::default()).into_string();
    assert!(
        html.contains(">\n\nfirst</textarea>") && html.contains(">\na\nb</textarea>"),
        "{html}"
    );
    assert!(
        html.contains("Default: 5.") && !html.contains("value=\"5\""),
        "{html}"
    );
}

#[test]
fn arguments_can_be_written_as_json() {
    let schema = object_of(&json!({"must": {"type": "string"}}), &["must"]);
    let json = |text| read(&schema, &[("arguments_as_json", "on"), ("arguments", text)]);
    assert_eq!(json(r#"{"must": ""}"#).expect("read"), r#"{"must": ""}"#);
    assert_eq!(json("[]").expect_err("wrong")[0].1, "takes a JSON object");
    // What is in the field counts only where that is asked for.
    let both = [("arg/must", "x"), ("arguments", r#"{"must": "y"}"#)];
    assert_eq!(read(&schema, &both).expect("read"), r#"{"must":"x"}"#);
}

#[test]
fn a_schema_that_is_broken_or_too_much_is_one_field() {
    let many: serde_json::Map<_, _> = (0..10_000)
        .map(|i| (format!("p{i}"), json!({"type": "string"})))
        .collect();
    let mut deep = json!({"type": "string"});
    for _ in 0..30 {
        deep = object_of(&json!({"in": deep}), &[]);
    }
    let huge = object_of(&json!({"a": {"description": "x".repeat(SCHEMA_LIMIT)}}), &[]);
    let whole = [
        object_of(&Value::Object(many), &[]),
        huge,
        json!({"type": "string"}),
        json!([]),
        json!({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}}}),
        json!({"$ref": "#"}),
        json!({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}),
        json!({"type": "object", "properties": 7}),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
    ];
    for schema in &whole {
        let form = form(schema);
        assert!(form.members.is_none(), "{form:?}");
        assert_eq!(
            form.read(&values(&[("arguments", "{\"a\": 1}")]))
                .expect("read")
                .get(),
            "{\"a\": 1}"
        );
    }
    let fields = form(&deep).render(None, &Errors::default()).into_string();
    assert_eq!(fields.matches("<fieldset").count(), DEPTH_LIMIT);
    // A schema that contains itself ends where fields do.
    let endless = json!({
        "type": "object", "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}, "Loop": {"$ref": "#/$defs/Loop"}},
        "properties": {"node": {"$ref": "#/$defs/Node"}, "loop": {"$ref": "#/$defs/Loop"}, "away": {"$ref": "https://elsewhere.test/schema"}},
    });
    let form = form(&endless);
    let html = form.render(None, &Errors::default()).into_string();
    assert_eq!(html.matches("<fieldset").count(), DEPTH_LIMIT);
    assert!(
        html.contains("name=\"arg/loop\"") && html.contains("name=\"arg/away\""),
        "{html}"
    );
}

/// So many members that all mean the same part of the schema, and that part.
fn repeated(count: usize, names: &str, part: &Value) -> Value {
    let members: serde_json::Map<_, _> = (0..count)
        .map(|i| (format!("{names}{i}"), json!({"$ref": "#/$defs/part"})))
        .collect();
    json!({"type": "object", "properties": members, "$defs": {"part": part}})
}

#[test]
fn a_part_that_is_too_large_is_one_field_beside_the_others() {
    let choices: Vec<String> = (0..100).map(|i| format!("choice {i}")).collect();
    let html = form(&repeated(20, "p", &json!({"enum": choices})))
        .render(None, &Errors::default())
        .into_string();
    let selects = (PART_LIMIT - 20) / choices.len();
    assert_eq!(html.matches("<select").count(), selects);
    assert_eq!(html.matches("Takes JSON.").count(), 20 - selects);

    let many: serde_json::Map<_, _> = (0..5000).map(|i| (format!("m{i}"), json!({}))).collect();
    let schema = object_of(
        &json!({
            "bomb": {"type": "object", "properties": many},
            "long": {"enum": ["<".repeat(TEXT_LIMIT / 2)]}, "longer": {"$ref": "#/properties/long"},
            "name": {"type": "string"}, "pick": {"enum": ["a", "b"]},
        }),
        &["name"],
    );
    let pairs = [
        ("arg/bomb", "{\"m1\": [1]}"),
        ("arg/name", "x"),
        ("arg/pick", "\"b\""),
    ];
    assert_eq!(
        read(&schema, &pairs).expect("read"),
        r#"{"bomb":{"m1": [1]},"name":"x","pick":"b"}"#
    );
}

#[test]
fn no_schema_makes_a_page_without_end() {
    let long = "<\"&".repeat(150);
    let choices: Vec<String> = (0..350).map(|i| format!("{i}{long}")).collect();
    let members: serde_json::Map<_, _> = (0..900)
        .map(|i| (format!("m{i}"), json!({"$ref": "#/$defs/part"})))
        .collect();
    let nulls = vec![json!({"type": "null"}); 10_000];
    let words = vec!["object"; 20_000];
    let text = "\"<>".repeat(50_000);
    let name = "n/~".repeat(20_000);
    let parts = [
        ("", json!({"enum": choices})),
        ("", json!({"type": "array", "items": {"enum": choices}})),
        (
            name.as_str(),
            json!({"type": "object", "properties": {"a": {}, "b": {}}}),
        ),
        ("", json!({"type": "object", "properties": members})),
        (
            "",
            json!({"type": "object", "properties": members, "required": words}),
        ),
        ("", json!({"const": text})),
        ("", json!({"default": text})),
        ("", json!({"type": "string", "description": text})),
        (
            "",
            json!({"type": "string", "title": &text[..text.len() / 2], "pattern": &text[..text.len() / 2]}),
        ),
        ("", json!({"anyOf": nulls})),
        ("", json!({"type": words})),
    ];
    let clock = crate::clock::Clock::system();
    let began = clock.now();
    for (names, part) in &parts {
        for count in [3, 900, 4000] {
            if names.len() * count > SCHEMA_LIMIT {
                continue;
            }
            let schema = repeated(count, names, part);
            assert!(count > 900 || schema.to_string().len() <= SCHEMA_LIMIT, "{count}");
            let form = form(&schema);
            let html = form.render(None, &Errors::default()).into_string();
            assert!(html.len() < 6 * 1024 * 1024, "{count}: {}", html.len());
            let pairs: Vec<(String, String)> = (0..2000)
                .map(|i| ("arg/0".to_owned(), format!("\"{}{long}\"", i % 350)))
                .collect();
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
            let submitted = values(&pairs);
            let errors = form.read(&submitted).err().unwrap_or_default();
            let html = form.render(Some(&submitted), &errors).into_string();
            assert!(html.len() < 8 * 1024 * 1024, "{count}: {}", html.len());
        }
    }
    let took = began.until(clock.now());
    assert!(took.as_secs() < 60, "{took:?}");
}

#[test]
fn markup_anywhere_in_a_schema_is_text() {
    let evil = "\"><img src=x onerror=alert(1)>'\u{202e}";
    let schema = object_of(
        &json!({
            evil: {"type": "string", "title": evil, "description": evil, "format": evil, "pattern": evil, "default": evil},
            "e": {"enum": [evil], "description": evil},
            "s": {"type": "array", "items": {"enum": [evil]}},
            "c": {"const": evil},
            "o": {"type": "object", "title": evil, "properties": {evil: {"type": "integer"}}},
        }),
        &[evil, "c"],
    );
    let html = form(&schema).render(None, &Errors::default()).into_string();
    assert!(!html.contains("<img"), "{html}");
    let mut outside_values = html.clone();
    outside_values.retain(|c| c != '\u{202e}');
    assert!(
        !html.contains("onerror=alert(1)>") && outside_values.contains("&lt;img"),
        "{html}"
    );
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!({"type": "string"})),
        Just(json!({"type": ["string", "null"], "minLength": 1})),
        Just(json!({"type": "integer", "minimum": 2})),
        Just(json!({"type": "number", "default": 1.5})),
        Just(json!({"type": "boolean", "default": true})),
        Just(json!({"enum": ["a", null, 3, {"b": []}]})),
        Just(json!({"const": {"k": "v"}})),
        Just(json!({"$ref": "#/properties/a"})),
        Just(json!({"$ref": 5})),
        Just(json!({"enum": "no list"})),
        Just(json!({"type": "array"})),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            (
                prop::collection::vec(("[a-d/~<\"]{1,3}", inner.clone()), 0..5),
                prop::collection::vec("[a-d]", 0..3)
            )
                .prop_map(|(members, required)| {
                    let properties: serde_json::Map<_, _> = members.into_iter().collect();
                    json!({"type": "object", "properties": properties, "required": required})
                }),
            inner
                .clone()
                .prop_map(|items| json!({"type": "array", "items": items})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({"anyOf": all})),
            inner.prop_map(|one| json!({"allOf": [one]})),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_comes_back_is_an_object_and_nothing_panics(
        schema in schemas(),
        texts in prop::collection::vec((0usize..40, "[a-z0-9{}\\[\\]\",. \n]{0,12}"), 0..12),
    ) {
        let form = form(&schema);
        let html = form.render(None, &Errors::default()).into_string();
        let names: Vec<&str> = html.split("name=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        prop_assert!(!names.is_empty());
        let filled: Vec<(&str, &str)> = texts.iter().map(|(at, text)| (names[at % names.len()], text.as_str())).collect();
        let submitted = values(&filled);
        match form.read(&submitted) {
            Ok(raw) => {
                let value: Value = serde_json::from_str(raw.get()).expect("JSON");
                prop_assert!(value.is_object());
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for (name, _) in errors.iter() {
                    prop_assert!(form.element(name).is_some(), "{}", name);
                }
                form.render(Some(&submitted), &errors);
            }
        }
    }
}
