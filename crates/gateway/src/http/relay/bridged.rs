//! What a caller is told when a server of another transport than HTTP has no answer.

use crate::net::bridge::BridgeFault;
use crate::web::error::{ErrorCode, Refusal};
use std::time::Duration;

/// When to come back where no time is known: sessions end as others leave.
const SOON: Duration = Duration::from_secs(5);

/// The refusal for a fault of the bridge to the server `name`.
pub(super) fn not_bridged(name: &str, fault: BridgeFault) -> Refusal {
    let (code, message) = match fault {
        BridgeFault::UnknownSession => return Refusal::new(ErrorCode::UnknownSession),
        BridgeFault::TooManySessions => {
            let message = format!("There are as many sessions with the MCP server {name} as there may be.");
            return later(ErrorCode::TooManySessions, message, SOON);
        }
        BridgeFault::TooManyProcesses => {
            let message = format!("The MCP server {name} needs a process more than there may be.");
            return later(ErrorCode::TooManyProcesses, message, SOON);
        }
        BridgeFault::Again(pause) => {
            let message = format!("The program of the MCP server {name} keeps ending soon after its start.");
            return later(ErrorCode::ServerRestarting, message, pause);
        }
        BridgeFault::MissingHeader(header) => (
            ErrorCode::MissingServerHeader,
            format!(
                "The MCP server {name} needs the header {header}, once, with a value that holds no gateway key."
            ),
        ),
        BridgeFault::NotStarted(why) => (
            ErrorCode::ServerNotStarted,
            format!("The program of the MCP server {name} could not be started ({why})."),
        ),
        BridgeFault::ForeignEndpoint => (
            ErrorCode::ForeignEndpoint,
            format!("The MCP server {name} wants messages sent to another origin than its own."),
        ),
        BridgeFault::NoEndpoint => (
            ErrorCode::EndpointTimeout,
            format!("The MCP server {name} did not say in time where messages go."),
        ),
        BridgeFault::NotSse => (
            ErrorCode::UpstreamNotMcp,
            format!("What came from the MCP server {name} is no event stream that says where messages go."),
        ),
        BridgeFault::Silent => (
            ErrorCode::UpstreamTimeout,
            format!("The MCP server {name} did not take the message in time."),
        ),
        BridgeFault::Status(status) => (
            ErrorCode::UpstreamNotMcp,
            format!("The MCP server {name} answered with status {}.", status.as_u16()),
        ),
        // The last five are answers, or refusals elsewhere, before they come here.
        BridgeFault::Ended
        | BridgeFault::RepeatedId
        | BridgeFault::SecondListener
        | BridgeFault::Invalid(_)
        | BridgeFault::Credential(..)
        | BridgeFault::Redirect(..)
        | BridgeFault::Send(_) => (
            ErrorCode::UpstreamEnded,
            format!("The MCP server {name} ended its session before the answer."),
        ),
    };
    Refusal::because(code, message)
}

fn later(code: ErrorCode, message: String, pause: Duration) -> Refusal {
    let mut refusal = Refusal::because(code, message);
    refusal.retry_after = Some(pause);
    refusal
}
