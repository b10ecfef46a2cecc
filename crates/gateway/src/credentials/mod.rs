//! What we show an MCP server. Gives an [`OutboundCredential`]; nothing about the caller enters here.

pub mod machine;
pub mod person;

use crate::config::{Auth, ServerSettings, SignIn};
use http::{HeaderName, HeaderValue, header};
use machine::MachineTokens;
use std::sync::Arc;

/// One header for the server.
#[derive(Debug, Clone)]
pub struct OutboundCredential {
    /// Its name.
    pub name: HeaderName,
    /// Its value, marked sensitive.
    pub value: HeaderValue,
}

/// Where a server's credential comes from.
#[derive(Debug)]
pub enum CredentialSource {
    /// There is none.
    None,
    /// The configuration.
    Static(OutboundCredential),
    /// The client credentials grant.
    Machine(Arc<machine::Slot>),
    /// The person behind the caller, who signs in.
    Person(Arc<SignIn>),
}

impl CredentialSource {
    /// The source that `server` asks for.
    pub fn new(server: &ServerSettings, tokens: &MachineTokens) -> Self {
        match &server.auth {
            Auth::None => Self::None,
            Auth::Static { name, value, .. } => Self::Static(OutboundCredential {
                name: name.clone(),
                value: value.clone(),
            }),
            Auth::ClientCredentials { token_url, request } => {
                Self::Machine(tokens.slot(server, token_url, request))
            }
            Auth::AuthorizationCode(sign_in) => Self::Person(Arc::clone(sign_in)),
        }
    }

    /// The header that no configured or forwarded header may take.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::None => None,
            Self::Static(credential) => Some(&credential.name),
            Self::Machine(_) | Self::Person(_) => Some(&header::AUTHORIZATION),
        }
    }
}

impl OutboundCredential {
    /// `Authorization` with this value.
    pub fn authorization(value: &HeaderValue) -> Self {
        Self {
            name: header::AUTHORIZATION,
            value: value.clone(),
        }
    }
}
