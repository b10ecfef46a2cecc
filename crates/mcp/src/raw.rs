//! JSON put together from its text: one text in another's place. Nothing is re-encoded that is not replaced.

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `whole` with `replacement` where `part` stands. `part` is borrowed from `whole`; a text from anywhere else
/// changes nothing.
pub fn replaced(whole: &str, part: &str, replacement: &str) -> String {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let end = start.saturating_add(part.len());
    match (whole.get(..start), whole.get(end..)) {
        (Some(before), Some(after)) if whole.get(start..end) == Some(part) => {
            format!("{before}{replacement}{after}")
        }
        _ => whole.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::Members;

    #[test]
    fn only_the_part_is_replaced() {
        let whole = r#"{"name": "x", "y": "x" }"#;
        let members = Members::parse(whole).expect("an object");
        let name = members.get("name").expect("a name").get();
        assert_eq!(replaced(whole, name, "\"z\""), r#"{"name": "z", "y": "x" }"#);
        assert_eq!(replaced(whole, "elsewhere", "z"), whole);
    }
}
