//! Who may use which server, and which of its tools. The one function that says so: lists, calls, the REST facade,
//! sign-ins and pages all ask here.

use super::tools::{Names, Rules, ToolRules};
use crate::admission::keys::VirtualKey;
use crate::admission::{Admission, Principal};
use crate::registry::Server;
use crate::web::error::{ErrorCode, Refusal};
use std::sync::Arc;

/// The rules that `admission`'s holder has to keep at `server`.
///
/// # Errors
/// [`ErrorCode::MissingKey`] where a key is needed, [`ErrorCode::ServerNotAllowed`] where the key is for others.
pub fn permit(admission: &Admission, server: &Server) -> Result<Rules, Refusal> {
    let key = match &admission.principal {
        Principal::Master | Principal::Anyone => return Ok(Rules::of(server)),
        Principal::Delegated if server.admits_by_itself() => return Ok(Rules::of(server)),
        Principal::Delegated => return Err(Refusal::new(ErrorCode::MissingKey)),
        Principal::Key(key) => key,
    };
    if !is_for(key, server) {
        let message = format!("The gateway key is not for the MCP server {}.", server.name);
        return Err(Refusal::because(ErrorCode::ServerNotAllowed, message));
    }
    let only = ToolRules::in_each(|| Names::of(server), &key.document.limits(server));
    Ok(Rules::of(server).and(only.map(Arc::new)))
}

/// [`permit`], where only whether matters.
pub fn may_use(admission: &Admission, server: &Server) -> bool {
    permit(admission, server).is_ok()
}

/// A key that names nothing is for what is for everybody, an admin's for everything.
pub fn is_for(key: &VirtualKey, server: &Server) -> bool {
    server.allows_all_keys || key.manages() || key.document.granted_by(server).is_some()
}
