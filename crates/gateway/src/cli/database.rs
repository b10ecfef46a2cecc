//! Which database is meant: the environment, the configuration file, or a file beside it.

use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::path::Path;
use vestibule_store::DatabaseUrl;

const FILE_NAME: &str = "vestibule.db";

/// `DATABASE_URL`, else `general_settings.database_url` (`configured`), else `vestibule.db` in
/// `VESTIBULE_DATA_DIR`, else beside the configuration file. An empty variable is none.
pub(crate) fn database_url(
    environment: &HashMap<String, String>,
    config: &Path,
    configured: Option<&SecretString>,
) -> Result<DatabaseUrl, String> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let parse = |name: &str, text: &str| DatabaseUrl::parse(text).map_err(|fault| format!("{name}: {fault}"));
    if let Some(text) = variable("DATABASE_URL") {
        return parse("DATABASE_URL", text);
    }
    if let Some(text) = configured {
        return parse("general_settings.database_url", text.expose_secret());
    }
    let directory = match variable("VESTIBULE_DATA_DIR") {
        Some(directory) => Path::new(directory),
        None => config.parent().unwrap_or(Path::new("")),
    };
    Ok(DatabaseUrl::sqlite(&directory.join(FILE_NAME)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_named_counts() {
        let environment = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let configured = SecretString::from("postgres://ada:canary@h:1/d");
        let url = |pairs: &[(&str, &str)], configured: Option<&SecretString>| {
            database_url(&environment(pairs), Path::new("etc/config.yaml"), configured)
                .map(|url| url.to_string())
        };
        let data = ("VESTIBULE_DATA_DIR", "/data");
        assert_eq!(
            url(&[("DATABASE_URL", "sqlite:a.db"), data], Some(&configured)),
            Ok("sqlite:a.db".to_owned())
        );
        assert_eq!(
            url(&[("DATABASE_URL", ""), data], Some(&configured)),
            Ok("postgres://ada@h:1/d".to_owned())
        );
        assert_eq!(url(&[data], None), Ok("sqlite:/data/vestibule.db".to_owned()));
        assert_eq!(url(&[], None), Ok("sqlite:etc/vestibule.db".to_owned()));
        let beside = database_url(&environment(&[]), Path::new("config.yaml"), None).expect("a url");
        assert_eq!(beside.to_string(), "sqlite:vestibule.db");
        let wrong = url(&[("DATABASE_URL", "mysql://canary@h/d")], None).expect_err("refused");
        assert!(wrong.starts_with("DATABASE_URL: a database is sqlite:PATH") && !wrong.contains("canary"));
    }
}
