//! Which servers a path names. The one reader of MCP paths: whoever decides on a target asks here.

/// What a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'p> {
    /// One name: a server's endpoint, or a group's.
    Server(&'p str),
    /// Several names, with commas between them.
    Several(&'p str),
    /// No name: all servers, or those of `x-mcp-servers`.
    All,
    /// Another endpoint of LiteLLM's that is not supported yet.
    NotSupported,
    /// No MCP endpoint.
    Other,
}

/// The most names of one request.
pub const MAX_NAMES: usize = 16;

/// LiteLLM's own names below `/mcp/`.
const NOT_SUPPORTED: &[&str] = &["sse", "messages", "enabled", "proxy"];

/// Reads `/mcp`, `/mcp/mcp`, `/{names}/mcp` and `/mcp/{names}`, each with or without a slash at the end.
/// A name is compared as it is: nothing is decoded, so no other spelling reaches a server.
pub fn of(path: &str) -> Target<'_> {
    let Some(path) = path.strip_prefix('/') else {
        return Target::Other;
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let name = match path.split_once('/') {
        None if path == "mcp" => return Target::All,
        Some(("mcp", "mcp")) => return Target::All,
        Some(("toolset", _)) => return Target::NotSupported,
        Some(("mcp", name) | (name, "mcp")) => name,
        _ => return Target::Other,
    };
    if NOT_SUPPORTED.contains(&name) {
        Target::NotSupported
    } else if name.is_empty() || name.contains('/') {
        Target::Other
    } else if name.contains(',') {
        Target::Several(name)
    } else {
        Target::Server(name)
    }
}

/// The names of a list with commas, each once, in their order. Empty ones are none.
pub fn names(list: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
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
            ("/mcp", Target::All),
            ("/mcp/", Target::All),
            ("/mcp/mcp", Target::All),
            ("/mcp/mcp/", Target::All),
            ("/a,b/mcp", Target::Several("a,b")),
            ("/a,b/mcp/", Target::Several("a,b")),
            ("/mcp/a,b", Target::Several("a,b")),
            ("/mcp/,", Target::Several(",")),
            ("/mcp/a,b/c", Target::Other),
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
            ("/a%2Cb/mcp", Target::Server("a%2Cb")),
            ("/github;x/mcp", Target::Server("github;x")),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn lists_keep_their_order_and_say_a_name_once() {
        assert_eq!(names("b,a,b, a ,c"), ["b", "a", "c"]);
        assert_eq!(names(",, "), Vec::<&str>::new());
        assert_eq!(names("A,a"), ["A", "a"]);
    }
}
