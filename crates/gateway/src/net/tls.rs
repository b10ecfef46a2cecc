//! TLS toward servers: rustls with the platform's certificate store, HTTP/1.1.

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use std::sync::Arc;

/// One configuration for every outbound connection. Where no URL is https (`needed` is false) a platform without
/// certificates is no error: nobody is trusted then.
pub fn client_config(needed: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let config = match builder()?.with_platform_verifier() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) if needed => return Err(error),
        Err(error) => {
            tracing::info!(%error, "no certificates to judge servers by; no URL needs them");
            let nobody = RootCertStore::empty();
            builder()?.with_root_certificates(nobody).with_no_client_auth()
        }
    };
    Ok(config)
}
