//! Headers that the configuration names: static, passed on, the one that carries the credential, and the ones by
//! which callers bring theirs.

use super::fields;
use super::problem::nearest;
use super::reader::{Reader, Section, join};
use super::settings::{Auth, CallerHeaders, ServerSettings};
use super::yaml::{Node, Position, Value};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use vestibule_mcp::headers::crosses_upstream;

/// Fields that hold the credential of the static types.
pub(super) const STATIC_FIELDS: &[&str] = &["authentication_token", "auth_value"];
/// The values of `auth_type` whose credential is a bearer token, which `upstream_token_header` can move.
const BEARERS: &[&str] = &["bearer_token", "oauth2", "oauth2_token_exchange", "oauth2_id_jag"];
/// Begins the name of every header that is about one server, or about several.
pub const PER_SERVER: &str = "x-mcp-";

/// Headers that nobody sets for a server, neither the configuration nor a caller: the transport's own, and the
/// gateway's key.
pub fn is_reserved_header(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy"
            | "expect"
            | "mcp-session-id"
    ) || name.as_str().starts_with("x-litellm-")
}

/// The server and the header that the name of a request header means: `x-mcp-{server}-{header}`, split at the first
/// dash. `None` for any other header, and for the ones that LiteLLM gives another meaning.
pub fn per_server(name: &HeaderName) -> Option<(&str, &str)> {
    let rest = name.as_str().strip_prefix(PER_SERVER)?;
    let (server, header) = rest.split_once('-')?;
    (rest != "access-groups" && server != "debug").then_some((server, header))
}

/// Why a credential does not fit an `auth_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// `basic` without a colon.
    NoPassword,
    /// A character that no header may carry.
    Character,
}

impl Unfit {
    /// The end of a sentence about the credential.
    pub fn why(self) -> &'static str {
        match self {
            Self::NoPassword => "takes user:password, or that in base64",
            Self::Character => "has a character that no header may carry",
        }
    }
}

/// The header by which `auth_type` sends `token`, its value marked sensitive. `token_header` is where bearer tokens go.
pub fn by_auth_type(
    auth_type: &str,
    token: &str,
    token_header: &HeaderName,
) -> Result<(HeaderName, HeaderValue), Unfit> {
    let value = match auth_type {
        "token" => format!("token {}", without_scheme(token, "token")),
        "basic" => basic(token).ok_or(Unfit::NoPassword)?,
        bearer if BEARERS.contains(&bearer) => format!("Bearer {}", without_scheme(token, "bearer")),
        _ => token.to_owned(),
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| Unfit::Character)?;
    value.set_sensitive(true);
    Ok((header_of(auth_type, token_header), value))
}

/// The name of that header.
pub(super) fn header_of(auth_type: &str, token_header: &HeaderName) -> HeaderName {
    match auth_type {
        "api_key" => HeaderName::from_static("x-api-key"),
        bearer if BEARERS.contains(&bearer) => token_header.clone(),
        _ => header::AUTHORIZATION,
    }
}

impl Reader<'_> {
    pub(super) fn static_header(
        &mut self,
        section: &Section,
        at: Position,
        auth_type: &'static str,
        token_header: &HeaderName,
    ) -> Option<Auth> {
        let given: Vec<&str> = STATIC_FIELDS
            .iter()
            .copied()
            .filter(|name| section.has(name))
            .collect();
        let field = match given[..] {
            [one] => one,
            [] => {
                let message = format!("auth_type: {auth_type} needs authentication_token");
                self.findings.error(at, &section.path, message);
                return None;
            }
            _ => {
                let message = "authentication_token and auth_value are the same setting; keep one";
                self.findings
                    .error(section.at("auth_value"), section.path_of("auth_value"), message);
                return None;
            }
        };
        match by_auth_type(auth_type, section.text(field)?, token_header) {
            Ok((name, value)) => Some(Auth::Static {
                auth_type,
                name,
                value,
            }),
            Err(unfit) => {
                self.findings
                    .error(section.at(field), section.path_of(field), unfit.why());
                None
            }
        }
    }

    /// `upstream_token_header`, or `Authorization`.
    pub(super) fn token_header(&mut self, section: &Section) -> HeaderName {
        const FIELD: &str = "upstream_token_header";
        let Some(text) = section.text(FIELD) else {
            return header::AUTHORIZATION;
        };
        let auth_type = section.text("auth_type").unwrap_or("none");
        let wrong = match HeaderName::from_bytes(text.trim().as_bytes()) {
            Err(_) => "is not a header name".to_owned(),
            Ok(name) if is_reserved_header(&name) || crosses_upstream(&name) => {
                "is a header of the transport or of the gateway's own; choose another".to_owned()
            }
            Ok(_) if !BEARERS.contains(&auth_type) => {
                format!(
                    "has no effect with auth_type: {auth_type}; it belongs to {}",
                    BEARERS.join(", ")
                )
            }
            Ok(name) => return name,
        };
        self.findings
            .error(section.at(FIELD), section.path_of(FIELD), wrong);
        header::AUTHORIZATION
    }

    /// `taken` are the names of the headers that carry the gateway's own credential.
    pub(super) fn static_headers(
        &mut self,
        section: &Section,
        taken: &[HeaderName],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let variables = self.env_vars(section);
        let mut used = vec![false; variables.len()];
        let mut headers = Vec::new();
        for (name, value, at) in section.map("static_headers") {
            let path = join(&section.path_of("static_headers"), name);
            let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else {
                self.findings.error(*at, path, "is not a header name");
                continue;
            };
            let value = match filled_in(value.trim(), &variables, &mut used) {
                Ok(value) => value,
                Err(message) => {
                    self.findings.error(*at, path, message);
                    continue;
                }
            };
            let Ok(mut value) = HeaderValue::from_str(value.trim()) else {
                self.findings.error(*at, path, Unfit::Character.why());
                continue;
            };
            value.set_sensitive(true);
            if is_reserved_header(&name) || self.caller_headers.key.as_ref() == Some(&name) {
                self.findings
                    .error(*at, path, "is the gateway's own header and cannot be set");
            } else if taken.contains(&name) {
                let message = "would replace the credential that auth_type sends; drop one of them";
                self.findings.error(*at, path, message);
            } else if headers.iter().any(|(other, _)| *other == name) {
                self.findings
                    .error(*at, path, "stands twice; header names do not differ by case");
            } else {
                headers.push((name, value));
            }
        }
        for (variable, _) in variables.iter().zip(used).filter(|(_, used)| !used) {
            let message = format!("no header of static_headers has ${{{}}}", variable.name);
            self.findings
                .warn(variable.at, section.path_of("env_vars"), message);
        }
        headers
    }

    /// Names of request headers to pass on; none that the gateway reads or makes itself.
    pub(super) fn extra_headers(&mut self, section: &Section, auth: Option<&Auth>) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for (name, at) in section.list("extra_headers") {
            let path = section.path_of("extra_headers");
            let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else {
                let message = format!("{name:?} is not a header name");
                self.findings.error(*at, path, message);
                continue;
            };
            let callers = &self.caller_headers;
            let credential = callers.credential == name && name != header::AUTHORIZATION;
            if is_reserved_header(&name) || callers.key.as_ref() == Some(&name) {
                let message = format!("{name} is the gateway's own and is never passed on");
                self.findings.error(*at, path, message);
            } else if credential || per_server(&name).is_some() {
                let message = format!(
                    "{name} is read by the gateway, which sends what it holds as the server's own header"
                );
                self.findings.error(*at, path, message);
            } else if auth.is_some_and(|auth| auth.signs(&name)) {
                let message = format!("{name} is part of the signature");
                self.findings.error(*at, path, message);
            } else if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The headers by which callers bring a credential for a server, and the key.
    pub(super) fn caller_headers(&mut self, general: &Section) -> CallerHeaders {
        const CREDENTIAL: &str = "mcp_client_side_auth_header_name";
        const VARIABLE: &str = "LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME";
        const KEY: &str = "litellm_key_header_name";
        let mut callers = CallerHeaders::default();
        let variable = self
            .environment
            .get(VARIABLE)
            .filter(|name| !name.is_empty())
            .cloned();
        let (path, chosen) = match (&variable, general.text(CREDENTIAL)) {
            (Some(name), _) => (VARIABLE.to_owned(), Some(name.as_str())),
            (None, chosen) => (general.path_of(CREDENTIAL), chosen),
        };
        if let Some(chosen) = chosen {
            match chosen_name(chosen) {
                Ok(name) => callers.credential = name,
                Err(message) => self.findings.error(general.at(CREDENTIAL), path, message),
            }
        }
        if let Some(chosen) = general.text(KEY) {
            let litellm = chosen.trim().eq_ignore_ascii_case("x-litellm-api-key");
            match chosen_name(chosen) {
                // These two hold it anyway.
                Ok(header::AUTHORIZATION) => {}
                Err(_) if litellm => {}
                Ok(name) if name == callers.credential => {
                    let message = format!("{name} is the header for a server's credential already");
                    self.findings
                        .error(general.at(KEY), general.path_of(KEY), message);
                }
                Ok(name) => callers.key = Some(name),
                Err(message) => self
                    .findings
                    .error(general.at(KEY), general.path_of(KEY), message),
            }
        }
        callers
    }

    /// Header names do not tell upper from lower case, so servers whose names differ by that alone cannot be meant.
    pub(super) fn names_in_headers(&mut self, servers: &[ServerSettings]) {
        let names = |server: &ServerSettings| {
            let names = [Some(server.name.clone()), server.alias.clone()];
            names.into_iter().flatten().map(|name| name.to_ascii_lowercase())
        };
        for (index, server) in servers.iter().enumerate() {
            for other in &servers[..index] {
                if let Some(name) = names(server).find(|name| names(other).any(|other| other == *name)) {
                    let message = format!(
                        "{PER_SERVER}{name}-… could mean this server or mcp_servers.{}, so neither gets it",
                        other.name
                    );
                    let path = join("mcp_servers", &server.name);
                    self.findings
                        .add(super::problem::Severity::Warning, None, path, message);
                }
            }
        }
    }

    fn env_vars(&mut self, section: &Section) -> Vec<Variable> {
        const FIELD: &str = "env_vars";
        let mut variables: Vec<Variable> = Vec::new();
        let Some(node) = section.node(FIELD) else {
            return variables;
        };
        let Value::Sequence(items) = &node.value else {
            let message = "takes a list of mappings with name, value and scope";
            self.findings.error(node.at, section.path_of(FIELD), message);
            return variables;
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", section.path_of(FIELD));
            let entry = self.section(item, &path, fields::ENV_VAR, super::reader::Unknown::Error);
            if entry.text("scope") == Some("user") {
                let message = "user is not supported yet; it belongs to virtual keys";
                self.findings
                    .error(entry.at("scope"), entry.path_of("scope"), message);
            }
            let scope_is_wrong = has(item, "scope") && !entry.has("scope");
            let (name, value) = (entry.text("name"), entry.text("value"));
            for missing in ["name", "value"] {
                if !has(item, missing) {
                    self.findings
                        .error(item.at, &path, format!("{missing} is missing"));
                }
            }
            let (Some(name), Some(value), false) = (name, value, scope_is_wrong) else {
                continue;
            };
            if !is_variable(name) {
                let message = "takes letters, digits, '_' and '-'";
                self.findings
                    .error(entry.at("name"), entry.path_of("name"), message);
            } else if variables.iter().any(|other| other.name == name) {
                self.findings
                    .error(entry.at("name"), entry.path_of("name"), "stands twice");
            } else {
                variables.push(Variable {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    at: item.at,
                });
            }
        }
        variables
    }
}

/// One entry of `env_vars`.
struct Variable {
    name: String,
    value: String,
    at: Position,
}

fn has(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Mapping(pairs) if pairs.iter().any(|(key, value)| key.text == name && !value.is_null()))
}

fn is_variable(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(allowed)
}

/// `text` with each `${NAME}` replaced, once: what a value brings in is not looked at again.
fn filled_in(text: &str, variables: &[Variable], used: &mut [bool]) -> Result<String, String> {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        whole.push_str(before);
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_variable(name)) else {
            whole.push_str("${");
            rest = after;
            continue;
        };
        let Some(index) = variables.iter().position(|variable| variable.name == name) else {
            let near = nearest(name, variables.iter().map(|variable| variable.name.as_str()));
            let hint = near.map(|near| format!("; did you mean {near}?"));
            return Err(format!(
                "has ${{{name}}}, and env_vars has no such name{}",
                hint.unwrap_or_default()
            ));
        };
        used[index] = true;
        whole.push_str(&variables[index].value);
        rest = behind;
    }
    whole.push_str(rest);
    Ok(whole)
}

/// A name for a header that the gateway reads and that goes to no server as it is.
fn chosen_name(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::from_bytes(text.trim().as_bytes()).map_err(|_| "is not a header name")?;
    if is_reserved_header(&name) || crosses_upstream(&name) || per_server(&name).is_some() {
        return Err("is a header that has a meaning already; choose another");
    }
    Ok(name)
}

fn without_scheme<'t>(token: &'t str, scheme: &str) -> &'t str {
    match token.split_once(' ') {
        Some((first, rest)) if first.eq_ignore_ascii_case(scheme) => rest.trim_start(),
        _ => token,
    }
}

/// `user:password`, or its base64 with or without `Basic` before it, as an `Authorization` value.
/// A value without a colon cannot be raw, so nothing is encoded twice.
fn basic(token: &str) -> Option<String> {
    let token = without_scheme(token, "basic");
    if token.contains(':') {
        return Some(format!("Basic {}", BASE64_STANDARD.encode(token)));
    }
    let decoded = BASE64_STANDARD.decode(token).ok()?;
    decoded.contains(&b':').then(|| format!("Basic {token}"))
}

#[cfg(test)]
mod tests {
    use crate::config::load;
    use std::collections::HashMap;

    fn server(fields: &str) -> String {
        let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
        format!("mcp_servers:\n  one:\n    url: http://localhost:1/mcp\n{fields}")
    }

    fn found(text: &str, environment: &[(&str, &str)]) -> String {
        let environment: HashMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let loaded = load(text, &environment);
        let lines: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    const AWS: &str = "auth_type: aws_sigv4\naws_access_key_id: AKID\naws_secret_access_key: canary\n";
    const BEARER: &str = "auth_type: bearer_token\nauthentication_token: t\n";

    fn are_found(cases: &[(&str, &str)]) {
        for (fields, expected) in cases {
            let found = found(&server(fields), &[]);
            assert!(found.contains(expected), "{fields}: {found}");
            assert!(!found.contains("canary"), "{found}");
        }
    }

    #[test]
    fn variables_that_mean_nothing_are_found() {
        are_found(&[
            (
                "static_headers: {X-A: 'a${TENNANT}'}\nenv_vars: [{name: TENANT, value: v}]",
                "4:27: error: mcp_servers.one.static_headers.X-A: has ${TENNANT}, and env_vars has no such name; did you mean TENANT?",
            ),
            (
                "static_headers: {X-A: '${X-HEADER-NAME}'}",
                "has ${X-HEADER-NAME}, and env_vars has no such name",
            ),
            (
                "static_headers: {X-A: '${T}'}\nenv_vars:\n  - {name: T, scope: user, value: x}",
                "6:26: error: mcp_servers.one.env_vars[0].scope: user is not supported yet; it belongs to virtual keys",
            ),
            (
                "env_vars: [{name: T}]",
                "mcp_servers.one.env_vars[0]: value is missing",
            ),
            (
                "env_vars: [{value: T}]",
                "mcp_servers.one.env_vars[0]: name is missing",
            ),
            (
                "env_vars: [{name: T, value: v, scop: user}]",
                "env_vars[0].scop: unknown field; did you mean scope?",
            ),
            (
                "env_vars: [{name: T, value: v, scope: all}]",
                "takes one of global, user",
            ),
            (
                "env_vars: [{name: T, value: v}, {name: T, value: w}]",
                "env_vars[1].name: stands twice",
            ),
            (
                "env_vars: [{name: 'a b', value: v}]",
                "takes letters, digits, '_' and '-'",
            ),
            ("env_vars: {T: v}", "takes a list of mappings"),
            (
                "env_vars: [{name: T, value: v}]",
                "4:16: warning: mcp_servers.one.env_vars: no header of static_headers has ${T}",
            ),
        ]);
    }

    #[test]
    fn headers_that_have_another_use_are_found() {
        are_found(&[
            (
                "upstream_token_header: X-Up",
                "has no effect with auth_type: none; it belongs to bearer_token, oauth2",
            ),
            (
                "auth_type: api_key\nauthentication_token: t\nupstream_token_header: X-Up",
                "has no effect with auth_type: api_key",
            ),
            (
                &format!("{BEARER}upstream_token_header: 'a b'"),
                "upstream_token_header: is not a header name",
            ),
            (
                &format!("{BEARER}upstream_token_header: Mcp-Session-Id"),
                "is a header of the transport",
            ),
            (
                &format!("{BEARER}upstream_token_header: accept"),
                "is a header of the transport",
            ),
            (
                &format!("{BEARER}upstream_token_header: X-Up\nstatic_headers: {{x-up: v}}"),
                "would replace the credential that auth_type sends",
            ),
            ("extra_headers: [X-Mcp-Auth]", "x-mcp-auth is read by the gateway"),
            (
                "extra_headers: [x-mcp-two-authorization]",
                "x-mcp-two-authorization is read by the gateway",
            ),
        ]);
    }

    #[test]
    fn access_keys_that_cannot_sign_are_found() {
        are_found(&[
            (
                "auth_type: aws_sigv4",
                "needs aws_access_key_id and aws_secret_access_key, or AWS_ACCESS_KEY_ID",
            ),
            (
                "auth_type: aws_sigv4\naws_access_key_id: AKID",
                "aws_secret_access_key is missing; an access key has two parts",
            ),
            (
                "auth_type: aws_sigv4\naws_session_token: x",
                "has no effect without aws_access_key_id",
            ),
            (
                "auth_type: aws_sigv4\naws_access_key_id: 'A K'\naws_secret_access_key: s",
                "printable ASCII",
            ),
            (
                &format!("{AWS}aws_region_name: us/east"),
                "aws_region_name: takes lower-case letters",
            ),
            (
                &format!("{AWS}static_headers: {{X-Amz-Date: x}}"),
                "would replace the credential",
            ),
            (
                &format!("{AWS}extra_headers: [X-Amz-Security-Token]"),
                "x-amz-security-token is part of the signature",
            ),
            (
                "aws_region_name: eu-west-1",
                "has no effect with auth_type: none; it belongs to auth_type: aws_sigv4",
            ),
            (
                &format!("{AWS}authentication_token: x"),
                "has no effect with auth_type: aws_sigv4; it belongs to a static auth_type",
            ),
            (
                &format!("{AWS}token_url: http://localhost/t"),
                "has no effect with auth_type: aws_sigv4; it belongs to auth_type: oauth2",
            ),
        ]);
    }

    #[test]
    fn half_an_access_key_is_not_completed_from_the_environment() {
        let key = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "canary")];
        assert_eq!(found(&server("auth_type: aws_sigv4"), &key), "");
        let half = found(&server("auth_type: aws_sigv4\naws_access_key_id: OTHER"), &key);
        assert!(half.contains("aws_secret_access_key is missing"), "{half}");
        let empty = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "")];
        assert!(found(&server("auth_type: aws_sigv4"), &empty).contains("needs aws_access_key_id"));
    }

    #[test]
    fn variables_are_filled_in_once() {
        let text = server(
            "static_headers: {X-A: 'a ${T}-${U} $${T} ${T', X-B: '${V}'}\n\
             env_vars: [{name: T, value: os.environ/TENANT}, {name: U, value: '${T}', scope: global}, {name: V, value: 7}]",
        );
        let environment = HashMap::from([("TENANT".to_owned(), "acme".to_owned())]);
        let loaded = load(&text, &environment);
        let settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.findings));
        let values: Vec<&[u8]> = settings.servers[0]
            .static_headers
            .iter()
            .map(|(_, value)| value.as_bytes())
            .collect();
        assert_eq!(values, [&b"a acme-${T} $acme ${T"[..], b"7"]);
        assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    }

    #[test]
    fn names_of_headers_are_chosen_once_and_mean_one_thing() {
        for (general, expected) in [
            ("mcp_client_side_auth_header_name: Authorization", ""),
            ("mcp_client_side_auth_header_name: x-our-auth", ""),
            ("litellm_key_header_name: X-Litellm-Api-Key", ""),
            ("litellm_key_header_name: Authorization", ""),
            ("litellm_key_header_name: X-Our-Key", ""),
            (
                "mcp_client_side_auth_header_name: Mcp-Session-Id",
                "2:37: error: general_settings.mcp_client_side_auth_header_name: is a header that has a meaning already; choose another",
            ),
            (
                "mcp_client_side_auth_header_name: x-litellm-api-key",
                "has a meaning already",
            ),
            (
                "mcp_client_side_auth_header_name: x-mcp-a-b",
                "has a meaning already",
            ),
            ("litellm_key_header_name: Accept", "has a meaning already"),
            ("litellm_key_header_name: 'a b'", "is not a header name"),
            (
                "litellm_key_header_name: X-Mcp-Auth",
                "x-mcp-auth is the header for a server's credential already",
            ),
        ] {
            let found = found(&format!("general_settings:\n  {general}\n{}", server("")), &[]);
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{general}: {found}"
            );
        }
        let key = "general_settings: {litellm_key_header_name: X-Our-Key}\n";
        for fields in ["extra_headers: [x-our-key]", "static_headers: {x-our-key: v}"] {
            assert!(found(&(key.to_owned() + &server(fields)), &[]).contains("the gateway's own"));
        }
        let variable = [("LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME", "Host")];
        let wrong = found(&server(""), &variable);
        assert!(
            wrong.contains("LITELLM_MCP_CLIENT_SIDE_AUTH_HEADER_NAME: is a header"),
            "{wrong}"
        );
    }

    #[test]
    fn names_that_differ_by_case_alone_are_pointed_out() {
        let text = "mcp_servers: {Jira: {url: 'http://x/'}, two: {url: 'http://y/', alias: jira}}";
        assert_eq!(
            found(text, &[]),
            "warning: mcp_servers.two: x-mcp-jira-… could mean this server or mcp_servers.Jira, so neither gets it"
        );
    }
}
