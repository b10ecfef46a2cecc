//! What we show an MCP server. Gives an [`OutboundCredential`]. Of the caller nothing enters here but what it brings for
//! one server by name ([`per_request`]).

pub mod aws_sigv4;
pub mod client_proof;
pub mod exchange;
pub mod machine;
pub mod own_keys;
pub mod passthrough;
pub mod per_request;
pub mod person;

use crate::config::{Auth, ByokPage, Passthrough, ServerSettings, SignIn};
use aws_sigv4::Signer;
use exchange::{Exchanger, Exchanges};
use http::{HeaderName, HeaderValue};
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
    /// A key that the person behind the caller brought.
    Byok(Arc<ByokPage>),
    /// The client credentials grant.
    Machine(Arc<machine::Slot>),
    /// The person behind the caller, who signs in.
    Person(Arc<SignIn>),
    /// The caller, whose `Authorization` goes along as it came. Nothing of the gateway's own and nothing that is kept
    /// can take its place. With a bridge the tokens of its own clients come sealed.
    Caller(Passthrough, Option<Arc<SignIn>>),
    /// A signature over each request.
    AwsSigV4(Signer),
    /// The caller's own token, exchanged.
    OnBehalf(Arc<Exchanger>),
}

impl CredentialSource {
    /// The source that `server` asks for.
    pub fn new(server: &ServerSettings, tokens: &Arc<MachineTokens>, exchanges: &Exchanges) -> Self {
        match &server.auth {
            Auth::None => Self::None,
            Auth::Static { name, value, .. } => Self::Static(OutboundCredential {
                name: name.clone(),
                value: value.clone(),
            }),
            Auth::Byok { page, .. } => Self::Byok(Arc::clone(page)),
            Auth::ClientCredentials { token_url, request } => {
                Self::Machine(tokens.slot(server, token_url, request))
            }
            Auth::AuthorizationCode(sign_in) => Self::Person(Arc::clone(sign_in)),
            Auth::Passthrough { mode, bridge } => Self::Caller(*mode, bridge.clone()),
            Auth::AwsSigV4(settings) => Self::AwsSigV4(Signer::new(&server.name, settings, tokens)),
            Auth::Exchange(settings) => Self::OnBehalf(exchanges.exchanger(server, settings, tokens)),
        }
    }

    /// Whether a caller may bring another credential in its place. A person, and a caller of a server with a fixed
    /// credential, may act as somebody else at that server; the gateway itself, as a machine, is nobody else.
    pub fn gives_way(&self) -> bool {
        match self {
            Self::None | Self::Static(_) | Self::Byok(_) | Self::Person(_) | Self::Caller(..) => true,
            Self::Machine(_) | Self::AwsSigV4(_) | Self::OnBehalf(_) => false,
        }
    }
}
