//! What AWS STS answers, read as the little XML that it is: elements with text in them and nothing else. Comments,
//! CDATA, document types, character references, prefixes and attributes other than `xmlns` are refused, not skipped.

use aws_credential_types::Credentials;
use jiff::Timestamp;

/// How deep elements may be nested.
const DEPTH: usize = 8;
/// The longest field that is taken, in bytes.
const FIELD_LIMIT: usize = 8 * 1024;
/// The longest `Code` that is repeated, in bytes.
const CODE_LIMIT: usize = 64;

/// A role's access key with its end.
pub(super) struct Assumed {
    pub(super) key: Credentials,
    /// In seconds since 1970.
    pub(super) ends: u64,
}

/// The access key in an `AssumeRoleResponse`.
///
/// # Errors
/// What is wrong with the answer; nothing of the answer is in it.
pub(super) fn assumed(body: &[u8]) -> Result<Assumed, &'static str> {
    let leaves = Leaves::read(body).ok_or("it is not the XML of STS")?;
    let field = |name: &str| {
        let text = leaves.only(&format!("AssumeRoleResponse/AssumeRoleResult/Credentials/{name}"))?;
        let usable = (1..=FIELD_LIMIT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        usable.then(|| text.to_owned())
    };
    let id = field("AccessKeyId").ok_or("AccessKeyId is missing or unusable")?;
    let secret = field("SecretAccessKey").ok_or("SecretAccessKey is missing or unusable")?;
    let token = field("SessionToken").ok_or("SessionToken is missing or unusable")?;
    let ends = field("Expiration").and_then(|text| text.parse::<Timestamp>().ok());
    let ends = ends.and_then(|end| u64::try_from(end.as_second()).ok());
    Ok(Assumed {
        key: Credentials::new(id, secret, Some(token), None, "role"),
        ends: ends.ok_or("Expiration is missing or unusable")?,
    })
}

/// The `Code` of an `ErrorResponse`; `None` for what has none, or one that is no word.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let leaves = Leaves::read(body)?;
    let code = leaves.only("ErrorResponse/Error/Code")?;
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    let usable = (1..=CODE_LIMIT).contains(&code.len()) && code.bytes().all(word);
    usable.then(|| code.to_owned())
}

/// The elements that have no elements in them: their path and their text.
struct Leaves(Vec<(String, String)>);

impl Leaves {
    fn read(body: &[u8]) -> Option<Self> {
        let mut rest = std::str::from_utf8(body).ok()?;
        if let Some(declaration) = rest.strip_prefix("<?xml ") {
            (_, rest) = declaration.split_once("?>")?;
        }
        let mut leaves = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        // Whether no element was closed since the last was opened.
        let mut is_leaf = false;
        loop {
            let (text, markup) = rest.split_once('<')?;
            let (tag, after) = markup.split_once('>')?;
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                if open.last() != Some(&name) || !is_leaf && !text.trim().is_empty() {
                    return None;
                }
                if is_leaf {
                    leaves.push((open.join("/"), unescaped(text)?));
                }
                is_leaf = false;
                open.pop();
            } else {
                if !text.trim().is_empty() || open.len() == DEPTH {
                    return None;
                }
                let (tag, is_empty) = match tag.strip_suffix('/') {
                    Some(tag) => (tag.trim_end(), true),
                    None => (tag, false),
                };
                open.push(element(tag)?);
                is_leaf = !is_empty;
                if is_empty {
                    leaves.push((open.join("/"), String::new()));
                    open.pop();
                }
            }
            if open.is_empty() {
                return rest.trim().is_empty().then_some(Self(leaves));
            }
        }
    }

    /// The text at `path`, if it stands there once.
    fn only(&self, path: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(at, _)| at == path);
        let (_, text) = found.next()?;
        found.next().is_none().then_some(text)
    }
}

/// The name in a start tag whose only attribute, if it has one, is `xmlns`.
fn element(tag: &str) -> Option<&str> {
    let (name, attribute) = tag.split_once(' ').unwrap_or((tag, ""));
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let attribute = attribute.trim();
    let is_namespace = || {
        let value = attribute.strip_prefix("xmlns=\"")?.strip_suffix('"')?;
        (!value.contains(['"', '&'])).then_some(())
    };
    (is_name && (attribute.is_empty() || is_namespace().is_some())).then_some(name)
}

/// Text without its five named references.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = part.split_once(';')?;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleResult>
    <SourceIdentity/>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/demo/x</Arn></AssumedRoleUser>
    <Credentials>
      <AccessKeyId>ASIAEXAMPLE</AccessKeyId>
      <SecretAccessKey>canary/secret+key</SecretAccessKey>
      <SessionToken>a&amp;b==</SessionToken>
      <Expiration>2019-11-09T13:34:41Z</Expiration>
    </Credentials>
  </AssumeRoleResult>
  <ResponseMetadata><RequestId>c6104cbe</RequestId></ResponseMetadata>
</AssumeRoleResponse>
"#;

    #[test]
    fn an_access_key_is_read() {
        let assumed = assumed(ANSWER.as_bytes()).map_err(str::to_owned).expect("a key");
        assert_eq!(assumed.key.access_key_id(), "ASIAEXAMPLE");
        assert_eq!(assumed.key.secret_access_key(), "canary/secret+key");
        assert_eq!(assumed.key.session_token(), Some("a&b=="));
        assert_eq!(assumed.ends, 1_573_306_481);
    }

    #[test]
    fn what_is_odd_is_no_access_key() {
        let xml = "it is not the XML of STS";
        for (old, new, fault) in [
            (
                "<AccessKeyId>ASIAEXAMPLE</AccessKeyId>",
                "",
                "AccessKeyId is missing or unusable",
            ),
            (
                "<AccessKeyId>",
                "<AccessKeyId>A</AccessKeyId><AccessKeyId>",
                "AccessKeyId is missing or unusable",
            ),
            (
                "ASIAEXAMPLE",
                "ASIA\nEXAMPLE",
                "AccessKeyId is missing or unusable",
            ),
            ("canary/secret+key", "", "SecretAccessKey is missing or unusable"),
            ("a&amp;b==", "caf\u{e9}", "SessionToken is missing or unusable"),
            (
                "2019-11-09T13:34:41Z",
                "soon",
                "Expiration is missing or unusable",
            ),
            (
                "2019-11-09T13:34:41Z",
                "1919-11-09T13:34:41Z",
                "Expiration is missing or unusable",
            ),
            (
                "2019-11-09T13:34:41Z",
                "2019-11-09T13:34:41",
                "Expiration is missing or unusable",
            ),
            (
                "AssumeRoleResult>",
                "OtherResult>",
                "AccessKeyId is missing or unusable",
            ),
            ("&amp;", "&#38;", xml),
            ("&amp;", "&evil;", xml),
            ("&amp;", "& ", xml),
            ("ASIAEXAMPLE", "<![CDATA[ASIAEXAMPLE]]>", xml),
            ("<Credentials>", "<!-- --><Credentials>", xml),
            ("<Credentials>", "text<Credentials>", xml),
            ("</Credentials>", "text</Credentials>", xml),
            ("<Credentials>", "<Credentials a=\"b\">", xml),
            ("<Credentials>", "<x:Credentials>", xml),
            ("</Credentials>", "</Credential>", xml),
            ("</AssumeRoleResponse>\n", "", xml),
            ("</AssumeRoleResponse>\n", "</AssumeRoleResponse><More/>", xml),
            (
                "<AssumeRoleResponse ",
                "<!DOCTYPE a [<!ENTITY b \"c\">]><AssumeRoleResponse ",
                xml,
            ),
            ("<AssumeRoleResponse ", "<?pi?><AssumeRoleResponse ", xml),
            (
                "<SourceIdentity/>",
                "<a><b><c><d><e><f><g/></f></e></d></c></b></a>",
                xml,
            ),
        ] {
            assert!(ANSWER.contains(old), "{old}");
            let changed = ANSWER.replace(old, new);
            let found = assumed(changed.as_bytes()).err();
            assert_eq!(found, Some(fault), "{old} -> {new}");
        }
        for nothing in [&b""[..], b"{}", b"<a", b"<a>", b"a", b"\xff<a/>", b"<a/>"] {
            assert!(assumed(nothing).is_err(), "{nothing:?}");
        }
    }

    #[test]
    fn of_an_error_only_the_code_is_taken() {
        let error = |code: &str| {
            format!(
                "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n<Error><Type>Sender</Type>\
                 <Code>{code}</Code><Message>User: arn:aws:iam::123456789012:user/x &lt;is&gt; not authorized</Message>\
                 </Error><RequestId>c6104cbe</RequestId></ErrorResponse>"
            )
        };
        let long = "x".repeat(65);
        for (code, expected) in [
            ("AccessDenied", Some("AccessDenied")),
            ("Sts.Throttling2", Some("Sts.Throttling2")),
            ("", None),
            ("Access Denied", None),
            ("a&amp;b", None),
            (&long, None),
        ] {
            assert_eq!(refusal(error(code).as_bytes()).as_deref(), expected, "{code}");
        }
        assert_eq!(refusal(b"<html><body>down</body></html>"), None);
    }
}
