//! An MCP gateway that handles sign-in.
