//! The tool rules of one server: which of its tools are shown and may be called, and with which arguments. They know
//! names and raw JSON, no transport: every road to a tool asks here.

use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal, shown};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use vestibule_mcp::members::{self, Members, folded};
use vestibule_mcp::splice;

/// As much of a name as a message repeats, and so many of them.
const NAME_SHOWN: usize = 100;
const NAMES_SHOWN: usize = 10;

/// The rules of one server.
#[derive(Debug)]
pub struct ToolRules {
    names: Names,
    which: Which,
    /// Arguments by tool; a tool that is not here takes any.
    parameters: HashMap<String, BTreeSet<String>>,
}

/// Which tools there are.
#[derive(Debug)]
enum Which {
    All,
    Only(HashSet<String>),
    AllBut(HashSet<String>),
}

/// How names are compared: without the server's name before them, capital letters as small ones.
#[derive(Debug)]
pub struct Names {
    prefixes: Vec<String>,
}

/// A tool list in which not every reader would see the same tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its tool list cannot be read, and this server has tool rules")]
pub struct Unreadable;

impl Names {
    /// For a server that is known by these names.
    pub fn new<'n>(server: impl IntoIterator<Item = &'n str>) -> Self {
        Self {
            prefixes: server
                .into_iter()
                .map(|name| format!("{}-", folded(name)))
                .collect(),
        }
    }

    /// For this server, by all its names.
    pub fn of(server: &Server) -> Self {
        let names = [Some(&server.name), server.alias.as_ref(), Some(&server.id)];
        Self::new(names.into_iter().flatten().map(String::as_str))
    }

    /// What stands for a tool in comparisons. A server may not mind spaces around a name.
    pub fn key(&self, tool: &str) -> String {
        let folded = folded(tool.trim());
        let own = self
            .prefixes
            .iter()
            .find_map(|prefix| folded.strip_prefix(prefix.as_str()));
        match own {
            Some(own) => own.to_owned(),
            None => folded,
        }
    }
}

/// All the rules that one caller has to keep at one server: the server's, and those of the caller's key.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    server: Option<Arc<ToolRules>>,
    key: Option<Arc<ToolRules>>,
}

impl From<ToolRules> for Rules {
    fn from(server: ToolRules) -> Self {
        Self {
            server: Some(Arc::new(server)),
            key: None,
        }
    }
}

impl Rules {
    /// Those of the server alone.
    pub fn of(server: &Server) -> Self {
        Self {
            server: server.rules.clone(),
            key: None,
        }
    }

    /// With those of a key.
    #[must_use]
    pub fn and(self, key: Option<Arc<ToolRules>>) -> Self {
        Self { key, ..self }
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.server.is_none() && self.key.is_none()
    }

    fn all(&self) -> impl Iterator<Item = &ToolRules> {
        [&self.server, &self.key]
            .into_iter()
            .flatten()
            .map(|rules| &**rules)
    }

    /// [`ToolRules::permits`].
    pub fn permit(&self, tool: &str) -> bool {
        self.all().all(|rules| rules.permits(tool))
    }

    /// [`ToolRules::limits_arguments_of`].
    pub fn limit_arguments_of(&self, tool: &str) -> bool {
        self.all().any(|rules| rules.limits_arguments_of(tool))
    }

    /// [`ToolRules::judge_call`].
    ///
    /// # Errors
    /// See there.
    pub fn judge_call(&self, tool: &str, arguments: Option<&RawValue>) -> Result<(), Refusal> {
        self.all().try_for_each(|rules| rules.judge_call(tool, arguments))
    }

    /// A `tools/list` result without the tools that are not permitted, every other byte as it came. A result without
    /// `tools` is as it came.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not plain which tools a reader would see.
    pub fn filter_result<'r>(&self, result: &'r str) -> Result<Cow<'r, str>, Unreadable> {
        let Some(tools) = tools_in(result)? else {
            return Ok(result.into());
        };
        let mut verdicts = tools
            .iter()
            .map(|tool| Ok(self.permit(&name_of(tool)?)))
            .collect::<Result<Vec<_>, Unreadable>>()?
            .into_iter();
        let left = splice::without(result, &tools, |_| verdicts.next().unwrap_or(false));
        Ok(left.map_or(Cow::Borrowed(result), Cow::Owned))
    }
}

impl ToolRules {
    /// The rules as they are configured: with `allowed` there are these tools only, without it all but `disallowed`.
    /// `None` where that rules nothing out.
    pub fn new(
        names: Names,
        allowed: Option<&[String]>,
        disallowed: &[String],
        parameters: &[(String, Vec<String>)],
    ) -> Option<Self> {
        let keys = |tools: &[String]| tools.iter().map(|tool| names.key(tool)).collect();
        let which = match allowed {
            Some(tools) => Which::Only(keys(tools)),
            None if disallowed.is_empty() => Which::All,
            None => Which::AllBut(keys(disallowed)),
        };
        let parameters: HashMap<_, _> = parameters
            .iter()
            .map(|(tool, names_of)| (names.key(tool), names_of.iter().cloned().collect()))
            .collect();
        if matches!(which, Which::All) && parameters.is_empty() {
            return None;
        }
        Some(Self {
            names,
            which,
            parameters,
        })
    }

    /// The tools that are in each of these lists only; `None` where there is no list.
    pub fn in_each(names: impl FnOnce() -> Names, lists: &[&[String]]) -> Option<Self> {
        let (first, rest) = lists.split_first()?;
        let names = names();
        let keys =
            |tools: &[String]| -> HashSet<String> { tools.iter().map(|tool| names.key(tool)).collect() };
        let mut only = keys(first);
        for list in rest {
            let keys = keys(list);
            only.retain(|key| keys.contains(key));
        }
        Some(Self {
            names,
            which: Which::Only(only),
            parameters: HashMap::new(),
        })
    }

    /// Whether this tool is shown and may be called. `tool` is the server's own name for it, or that with the server's
    /// name before it.
    pub fn permits(&self, tool: &str) -> bool {
        self.permits_key(&self.names.key(tool))
    }

    fn permits_key(&self, key: &str) -> bool {
        match &self.which {
            Which::All => true,
            Which::Only(tools) => tools.contains(key),
            Which::AllBut(tools) => !tools.contains(key),
        }
    }

    /// Whether there is a rule about the arguments of this tool.
    pub fn limits_arguments_of(&self, tool: &str) -> bool {
        self.parameters.contains_key(&self.names.key(tool))
    }

    /// Whether this call may go to the server. `arguments` are as the server will get them; `null` is as good as none.
    ///
    /// # Errors
    /// [`ErrorCode::ToolNotAllowed`], whether or not the server has such a tool; [`ErrorCode::ParameterNotAllowed`];
    /// [`ErrorCode::UnreadableMessage`] for arguments that are no object.
    pub fn judge_call(&self, tool: &str, arguments: Option<&RawValue>) -> Result<(), Refusal> {
        let key = self.names.key(tool);
        let tool = shown(tool, NAME_SHOWN);
        if !self.permits_key(&key) {
            let message = format!("The tool {tool} may not be used here.");
            return Err(Refusal::because(ErrorCode::ToolNotAllowed, message));
        }
        let (Some(allowed), Some(arguments)) = (self.parameters.get(&key), arguments) else {
            return Ok(());
        };
        if arguments.get() == "null" {
            return Ok(());
        }
        let given = Members::read_any(arguments.get()).map_err(|_| {
            let message = "The arguments of the call cannot be read as one JSON object.";
            Refusal::because(ErrorCode::UnreadableMessage, message)
        })?;
        let refused: BTreeSet<&str> = given.names().filter(|name| !allowed.contains(*name)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        let allowed = if allowed.is_empty() {
            "none".to_owned()
        } else {
            allowed.join(", ")
        };
        let more = refused.len().saturating_sub(NAMES_SHOWN);
        let mut refused: Vec<String> = refused
            .into_iter()
            .take(NAMES_SHOWN)
            .map(|name| shown(name, NAME_SHOWN))
            .collect();
        if more > 0 {
            refused.push(format!("and {more} more"));
        }
        let message = format!(
            "The tool {tool} may not be called with {}. Allowed: {allowed}.",
            refused.join(", ")
        );
        Err(Refusal::because(ErrorCode::ParameterNotAllowed, message))
    }
}

/// The elements of `tools`, if the result has it.
fn tools_in(result: &str) -> Result<Option<Vec<&RawValue>>, Unreadable> {
    if !result.trim_ascii_start().starts_with('{') {
        return Ok(None);
    }
    let members = Members::read_any(result).map_err(|_| Unreadable)?;
    match members.only("tools") {
        Err(_) => Err(Unreadable),
        Ok(None) => Ok(None),
        Ok(Some(tools)) => serde_json::from_str(tools.get())
            .map(Some)
            .map_err(|_| Unreadable),
    }
}

fn name_of(tool: &RawValue) -> Result<Cow<'_, str>, Unreadable> {
    let members = Members::read_any(tool.get()).map_err(|_| Unreadable)?;
    let name = members.only("name").map_err(|_| Unreadable)?;
    name.and_then(members::text).ok_or(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: Option<&[&str]>, disallowed: &[&str], parameters: &[(&str, &[&str])]) -> ToolRules {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(tool, names)| ((*tool).to_owned(), owned(names)))
            .collect();
        let names = Names::new(["GitHub", "gh", "0123"]);
        ToolRules::new(
            names,
            allowed.map(owned).as_deref(),
            &owned(disallowed),
            &parameters,
        )
        .expect("rules")
    }

    fn call(rules: &ToolRules, tool: &str, arguments: &str) -> Option<(ErrorCode, String)> {
        let arguments: Option<&RawValue> = match arguments {
            "" => None,
            text => Some(serde_json::from_str(text).expect("JSON")),
        };
        let refusal = rules.judge_call(tool, arguments).err()?;
        Some((refusal.code, refusal.message.into_owned()))
    }

    #[test]
    fn names_are_compared_without_prefix_and_capitals() {
        let only = rules(Some(&["Echo", "gh-list"]), &["echo"], &[]);
        let all_but = rules(None, &["Delete", "github-drop"], &[]);
        for (tool, listed, forbidden) in [
            ("echo", true, false),
            ("ECHO", true, false),
            ("gh-echo", true, false),
            ("GITHUB-Echo", true, false),
            ("0123-echo", true, false),
            (" echo ", true, false),
            ("list", true, false),
            ("github-list", true, false),
            ("other-echo", false, false),
            ("gh-gh-echo", false, false),
            ("ech", false, false),
            ("", false, false),
            ("delete", false, true),
            ("DELETE", false, true),
            ("gh-delete", false, true),
            ("delete\t", false, true),
            ("drop", false, true),
            ("Gh-Drop", false, true),
            ("undelete", false, false),
        ] {
            assert_eq!(only.permits(tool), listed, "{tool:?}");
            assert_eq!(call(&only, tool, "{}").is_none(), listed, "{tool:?}");
            assert_eq!(all_but.permits(tool), !forbidden, "{tool:?}");
        }
    }

    #[test]
    fn arguments_by_name_and_as_every_reader_reads_them() {
        use ErrorCode::{ParameterNotAllowed as Parameter, UnreadableMessage as Unreadable};
        let rules = rules(None, &[], &[("Gh-echo", &["message", "größe"]), ("ping", &[])]);
        for (tool, arguments, code) in [
            ("echo", "", None),
            ("echo", "null", None),
            ("echo", "{}", None),
            ("echo", r#"{"message":{"x":1},"gr\u00f6\u00dfe":1}"#, None),
            ("github-ECHO", r#"{"m\u0065ssage":1}"#, None),
            ("other", r#"{"x":1}"#, None),
            ("echo", r#"{"x":1}"#, Some(Parameter)),
            ("gh-echo", r#"{"message":1,"x":1}"#, Some(Parameter)),
            ("echo", r#"{"Message":1}"#, Some(Parameter)),
            ("echo", r#"{"x":1,"message":1,"x":2}"#, Some(Parameter)),
            ("ping", r#"{"message":1}"#, Some(Parameter)),
            ("echo", r#"["message"]"#, Some(Unreadable)),
            ("echo", r#""message""#, Some(Unreadable)),
            ("echo", r#"{"\ud800":1}"#, Some(Unreadable)),
        ] {
            let found = call(&rules, tool, arguments).map(|(code, _)| code);
            assert_eq!(found, code, "{tool} {arguments}");
        }
        let (_, message) = call(&rules, "echo", r#"{"b":1,"a\n":1,"message":1}"#).expect("refused");
        assert_eq!(
            message,
            "The tool echo may not be called with a, b. Allowed: größe, message."
        );
        let (_, message) = call(&rules, "ping", r#"{"b":1}"#).expect("refused");
        assert_eq!(message, "The tool ping may not be called with b. Allowed: none.");
        let many: serde_json::Map<_, _> = (0..50).map(|n| (format!("p{n}"), 1.into())).collect();
        let (_, message) = call(&rules, "ping", &serde_json::Value::from(many).to_string()).expect("refused");
        assert!(message.contains("and 40 more"), "{message}");
    }

    #[test]
    fn lists_lose_what_is_hidden_and_nothing_else() {
        let rules = Rules::from(rules(None, &["b"], &[]));
        for (result, expected) in [
            (
                r#"{ "tools" : [ {"name":"a", "x":1.0}, {"title":"B","name":"gh-B"} ], "nextCursor":"c" }"#,
                Ok(r#"{ "tools" : [ {"name":"a", "x":1.0} ], "nextCursor":"c" }"#),
            ),
            (r#"{"tools":[{"n\u0061me":"\u0062"}]}"#, Ok(r#"{"tools":[]}"#)),
            (r#"{"tools":[{"name":"a"}]}"#, Ok(r#"{"tools":[{"name":"a"}]}"#)),
            (
                r#"{"content":[],"x":1,"x":2}"#,
                Ok(r#"{"content":[],"x":1,"x":2}"#),
            ),
            (r#"{"content":[]}"#, Ok(r#"{"content":[]}"#)),
            ("17", Ok("17")),
            (r#"{"tools":{}}"#, Err(Unreadable)),
            (r#"{"tools":null}"#, Err(Unreadable)),
            (r#"{"tools":[],"tools":[{"name":"b"}]}"#, Err(Unreadable)),
            (r#"{"tools":[],"Tools":[{"name":"b"}]}"#, Err(Unreadable)),
            (r#"{"tools":[{"name":"a","name":"b"}]}"#, Err(Unreadable)),
            (r#"{"tools":[{"name":"a","NAME":"b"}]}"#, Err(Unreadable)),
            (r#"{"tools":[{"title":"a"}]}"#, Err(Unreadable)),
            (r#"{"tools":["b"]}"#, Err(Unreadable)),
            (r#"{"tools":[["b"]]}"#, Err(Unreadable)),
        ] {
            let found = rules.filter_result(result);
            assert_eq!(found.as_deref(), expected.as_deref(), "{result}");
        }
    }

    #[test]
    fn nothing_ruled_out_is_no_rules() {
        assert!(ToolRules::new(Names::new([]), None, &[], &[]).is_none());
    }
}
