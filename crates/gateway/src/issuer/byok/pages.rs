//! The page on which a person brings a key, in two steps: what it is for, then the key. Without scripts; the second step
//! is the same address with `step=key`.

use super::Wish;
use crate::config::ByokPage;
use crate::http::user_keys::PLACE;
use crate::registry::Server;
use crate::web::page::escape;
use std::fmt::Write;

/// Which half is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// What the key is for.
    Purpose,
    /// The key.
    Key,
}

impl Step {
    /// The step that a request asks for.
    pub(super) fn named(name: Option<&str>) -> Self {
        match name {
            Some("key") => Self::Key,
            _ => Self::Purpose,
        }
    }
}

/// What a person is asked.
pub(super) struct Ask<'a> {
    pub(super) server: &'a Server,
    pub(super) page: &'a ByokPage,
    pub(super) wish: &'a Wish,
    /// The person's id.
    pub(super) person: &'a str,
    /// Whether a key of theirs is kept already.
    pub(super) has_key: bool,
}

impl Ask<'_> {
    /// The page; `fault` is what was wrong with the last answer.
    pub(super) fn html(&self, step: Step, fault: Option<&str>) -> String {
        let server = escape(&self.server.name);
        let body = match step {
            Step::Purpose => self.purpose(),
            Step::Key => self.key(fault),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\"><title>Connect {server}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem}}\
             label{{display:block;font-weight:600}}input{{font:inherit;width:100%;box-sizing:border-box;\
             padding:.5rem;margin:.3rem 0 1rem}}button{{font:inherit;padding:.5rem 1.2rem}}\
             li,dd{{overflow-wrap:anywhere}}</style></head>\n<body><main><h1>Connect {server}</h1>\n\
             {body}</main></body></html>"
        )
    }

    fn purpose(&self) -> String {
        let mut lines = String::new();
        for line in &self.page.description {
            let _ = writeln!(lines, "<li>{}</li>", escape(line));
        }
        let uses = if lines.is_empty() {
            String::new()
        } else {
            format!("<p>The key is used to:</p>\n<ul>\n{lines}</ul>\n")
        };
        format!(
            "<p>Step 1 of 2. An MCP client on this computer asks to use the MCP server <strong>{}</strong> as \
             <strong>{}</strong>, with a key of your own.</p>\n{uses}{}\
             <p>Go on only if you started this yourself, just now, in that client. The answer goes to \
             <strong>{}</strong>; any program on this computer could have asked.</p>\n\
             <form method=\"get\" action=\"?\">{}<input type=\"hidden\" name=\"step\" value=\"key\">\
             <button type=\"submit\">Continue</button></form>\n",
            escape(&self.server.name),
            escape(self.person),
            self.help(),
            escape(self.wish.redirect_uri.host()),
            self.fields(),
        )
    }

    fn key(&self, fault: Option<&str>) -> String {
        let fault = fault.map_or_else(String::new, |fault| {
            format!("<p role=\"alert\"><strong>{}</strong></p>\n", escape(fault))
        });
        let (hint, required) = if self.has_key {
            (
                "<p>A key of yours is kept already; leave the field empty to use it.</p>\n",
                "",
            )
        } else {
            ("", " required")
        };
        format!(
            "<p>Step 2 of 2.</p>\n{fault}{hint}{}<form method=\"post\" action=\"?\">{}\
             <input type=\"hidden\" name=\"{PLACE}\" value=\"{}\"><label for=\"api_key\">Your key for {}</label>\
             <input id=\"api_key\" name=\"api_key\" type=\"password\" autocomplete=\"off\" spellcheck=\"false\"{required}>\n\
             <p>It is kept encrypted, and sent to this MCP server alone, for your calls alone.</p>\n\
             <button type=\"submit\">Connect &amp; Authorize</button></form>\n",
            self.help(),
            self.fields(),
            self.server.place_digest(),
            escape(&self.server.name),
        )
    }

    fn help(&self) -> String {
        self.page.help.as_ref().map_or_else(String::new, |help| {
            format!(
                "<p><a href=\"{}\" target=\"_blank\" rel=\"noopener noreferrer\">Where to get a key</a></p>\n",
                escape(help.as_str())
            )
        })
    }

    fn fields(&self) -> String {
        let mut fields = String::new();
        for (name, value) in [
            ("client_id", Some(self.wish.client_id.as_str())),
            ("redirect_uri", Some(self.wish.redirect_uri.as_str())),
            ("response_type", Some("code")),
            ("code_challenge", Some(self.wish.challenge.as_str())),
            ("code_challenge_method", Some("S256")),
            ("state", self.wish.state.as_deref()),
            ("server_id", Some(self.server.id.as_str())),
        ] {
            if let Some(value) = value {
                let value = escape(value);
                let _ = write!(
                    fields,
                    "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"
                );
            }
        }
        fields
    }
}
