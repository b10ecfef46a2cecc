//! Which server a path names. The one reader of MCP paths: whoever decides on a target asks here.

/// What a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'p> {
    /// One server's endpoint.
    Server(&'p str),
    /// Several servers, or another endpoint of LiteLLM's that is not supported yet.
    NotSupported,
    /// No MCP endpoint.
    Other,
}

/// LiteLLM's own names below `/mcp/`.
const NOT_SUPPORTED: &[&str] = &["mcp", "sse", "messages", "enabled", "proxy"];

/// Reads `/{server}/mcp` and `/mcp/{server}`, each with or without a slash at the end.
/// A name is compared as it is: nothing is decoded, so no other spelling reaches a server.
pub fn of(path: &str) -> Target<'_> {
    let Some(path) = path.strip_prefix('/') else {
        return Target::Other;
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let name = match path.split_once('/') {
        None if path == "mcp" => return Target::NotSupported,
        Some(("toolset", _)) => return Target::NotSupported,
        Some(("mcp", name) | (name, "mcp")) => name,
        _ => return Target::Other,
    };
    if name.contains(',') || NOT_SUPPORTED.contains(&name) {
        Target::NotSupported
    } else if name.is_empty() || name.contains('/') {
        Target::Other
    } else {
        Target::Server(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/github/mcp", Target::Server("github")),
            ("/github/mcp/", Target::Server("github")),
            ("/mcp/github", Target::Server("github")),
            ("/mcp/github/", Target::Server("github")),
            ("/mcp", Target::NotSupported),
            ("/mcp/", Target::NotSupported),
            ("/mcp/mcp", Target::NotSupported),
            ("/a,b/mcp", Target::NotSupported),
            ("/mcp/a,b", Target::NotSupported),
            ("/mcp/sse", Target::NotSupported),
            ("/toolset/x/mcp", Target::NotSupported),
            ("/", Target::Other),
            ("", Target::Other),
            ("/github", Target::Other),
            ("/github/mcp//", Target::Other),
            ("//mcp", Target::Other),
            ("/github//mcp", Target::Other),
            ("/mcp/github/tools", Target::Other),
            ("/mcp/../github", Target::Other),
            ("/github/mcp/x", Target::Other),
            ("/github/MCP", Target::Other),
            ("/mcp-rest/tools/list", Target::Other),
            // No other spelling of a name is the name.
            ("/git%68ub/mcp", Target::Server("git%68ub")),
            ("/github;x/mcp", Target::Server("github;x")),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }
}
