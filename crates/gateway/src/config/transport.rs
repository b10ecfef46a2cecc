//! How a server is reached: `transport`, and the fields that only one transport uses. A program is judged here,
//! and once more where it is started.

use super::reader::{Reader, Section, join};
use super::server::has_key;
use super::settings::{Endpoint, EnvValue, Program, ProgramRules};
use super::yaml::{Node, Position};
use http::HeaderName;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Programs that may run a server without being listed.
pub const COMMANDS: &[&str] = &["npx", "uvx", "python", "python3", "node", "docker", "deno"];

/// What a child gets of the gateway's own environment.
const INHERITED: &[&str] = &["PATH", "HOME", "TMPDIR", "LANG"];

const STDIO_FIELDS: &[&str] = &["command", "args", "env"];
/// Fields about HTTP, which `transport: stdio` does not speak.
const HTTP_FIELDS: &[&str] = &["url", "static_headers", "extra_headers"];

/// Beginnings of variables that decide which code an interpreter runs: a caller must not choose it.
const CODE_VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "SHELL",
    "ENV",
    "BASH_",
    "IFS",
    "LD_",
    "DYLD_",
    "GCONV_",
    "MALLOC_",
    "NODE_",
    "NPM_",
    "npm_",
    "PYTHON",
    "UV_",
    "PIP_",
    "DENO_",
    "DOCKER_",
    "RUBY",
    "PERL",
    "JAVA_",
    "JDK_",
    "GIT_",
    "SSH_",
    "XDG_",
    "TMP",
    "TEMP",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "SSL_",
    "CURL_",
    "OPENSSL_",
];

/// Whether servers may be programs on this machine, in the file or, later, in the store.
pub fn stdio_is_enabled(process: &HashMap<String, String>) -> bool {
    ["VESTIBULE_ENABLE_STDIO", "LITELLM_ENABLE_MCP_STDIO"]
        .iter()
        .filter_map(|name| process.get(*name))
        .any(|value| value.eq_ignore_ascii_case("true") || value == "1")
}

impl Reader<'_> {
    /// The way to the server. `key_at` is where its name stands. `None` when a finding forbids its use.
    pub(super) fn endpoint(&mut self, section: &Section, node: &Node, key_at: Position) -> Option<Endpoint> {
        let transport = section.text("transport").unwrap_or("http");
        if transport == "stdio" {
            return self
                .program(section, key_at)
                .map(|program| Endpoint::Stdio(Arc::new(program)));
        }
        for name in STDIO_FIELDS {
            if section.has(name) {
                let message =
                    format!("has no effect with transport: {transport}; it belongs to transport: stdio");
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        let url = section.url("url").cloned();
        if url.is_none() && !has_key(node, "url") && !section.has("command") {
            self.findings.error(
                key_at,
                &section.path,
                "url is missing; it is the MCP server's endpoint",
            );
        }
        url.map(|url| {
            if transport == "sse" {
                Endpoint::Sse(url)
            } else {
                Endpoint::Http(url)
            }
        })
    }

    fn program(&mut self, section: &Section, key_at: Position) -> Option<Program> {
        for name in HTTP_FIELDS {
            if section.has(name) {
                let message = "has no effect with transport: stdio, which speaks no HTTP";
                self.findings
                    .error(section.at(name), section.path_of(name), message);
            }
        }
        if section
            .text("auth_type")
            .is_some_and(|auth_type| auth_type != "none")
        {
            let message = "transport: stdio has no header for a credential; leave auth_type out and use env";
            self.findings
                .error(section.at("auth_type"), section.path_of("auth_type"), message);
        }
        if !self.may_refer {
            let message = "only the configuration file starts programs";
            self.findings
                .error(section.at("transport"), section.path_of("transport"), message);
        } else if !self.stdio_is_enabled() {
            let message = "stdio runs a program on this machine for every session; set VESTIBULE_ENABLE_STDIO=true \
                           (or LITELLM_ENABLE_MCP_STDIO=true) in the gateway's environment to allow it";
            self.findings
                .error(section.at("transport"), section.path_of("transport"), message);
        }
        let Some(command) = section.text("command") else {
            let message = "command is missing; it is the program that transport: stdio runs";
            self.findings.error(key_at, &section.path, message);
            return None;
        };
        let rules = self.program_rules();
        if let Err(message) = rules.judge(command) {
            self.findings
                .error(section.at("command"), section.path_of("command"), message);
        }
        let mut args = Vec::new();
        for (arg, at) in section.list("args") {
            if arg.contains('\0') {
                self.findings.error(
                    *at,
                    section.path_of("args"),
                    "has a NUL, which no argument may hold",
                );
            }
            args.push(arg.as_str().into());
        }
        let mut env = Vec::new();
        for (name, value, at) in section.map("env") {
            let path = join(&section.path_of("env"), name);
            match variable(name, value) {
                Ok(value) => env.push((name.clone(), value)),
                Err(message) => self.findings.error(*at, path, message),
            }
        }
        Some(Program {
            command: command.to_owned(),
            args,
            env,
            inherited: self.inherited(),
            npm_cache: self.variable("MCP_NPM_CACHE_DIR").map(PathBuf::from),
            temporary: self.variable("TMPDIR").unwrap_or("/tmp").into(),
            rules,
        })
    }

    fn stdio_is_enabled(&self) -> bool {
        stdio_is_enabled(self.process)
    }

    /// What the operator lists in the environment, where nobody who writes servers down can reach.
    fn program_rules(&self) -> ProgramRules {
        let listed = [
            "VESTIBULE_STDIO_EXTRA_COMMANDS",
            "LITELLM_MCP_STDIO_EXTRA_COMMANDS",
        ]
        .iter()
        .filter_map(|name| self.variable(name))
        .flat_map(|list| list.split(','))
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.is_empty());
        ProgramRules {
            listed: listed.collect(),
        }
    }

    fn inherited(&self) -> Vec<(String, String)> {
        let pair = |name: &&str| Some(((*name).to_owned(), self.variable(name)?.to_owned()));
        INHERITED.iter().filter_map(pair).collect()
    }

    /// A variable of the process that is set to something. `environment_variables` of the file does not count:
    /// who writes servers down does not decide whether programs may run.
    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.process.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }
}

impl ProgramRules {
    /// Whether `command` may be run. A name is looked up in PATH, and is one of [`COMMANDS`] or listed; a path
    /// is absolute and listed as it stands, since whoever can write a file can call it `npx`.
    pub fn judge(&self, command: &str) -> Result<(), String> {
        let listed = self.listed.iter().any(|listed| listed == command);
        if command.contains('\0') {
            return Err("has a NUL, which no program's name may hold".into());
        }
        if command.contains('/') {
            return match (Path::new(command).is_absolute(), listed) {
                (true, true) => Ok(()),
                (true, false) => Err(format!(
                    "{command} may not be run: a path counts only when the whole of it is listed in \
                     VESTIBULE_STDIO_EXTRA_COMMANDS"
                )),
                (false, _) => Err("takes the name of a program or an absolute path".into()),
            };
        }
        if COMMANDS.contains(&command) || listed {
            return Ok(());
        }
        Err(format!(
            "{command} may not be run: it is none of {}, and not listed in VESTIBULE_STDIO_EXTRA_COMMANDS",
            COMMANDS.join(", ")
        ))
    }
}

/// A variable of the child, whose value may have `${X-HEADER-NAME}` in it.
fn variable(name: &str, value: &str) -> Result<EnvValue, String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err("is no environment variable".into());
    }
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some((text, after)) = rest.split_once("${") {
        let Some((placeholder, after)) = after.split_once('}') else {
            return Err("has ${ without }".into());
        };
        parts.push((text.into(), Some(header(placeholder)?)));
        rest = after;
    }
    let fills = !parts.is_empty();
    if fills && CODE_VARIABLES.iter().any(|start| name.starts_with(start)) {
        return Err("decides which code the program runs, so no request may fill it".into());
    }
    parts.push((rest.into(), None));
    Ok(EnvValue(parts))
}

/// The header that a placeholder names.
fn header(placeholder: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(placeholder.as_bytes());
    match name {
        Ok(name) if is_caller_header(name.as_str()) => Ok(name),
        _ => Err(format!(
            "${{{placeholder}}} is filled by nothing; ${{X-HEADER-NAME}} is filled from a header of the request \
             that opens the session, and os.environ/NAME from the gateway's environment"
        )),
    }
}

/// A header of the caller's own: the gateway's keys are no such header.
fn is_caller_header(name: &str) -> bool {
    name.starts_with("x-") && !name.starts_with("x-litellm-") && !name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, load};
    use std::collections::HashMap;

    fn judged(fields: &str, environment: &[(&str, &str)]) -> (Option<Settings>, String) {
        let lines: String = fields.lines().map(|line| format!("    {line}\n")).collect();
        let environment: HashMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let loaded = load(&format!("mcp_servers:\n  one:\n{lines}"), &environment);
        let found: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        (loaded.settings, found.join("\n"))
    }

    const ON: (&str, &str) = ("VESTIBULE_ENABLE_STDIO", "true");

    #[test]
    fn stdio_is_off_until_somebody_turns_it_on() {
        let fields = "transport: stdio\ncommand: npx\nargs: [-y, some-server]";
        for environment in [
            &[][..],
            &[("VESTIBULE_ENABLE_STDIO", "false")],
            &[("LITELLM_ENABLE_MCP_STDIO", "")],
        ] {
            let (settings, found) = judged(fields, environment);
            assert!(settings.is_none(), "{environment:?}");
            assert!(
                found.contains("3:16: error: mcp_servers.one.transport: stdio runs a program"),
                "{found}"
            );
            assert!(found.contains("VESTIBULE_ENABLE_STDIO=true"), "{found}");
        }
        let file = "environment_variables: {VESTIBULE_ENABLE_STDIO: 'true'}\nmcp_servers: {one: {transport: stdio, command: npx}}";
        assert!(load(file, &HashMap::new()).settings.is_none());
        for environment in [
            ON,
            ("LITELLM_ENABLE_MCP_STDIO", "True"),
            ("LITELLM_ENABLE_MCP_STDIO", "1"),
        ] {
            let (settings, found) = judged(fields, &[environment]);
            assert!(settings.is_some(), "{found}");
        }
    }

    #[test]
    fn which_programs_may_run() {
        let rules = ProgramRules {
            listed: vec!["my-server".into(), "/opt/bin/other".into()],
        };
        for command in [
            "npx",
            "uvx",
            "python",
            "python3",
            "node",
            "docker",
            "deno",
            "my-server",
            "/opt/bin/other",
        ] {
            assert_eq!(rules.judge(command), Ok(()), "{command}");
        }
        for command in [
            "sh",
            "bash",
            "npx ",
            "NPX",
            "other",
            "./npx",
            "../npx",
            "bin/npx",
            "/tmp/npx",
            "/usr/bin/python3",
            "/opt/bin/my-server",
            "/opt/bin/../bin/other",
            "/opt/bin//other",
            "npx\0",
            "",
        ] {
            assert!(rules.judge(command).is_err(), "{command:?}");
        }
    }

    #[test]
    fn every_problem_of_an_entry_is_told_at_once() {
        let fields = "transport: stdio\nurl: http://localhost:1\ncommand: bash\nauth_type: bearer_token\n\
                      authentication_token: canary\nstatic_headers: {a: b}\nextra_headers: [x-a]\n\
                      env: {A: '${HOME}', NODE_OPTIONS: '${X-A}', B: '${X-LITELLM-API-KEY}', C: '${X-A', \"=\": x}";
        let (settings, found) = judged(fields, &[ON]);
        assert!(settings.is_none());
        for expected in [
            "one.url: has no effect with transport: stdio",
            "one.static_headers: has no effect",
            "one.extra_headers: has no effect",
            "one.auth_type: transport: stdio has no header for a credential",
            "one.command: bash may not be run",
            "one.env.A: ${HOME} is filled by nothing",
            "one.env.NODE_OPTIONS: decides which code",
            "one.env.B: ${X-LITELLM-API-KEY} is filled by nothing",
            "one.env.C: has ${ without }",
            "one.env.=: is no environment variable",
        ] {
            assert!(found.contains(expected), "{expected}\n{found}");
        }
        assert!(!found.contains("canary"), "{found}");
        for (fields, expected) in [
            ("transport: stdio", "error: mcp_servers.one: command is missing"),
            (
                "url: http://localhost:1\ncommand: npx",
                "one.command: has no effect with transport: http",
            ),
            (
                "url: http://localhost:1\ntransport: sse\nenv: {A: b}",
                "one.env: has no effect with transport: sse",
            ),
            ("transport: sse", "error: mcp_servers.one: url is missing"),
            (
                "transport: ssh\nurl: http://localhost:1",
                "takes one of http, sse, stdio; did you mean sse?",
            ),
        ] {
            let (settings, found) = judged(fields, &[ON]);
            assert!(
                settings.is_none() && found.contains(expected),
                "{expected}\n{found}"
            );
        }
    }

    #[test]
    fn what_a_child_gets_is_named_and_does_not_print() {
        let environment = [
            ON,
            ("PATH", "/bin"),
            ("HOME", "/home/x"),
            ("LITELLM_MASTER_KEY", "sk-canary-0123456789"),
            ("TOKEN", "canary-token"),
            ("MCP_NPM_CACHE_DIR", "/cache"),
        ];
        let fields = "transport: stdio\ncommand: npx\nargs: [canary-argument]\nenv: {A: os.environ/TOKEN, B: 'x ${X-Token} y'}";
        let (settings, found) = judged(fields, &environment);
        let settings = settings.unwrap_or_else(|| panic!("{found}"));
        assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
        let Endpoint::Stdio(program) = &settings.servers[0].endpoint else {
            panic!("{settings:?}")
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(program.inherited, [pair("PATH", "/bin"), pair("HOME", "/home/x")]);
        assert_eq!(program.npm_cache.as_deref(), Some(Path::new("/cache")));
        assert_eq!(
            program.headers().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-token"]
        );
    }

    #[test]
    fn limits_have_a_limit() {
        for name in ["max_bridge_sessions", "max_stdio_processes"] {
            let text = format!("vestibule: {{limits: {{{name}: 1000001}}}}");
            let loaded = load(&text, &HashMap::new());
            let found: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
            let expected = format!("error: vestibule.limits.{name}: takes at most 1000000");
            assert!(found.join("\n").contains(&expected), "{found:?}");
        }
    }

    #[test]
    fn ids_are_litellms() {
        let id = |fields: &str| {
            let (settings, found) = judged(fields, &[ON]);
            settings.unwrap_or_else(|| panic!("{found}")).servers[0]
                .id
                .clone()
        };
        let digest = |text: &str| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
            digest.as_ref()[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(id("transport: stdio\ncommand: npx"), digest("one||stdio||"));
        assert_eq!(
            id("transport: sse\nurl: http://localhost:1/sse"),
            digest("one|http://localhost:1/sse|sse||")
        );
        assert_eq!(
            id("url: http://localhost:1/mcp"),
            digest("one|http://localhost:1/mcp|http||")
        );
    }
}
