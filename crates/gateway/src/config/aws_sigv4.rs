//! The fields of `auth_type: aws_sigv4`: who signs, for which region and service, and under which role.

use super::reader::{Reader, Section};
use super::settings::{Auth, AwsSettings, RoleSettings};
use super::yaml::Position;
use url::Url;

/// Fields that only `aws_sigv4` uses.
pub(super) const AWS_FIELDS: &[&str] = &[
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_region_name",
    "aws_service_name",
    "aws_role_name",
    "aws_session_name",
    "aws_sts_endpoint",
];

/// Where AWS STS is, as AWS's own tools read it.
const STS_VARIABLE: &str = "AWS_ENDPOINT_URL_STS";

impl Reader<'_> {
    /// The access key of the fields, or else of the environment; never half of each.
    pub(super) fn aws_sigv4(&mut self, section: &Section, at: Position) -> Option<Auth> {
        const FIELDS: [&str; 2] = ["aws_access_key_id", "aws_secret_access_key"];
        let missing: Vec<&str> = FIELDS.into_iter().filter(|name| !section.has(name)).collect();
        let (id, secret, token) = match missing[..] {
            [] => {
                let [id, secret] = FIELDS.map(|name| section.text(name).unwrap_or_default().to_owned());
                (id, secret, section.text("aws_session_token").map(str::to_owned))
            }
            [one] => {
                let message = format!("{one} is missing; an access key has two parts");
                self.findings.error(at, &section.path, message);
                return None;
            }
            _ => {
                if section.has("aws_session_token") {
                    let message = "has no effect without aws_access_key_id and aws_secret_access_key";
                    let path = section.path_of("aws_session_token");
                    self.findings
                        .error(section.at("aws_session_token"), path, message);
                }
                let variable = |name: &str| {
                    let value = self.environment.get(name).filter(|value| !value.is_empty());
                    value.cloned()
                };
                let (Some(id), Some(secret)) =
                    (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
                else {
                    let message = "auth_type: aws_sigv4 needs aws_access_key_id and aws_secret_access_key, or \
                                   AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment";
                    self.findings.error(at, &section.path, message);
                    return None;
                };
                (id, secret, variable("AWS_SESSION_TOKEN"))
            }
        };
        let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !printable(&id) || !token.as_deref().is_none_or(printable) {
            let message = "the access key id and the session token are printable ASCII without spaces";
            self.findings.error(at, &section.path, message);
            return None;
        }
        let region = self.scope_part(section, "aws_region_name", "us-east-1")?;
        let service = self.scope_part(section, "aws_service_name", "bedrock-agentcore")?;
        let role = if let Some(arn) = section.text("aws_role_name") {
            Some(self.role(section, arn, &region)?)
        } else {
            for name in ["aws_session_name", "aws_sts_endpoint"] {
                if section.has(name) {
                    let message = "has no effect without aws_role_name";
                    self.findings
                        .error(section.at(name), section.path_of(name), message);
                }
            }
            None
        };
        Some(Auth::AwsSigV4(AwsSettings {
            access_key_id: id,
            secret_access_key: secret.into(),
            session_token: token.map(Into::into),
            region,
            service,
            role,
        }))
    }

    fn role(&mut self, section: &Section, arn: &str, region: &str) -> Option<RoleSettings> {
        let Some(partition) = partition(arn) else {
            let name = "aws_role_name";
            let message = "takes the ARN of a role: arn:aws:iam::123456789012:role/name";
            self.findings
                .error(section.at(name), section.path_of(name), message);
            return None;
        };
        let session_name = section.text("aws_session_name");
        if !session_name.is_none_or(is_session_name) {
            let name = "aws_session_name";
            let message = "takes 2 to 64 letters, digits and characters of _+=,.@-";
            self.findings
                .error(section.at(name), section.path_of(name), message);
            return None;
        }
        Some(RoleSettings {
            arn: arn.to_owned(),
            session_name: session_name.map(str::to_owned),
            endpoint: self.sts(section, partition, region)?,
        })
    }

    fn sts(&mut self, section: &Section, partition: &str, region: &str) -> Option<Url> {
        let name = "aws_sts_endpoint";
        if let Some(url) = section.url(name) {
            self.clear_text(
                url,
                "the role's access key",
                section.at(name),
                &section.path_of(name),
            );
            return Some(url.clone());
        }
        let name = "aws_role_name";
        let (at, path) = (section.at(name), section.path_of(name));
        let variable = self
            .environment
            .get(STS_VARIABLE)
            .filter(|value| !value.is_empty());
        if let Some(text) = variable {
            let url = Url::parse(text).ok();
            let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
                let message = format!("{STS_VARIABLE} in the environment is no http or https URL");
                self.findings.error(at, path, message);
                return None;
            };
            self.clear_text(&url, "the role's access key", at, &path);
            return Some(url);
        }
        let suffix = match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => {
                let message = format!(
                    "is in the partition {partition}, whose STS is not known: set aws_sts_endpoint, or \
                     {STS_VARIABLE} in the environment"
                );
                self.findings.error(at, path, message);
                return None;
            }
        };
        Url::parse(&format!("https://sts.{region}.{suffix}/")).ok()
    }

    /// A part of the credential scope, whose parts are separated by slashes.
    fn scope_part(&mut self, section: &Section, name: &'static str, default: &str) -> Option<String> {
        let text = section.text(name).unwrap_or(default);
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.bytes().all(allowed) {
            return Some(text.to_owned());
        }
        let message = "takes lower-case letters, digits and '-'";
        self.findings
            .error(section.at(name), section.path_of(name), message);
        None
    }
}

/// The partition of a role's ARN; `None` for what is none.
fn partition(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else {
        return None;
    };
    let word = |b: u8| b.is_ascii_lowercase() || b == b'-';
    let usable = partition.starts_with("aws")
        && partition.bytes().all(word)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource
            .strip_prefix("role/")
            .is_some_and(|name| !name.is_empty())
        && arn.len() <= 2048
        && resource.bytes().all(|b| b.is_ascii_graphic());
    usable.then_some(partition)
}

fn is_session_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    (2..=64).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use crate::config::{Auth, RoleSettings, load};
    use std::collections::HashMap;

    const KEY: &str = "auth_type: aws_sigv4\naws_access_key_id: id\naws_secret_access_key: s3cret\n";
    const ROLE: &str = "aws_role_name: arn:aws:iam::123456789012:role/a/b\n";

    fn found(fields: &str, environment: &[(&str, &str)]) -> Result<Option<RoleSettings>, Vec<String>> {
        let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!("mcp_servers:\n  one:\n    url: https://mcp.example/mcp\n{fields}");
        let environment: HashMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let loaded = load(&text, &environment);
        let mut settings = loaded.settings.ok_or_else(|| {
            loaded
                .findings
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })?;
        match settings.servers.remove(0).auth {
            Auth::AwsSigV4(settings) => Ok(settings.role),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sts_is_where_region_partition_or_operator_say() {
        let china = "aws_role_name: arn:aws-cn:iam::123456789012:role/a\naws_region_name: cn-north-1\n";
        let own = "aws_sts_endpoint: https://sts.internal.example/\n";
        let variable = ("AWS_ENDPOINT_URL_STS", "https://from.example/");
        for (fields, environment, expected) in [
            (ROLE, &[][..], "https://sts.us-east-1.amazonaws.com/"),
            (china, &[], "https://sts.cn-north-1.amazonaws.com.cn/"),
            (ROLE, &[variable], "https://from.example/"),
            (
                ROLE,
                &[("AWS_ENDPOINT_URL_STS", "")],
                "https://sts.us-east-1.amazonaws.com/",
            ),
            (
                &format!("{ROLE}{own}"),
                &[variable],
                "https://sts.internal.example/",
            ),
            (
                &format!("aws_role_name: arn:aws-iso:iam::123456789012:role/a\n{own}"),
                &[],
                "https://sts.internal.example/",
            ),
        ] {
            let role = found(&format!("{KEY}{fields}"), environment).expect("usable");
            let role = role.expect("a role");
            assert_eq!(role.endpoint.as_str(), expected, "{fields}");
            assert_eq!(role.session_name, None);
        }
        assert!(found(KEY, &[variable]).expect("usable").is_none());
    }

    #[test]
    fn half_a_role_is_none() {
        let arn = "aws_role_name: takes the ARN of a role: arn:aws:iam::123456789012:role/name";
        let session = "aws_session_name: takes 2 to 64 letters, digits and characters of _+=,.@-";
        for (fields, environment, expected) in [
            ("aws_role_name: caller", &[][..], arn),
            ("aws_role_name: arn:aws:iam::123456789012:user/a", &[], arn),
            ("aws_role_name: arn:aws:iam::1234:role/a", &[], arn),
            ("aws_role_name: arn:aws:iam::123456789012:role/", &[], arn),
            ("aws_role_name: arn:aws:sts::123456789012:role/a", &[], arn),
            ("aws_role_name: 'arn:aws:iam::123456789012:role/a b'", &[], arn),
            (&format!("{ROLE}aws_session_name: a"), &[], session),
            (&format!("{ROLE}aws_session_name: a b"), &[], session),
            (
                "aws_session_name: ab",
                &[],
                "aws_session_name: has no effect without aws_role_name",
            ),
            (
                "aws_sts_endpoint: https://sts.example/",
                &[],
                "aws_sts_endpoint: has no effect without aws_role_name",
            ),
            (
                "aws_role_name: arn:aws-iso:iam::123456789012:role/a",
                &[],
                "is in the partition aws-iso, whose STS is not known: set aws_sts_endpoint, or AWS_ENDPOINT_URL_STS",
            ),
            (
                ROLE,
                &[("AWS_ENDPOINT_URL_STS", "sts.example")],
                "AWS_ENDPOINT_URL_STS in the environment is no http or https URL",
            ),
        ] {
            let lines = found(&format!("{KEY}{fields}"), environment).expect_err("refused");
            assert!(
                lines.len() == 1 && lines[0].contains(expected),
                "{fields}\n{lines:#?}"
            );
        }
        let elsewhere = found("auth_type: none\naws_role_name: x", &[]).expect_err("refused");
        assert!(
            elsewhere[0].contains("has no effect with auth_type: none; it belongs to auth_type: aws_sigv4"),
            "{elsewhere:?}"
        );
        assert!(found(ROLE, &[]).is_err(), "a role is assumed by somebody");
    }
}
