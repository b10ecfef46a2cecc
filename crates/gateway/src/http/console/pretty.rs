//! JSON with line breaks, every token as it was written: a reader that makes numbers of numbers would change them.

/// The most that is shown, in bytes.
const LIMIT: usize = 256 * 1024;
/// Deeper than this nothing is moved further in.
const DEPTH_LIMIT: usize = 40;

/// `json`, which is valid, over several lines; at most as much of it as a page has room for.
pub(crate) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len().min(LIMIT));
    let mut depth: usize = 0;
    let mut in_text = false;
    let mut escaped = false;
    let mut before = ' ';
    for c in json.chars() {
        if out.len() >= LIMIT {
            out.push_str("\n(cut short)");
            return out;
        }
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => continue,
            '"' => {
                opened(&mut out, before, depth);
                in_text = true;
                out.push(c);
            }
            '{' | '[' => {
                opened(&mut out, before, depth);
                depth += 1;
                out.push(c);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !matches!(before, '{' | '[') {
                    line(&mut out, depth);
                }
                out.push(c);
            }
            ',' => out.push(c),
            ':' => out.push_str(": "),
            c => {
                if !out.ends_with(is_of_a_word) || matches!(before, ',' | '[' | '{') {
                    opened(&mut out, before, depth);
                }
                out.push(c);
            }
        }
        before = c;
    }
    out
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// Begins a line where an item or a member begins.
fn opened(out: &mut String, before: char, depth: usize) {
    if matches!(before, ',' | '{' | '[') {
        line(out, depth);
    }
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth.min(DEPTH_LIMIT) {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn tokens_stay_as_they_are() {
        let json = r#" {"a":[1.50,12345678901234567890123,true , null],"b":{},"c":"x,{\"\\","d":[]} "#;
        let expected = "{\n  \"a\": [\n    1.50,\n    12345678901234567890123,\n    true,\n    null\n  ],\n  \"b\": {},\n  \"c\": \"x,{\\\"\\\\\",\n  \"d\": []\n}";
        assert_eq!(pretty(json), expected);
        assert!(pretty(&"[".repeat(LIMIT)).ends_with("(cut short)"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1.0e9..1.0e9).prop_map(|n: f64| Value::from(n)),
            "[ -~ä\n]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[ -~]{0,4}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_makes(value in values()) {
            prop_assert_eq!(pretty(&value.to_string()), serde_json::to_string_pretty(&value).expect("JSON"));
        }
    }
}
