//! What each server is shown of what a request brings, as docs/credentials.md, docs/delegation.md,
//! docs/token-exchange.md and docs/several-servers.md have it, written down once more. Nothing here asks the gateway.

use crate::harness::KEY;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;

/// A kind of server, by its authentication. One server of each is in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    PassedOn,
    OAuthPassthrough,
    ApiKey,
    Bearer,
    BearerElsewhere,
    Basic,
    Authorization,
    TokenScheme,
    Machine,
    MachineOverSse,
    PersonUnknown,
    PersonKept,
    Delegated,
    TruePassthrough,
    OAuthDelegate,
    Exchange,
    ExchangeElsewhere,
    ExchangeOrMachine,
    Entra,
    IdJag,
    Aws,
}

pub(crate) const KINDS: [Kind; 22] = [
    Kind::Nothing,
    Kind::PassedOn,
    Kind::OAuthPassthrough,
    Kind::ApiKey,
    Kind::Bearer,
    Kind::BearerElsewhere,
    Kind::Basic,
    Kind::Authorization,
    Kind::TokenScheme,
    Kind::Machine,
    Kind::MachineOverSse,
    Kind::PersonUnknown,
    Kind::PersonKept,
    Kind::Delegated,
    Kind::TruePassthrough,
    Kind::OAuthDelegate,
    Kind::Exchange,
    Kind::ExchangeElsewhere,
    Kind::ExchangeOrMachine,
    Kind::Entra,
    Kind::IdJag,
    Kind::Aws,
];

/// The server beside the one that a request is about, which takes nothing of the caller's.
pub(crate) const PLAIN: &str = "plain";
/// The one that takes `Authorization` as well.
pub(crate) const TAKER: &str = "taker";

impl Kind {
    /// The name of its server.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// A token of the caller's is exchanged for the one that the server sees.
    pub(crate) fn exchanges(self) -> bool {
        matches!(
            self,
            Self::Exchange | Self::ExchangeElsewhere | Self::ExchangeOrMachine | Self::Entra | Self::IdJag
        )
    }

    /// Nobody needs a gateway key for it.
    fn is_open(self) -> bool {
        matches!(self, Self::Delegated | Self::TruePassthrough)
    }

    /// The caller's `Authorization` is used for it.
    fn takes_authorization(self) -> bool {
        let passed_on = matches!(
            self,
            Self::PassedOn
                | Self::OAuthPassthrough
                | Self::OAuthDelegate
                | Self::PersonUnknown
                | Self::PersonKept
        );
        passed_on || self.is_open() || self.exchanges()
    }

    /// The gateway says who it is itself, so nobody can be somebody else there.
    fn speaks_for_itself(self) -> bool {
        matches!(self, Self::Machine | Self::MachineOverSse | Self::Aws)
    }
}

/// A value in a place where a credential can arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// A credential of its own.
    Fresh,
    /// The gateway key.
    Key,
    /// A longer value with the gateway key in it.
    AroundKey,
}

/// Where the gateway key stands as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAt {
    Nowhere,
    Own,
    Authorization,
}

/// What a request brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brought {
    pub(crate) what: &'static str,
    pub(crate) key: KeyAt,
    pub(crate) authorization: Option<Value>,
    pub(crate) shared: Option<Value>,
    /// `x-mcp-{this}-authorization`.
    pub(crate) named: Option<Value>,
    /// `x-mcp-{this}-x-custom`.
    pub(crate) custom: Option<Value>,
    /// `x-mcp-{other}-authorization`.
    pub(crate) other: Option<Value>,
    /// `x-api-key`.
    pub(crate) api_key: Option<Value>,
}

const BARE: Brought = Brought {
    what: "nothing but the key",
    key: KeyAt::Own,
    authorization: None,
    shared: None,
    named: None,
    custom: None,
    other: None,
    api_key: None,
};

use Value::{AroundKey, Fresh, Key};

#[rustfmt::skip]
pub(crate) const PLACES: &[Brought] = &[
    BARE,
    Brought { what: "nothing at all", key: KeyAt::Nowhere, ..BARE },
    Brought { what: "a token, no key", key: KeyAt::Nowhere, authorization: Some(Fresh), ..BARE },
    Brought { what: "a token around the key, no key", key: KeyAt::Nowhere, authorization: Some(AroundKey), ..BARE },
    Brought { what: "the key in Authorization alone", key: KeyAt::Authorization, ..BARE },
    Brought { what: "the key in Authorization too", authorization: Some(Key), ..BARE },
    Brought { what: "a token", authorization: Some(Fresh), ..BARE },
    Brought { what: "a token around the key", authorization: Some(AroundKey), ..BARE },
    Brought { what: "x-mcp-auth", shared: Some(Fresh), ..BARE },
    Brought { what: "the key in x-mcp-auth", shared: Some(Key), ..BARE },
    Brought { what: "x-mcp-auth around the key", shared: Some(AroundKey), ..BARE },
    Brought { what: "x-mcp-this-authorization", named: Some(Fresh), ..BARE },
    Brought { what: "the key in x-mcp-this-authorization", named: Some(Key), ..BARE },
    Brought { what: "x-mcp-this-x-custom", custom: Some(Fresh), ..BARE },
    Brought { what: "x-mcp-this-x-custom around the key", custom: Some(AroundKey), ..BARE },
    Brought { what: "x-mcp-other-authorization", other: Some(Fresh), ..BARE },
    Brought { what: "x-api-key", api_key: Some(Fresh), ..BARE },
    Brought { what: "the key in x-api-key", api_key: Some(Key), ..BARE },
    Brought { what: "a token and x-mcp-auth", authorization: Some(Fresh), shared: Some(Fresh), ..BARE },
    Brought { what: "a token and x-mcp-this-authorization", authorization: Some(Fresh), named: Some(Fresh), ..BARE },
    Brought { what: "a token and x-mcp-other-authorization", authorization: Some(Fresh), other: Some(Fresh), ..BARE },
    Brought { what: "x-mcp-auth and x-mcp-this-authorization", shared: Some(Fresh), named: Some(Fresh), ..BARE },
    Brought { what: "the key in Authorization alone, and x-mcp-auth", key: KeyAt::Authorization, shared: Some(Fresh), ..BARE },
    Brought { what: "the key in Authorization alone, and x-mcp-this-authorization", key: KeyAt::Authorization, named: Some(Fresh), ..BARE },
];

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/{this}/mcp`.
    One,
    /// `/mcp` with `x-mcp-servers: {this}`.
    OneByHeader,
    /// `/{this},plain/mcp`.
    WithPlain,
    /// `/{this},taker/mcp`.
    WithTaker,
    /// `/mcp`.
    All,
    /// `/mcp-rest` with `server_id`.
    RestOne,
    /// `/mcp-rest` without.
    RestAll,
}

impl Target {
    pub(crate) fn is_rest(self) -> bool {
        matches!(self, Self::RestOne | Self::RestAll)
    }

    fn has_one(self) -> bool {
        matches!(self, Self::One | Self::OneByHeader | Self::RestOne)
    }
}

/// One request: what it brings, where it goes, about which server. Its number is in every value that it brings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) brought: Brought,
    pub(crate) target: Target,
    pub(crate) this: Kind,
    pub(crate) number: usize,
}

/// What becomes of a server in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is asked, and every header that no request has anyway is one of these.
    Shown(BTreeMap<&'static str, String>),
    /// It is not asked, for this reason.
    Refused(&'static str),
}

/// A server of a cell.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) server: String,
    pub(crate) kind: Kind,
    pub(crate) fate: Fate,
    /// The token that its token endpoint is asked to exchange.
    pub(crate) subject: Option<String>,
}

/// The status of a refusal.
pub(crate) fn status(code: &str) -> u16 {
    match code {
        "credential_not_taken" => 400,
        _ => 401,
    }
}

/// A token that `server`'s token endpoint gives for `subject`.
pub(crate) fn issued(server: &str, subject: &str) -> String {
    format!(
        "canary-mx-issued-{server}-for-{}",
        subject.replace(['.', ':'], "_").replace("canary-mx-", "")
    )
}

/// The machine token of `server`.
pub(crate) fn machine_token(server: &str) -> String {
    format!("canary-mx-machine-{server}")
}

impl Cell {
    fn value(&self, value: Value, what: &str, suffix: &str) -> String {
        match value {
            Fresh => format!("canary-mx-{what}-{}{suffix}", self.number),
            Key => KEY.to_owned(),
            AroundKey => format!("canary-mx-{what}-{}.{KEY}.x", self.number),
        }
    }

    fn authorization(&self) -> Option<String> {
        let value = match self.brought.key {
            KeyAt::Authorization => Key,
            _ => self.brought.authorization?,
        };
        Some(format!("Bearer {}", self.value(value, "caller", "")))
    }

    fn shared(&self) -> Option<String> {
        Some(self.value(self.brought.shared?, "shared", ":pass"))
    }

    fn named(&self, server: &str) -> Option<String> {
        let value = self.value(self.brought.named?, &format!("named-{server}"), "");
        Some(format!("Bearer {value}"))
    }

    fn other(&self) -> Option<(&'static str, String)> {
        let name = if self.target == Target::WithTaker {
            TAKER
        } else {
            PLAIN
        };
        Some((
            name,
            format!("Bearer {}", self.value(self.brought.other?, "other", "")),
        ))
    }

    /// The headers of the request. Where it goes to all servers, each is named with a value of its own.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            headers.extend(value.map(|value| (name.to_owned(), value)));
        };
        add(
            "x-litellm-api-key",
            (self.brought.key == KeyAt::Own).then(|| format!("Bearer {KEY}")),
        );
        add("authorization", self.authorization());
        add("x-mcp-auth", self.shared());
        for kind in KINDS.into_iter().filter(|kind| self.names(*kind)) {
            let server = kind.name();
            add(&format!("x-mcp-{server}-authorization"), self.named(&server));
            let custom = self.brought.custom;
            let custom = custom.map(|value| self.value(value, &format!("custom-{server}"), ""));
            add(&format!("x-mcp-{server}-x-custom"), custom);
        }
        let (name, value) = self.other().unzip();
        add(&format!("x-mcp-{}-authorization", name.unwrap_or(PLAIN)), value);
        add(
            "x-api-key",
            self.brought.api_key.map(|value| self.value(value, "apikey", "")),
        );
        headers
    }

    fn names(&self, kind: Kind) -> bool {
        kind == self.this || matches!(self.target, Target::All | Target::RestAll)
    }

    /// The servers that the request is for.
    fn servers(&self) -> Vec<(String, Kind)> {
        let this = (self.this.name(), self.this);
        let (plain, taker) = (
            (PLAIN.to_owned(), Kind::Nothing),
            (TAKER.to_owned(), Kind::PassedOn),
        );
        match self.target {
            Target::One | Target::OneByHeader | Target::RestOne => vec![this],
            Target::WithPlain => vec![this, plain],
            Target::WithTaker => vec![this, taker],
            Target::All | Target::RestAll => {
                let kinds = KINDS.into_iter().map(|kind| (kind.name(), kind));
                kinds.chain([plain, taker]).collect()
            }
        }
    }

    /// Why the request does not come in, if it does not.
    pub(crate) fn kept_out(&self) -> Option<&'static str> {
        let servers = self.servers();
        let named = !matches!(self.target, Target::All | Target::RestAll | Target::RestOne);
        let all = |holds: fn(Kind) -> bool| named && servers.iter().all(|(_, kind)| holds(*kind));
        match (self.brought.key, self.brought.authorization) {
            (KeyAt::Own, _) => None,
            (KeyAt::Authorization, _) => all(|kind| kind == Kind::OAuthDelegate).then_some("key_in_the_way"),
            (KeyAt::Nowhere, _) if all(Kind::is_open) => None,
            (KeyAt::Nowhere, None) => Some("missing_key"),
            (KeyAt::Nowhere, Some(_)) => Some("wrong_key"),
        }
    }

    /// What becomes of each server of a request that comes in.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let servers = self.servers();
        let takers = servers
            .iter()
            .filter(|(_, kind)| kind.takes_authorization())
            .count();
        let is_lone = !self.target.is_rest() && takers == 1 || self.target.has_one();
        servers
            .into_iter()
            .map(|(server, kind)| self.fate(server, kind, is_lone))
            .collect()
    }

    fn fate(&self, server: String, kind: Kind, is_lone: bool) -> Expected {
        let fresh = |value: Option<String>| value.filter(|value| !value.contains(KEY));
        // What it brings for this server by name, for whom it has, and for whichever it has.
        let other = self
            .other()
            .filter(|(name, _)| *name == server)
            .map(|(_, value)| value);
        let is_this = server == self.this.name() || kind.name() == server && self.names(kind);
        let named = fresh(if is_this { self.named(&server) } else { other });
        let authorization = fresh(self.authorization());
        let withheld = authorization.is_some() && kind.takes_authorization() && !is_lone;
        let authorization = authorization.filter(|_| kind.takes_authorization() && is_lone);
        let shared = fresh(self.shared()).filter(|_| self.target.has_one());

        let mut headers = BTreeMap::new();
        let custom = self.brought.custom.filter(|value| is_this && *value == Fresh);
        let custom = custom.map(|value| self.value(value, &format!("custom-{server}"), ""));
        headers.extend(custom.map(|value| ("x-custom", value)));
        let mut subject = None;

        let bring = named.is_some() || shared.is_some();
        let own = kind.own(&server);
        let lacks = |code| {
            // Where a machine token could have stood in, every road says why it did not.
            let stands_in = kind == Kind::ExchangeOrMachine;
            Some(Fate::Refused(
                if withheld && (stands_in || !self.target.is_rest()) {
                    "ambiguous_authorization"
                } else {
                    code
                },
            ))
        };
        let refused = if kind.speaks_for_itself() {
            bring.then_some(Fate::Refused("credential_not_taken"))
        } else if kind.exchanges() {
            let place = if kind == Kind::ExchangeElsewhere {
                "x-up"
            } else {
                "authorization"
            };
            subject = named.or(authorization).or(shared);
            subject = subject.map(|value| value.trim_start_matches("Bearer ").to_owned());
            let token = subject.as_deref().map(|subject| issued(&server, subject));
            let token =
                token.or((kind == Kind::ExchangeOrMachine && !withheld).then(|| machine_token(&server)));
            let none = token.is_none();
            headers.extend(token.map(|token| (place, format!("Bearer {token}"))));
            none.then(|| lacks("subject_token_required")).flatten()
        } else if let Some(named) = named {
            headers.insert("authorization", named);
            None
        } else if let Some(authorization) = authorization {
            headers.insert("authorization", authorization);
            None
        } else if let Some(shared) = shared {
            let (name, value) = kind.dressed(&shared);
            headers.insert(name, value);
            None
        } else {
            match kind {
                Kind::PersonUnknown => lacks("sign_in_required"),
                Kind::OAuthDelegate => lacks("callers_token_required"),
                _ => None,
            }
        };
        let shown = ["authorization", "x-api-key", "x-up"];
        if !shown.iter().any(|name| headers.contains_key(name)) {
            headers.extend(own);
        }
        Expected {
            server,
            kind,
            subject: subject.filter(|_| refused.is_none()),
            fate: refused.unwrap_or(Fate::Shown(headers)),
        }
    }
}

impl Kind {
    /// The gateway's own credential for it.
    fn own(self, server: &str) -> Option<(&'static str, String)> {
        let configured = format!("canary-mx-static-{server}");
        let (name, value) = match self {
            Self::ApiKey => ("x-api-key", configured),
            Self::Bearer => ("authorization", format!("Bearer {configured}")),
            Self::BearerElsewhere => ("x-up", format!("Bearer {configured}")),
            Self::Basic => {
                let pair = BASE64_STANDARD.encode(format!("{configured}:pass"));
                ("authorization", format!("Basic {pair}"))
            }
            Self::Authorization => ("authorization", format!("Odd {configured}")),
            Self::TokenScheme => ("authorization", format!("token {configured}")),
            Self::Machine | Self::MachineOverSse => {
                ("authorization", format!("Bearer {}", machine_token(server)))
            }
            Self::PersonKept => ("authorization", format!("Bearer canary-mx-kept-{server}")),
            Self::Aws => ("authorization", "(signature)".to_owned()),
            _ => return None,
        };
        Some((name, value))
    }

    /// `x-mcp-auth` as the server gets it.
    fn dressed(self, shared: &str) -> (&'static str, String) {
        match self {
            Self::ApiKey => ("x-api-key", shared.to_owned()),
            Self::BearerElsewhere => ("x-up", format!("Bearer {shared}")),
            Self::Basic => (
                "authorization",
                format!("Basic {}", BASE64_STANDARD.encode(shared)),
            ),
            Self::TokenScheme => ("authorization", format!("token {shared}")),
            Self::Bearer | Self::PersonUnknown | Self::PersonKept | Self::Delegated => {
                ("authorization", format!("Bearer {shared}"))
            }
            _ => ("authorization", shared.to_owned()),
        }
    }
}
