//! What single providers need beyond the standards, as data: nothing else in the gateway knows a provider.

use url::Url;

/// Defaults for the provider whose authorization endpoint matches.
struct Provider {
    /// Host of the authorization endpoint.
    host: &'static str,
    /// Parameters of the authorization request; those of the configured URL win.
    parameters: &'static [(&'static str, &'static str)],
    /// It refuses `resource` (RFC 8707).
    refuses_resource: bool,
    /// A scope without which it gives no refresh token.
    refresh_scope: Option<&'static str>,
}

const PROVIDERS: &[Provider] = &[
    // Refresh tokens only for offline access, and again only after a prompt.
    Provider {
        host: "accounts.google.com",
        parameters: &[("access_type", "offline"), ("prompt", "consent")],
        refuses_resource: false,
        refresh_scope: None,
    },
    // AADSTS9010010: the v2 endpoint reads the audience from the scopes alone.
    Provider {
        host: "login.microsoftonline.com",
        parameters: &[],
        refuses_resource: true,
        refresh_scope: Some("offline_access"),
    },
    Provider {
        host: "login.microsoftonline.us",
        parameters: &[],
        refuses_resource: true,
        refresh_scope: Some("offline_access"),
    },
    Provider {
        host: "login.partner.microsoftonline.cn",
        parameters: &[],
        refuses_resource: true,
        refresh_scope: Some("offline_access"),
    },
    Provider {
        host: "auth.atlassian.com",
        parameters: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
        refuses_resource: false,
        refresh_scope: Some("offline_access"),
    },
];

/// What the provider of an authorization endpoint needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Defaults {
    /// Further parameters of the authorization request.
    pub(super) parameters: &'static [(&'static str, &'static str)],
    /// Whether `resource` is left out unless it is asked for.
    pub(super) refuses_resource: bool,
    /// A scope to add for a refresh token.
    pub(super) refresh_scope: Option<&'static str>,
}

/// The defaults for this authorization endpoint.
pub(super) fn defaults(authorization_url: &Url) -> Defaults {
    let host = authorization_url.host_str().unwrap_or_default();
    let known = PROVIDERS.iter().find(|provider| provider.host == host);
    known.map_or_else(Defaults::default, |provider| Defaults {
        parameters: provider.parameters,
        refuses_resource: provider.refuses_resource,
        refresh_scope: provider.refresh_scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_by_the_whole_host() {
        let of = |url: &str| defaults(&Url::parse(url).expect("url"));
        assert_eq!(
            of("https://accounts.google.com/o/oauth2/v2/auth")
                .parameters
                .len(),
            2
        );
        assert!(of("https://login.microsoftonline.com/t/oauth2/v2.0/authorize").refuses_resource);
        for other in [
            "https://accounts.google.com.evil.example/",
            "https://evil-accounts.google.com/",
            "http://127.0.0.1/",
        ] {
            assert_eq!(of(other), Defaults::default(), "{other}");
        }
    }
}
