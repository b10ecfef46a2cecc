//! Parameters of an OAuth request, from a query or a form. None may stand twice (RFC 6749 section 3.1 and 3.2) but
//! `resource` (RFC 8707 section 2), which nobody here reads.

use std::collections::HashMap;
use url::form_urlencoded;

/// Parameters by name. An empty value is as good as absent (RFC 6749 section 3.1).
#[derive(Default)]
pub struct Parameters(HashMap<String, String>);

/// A parameter stands several times.
#[derive(Debug, PartialEq, Eq)]
pub struct Repeated(pub String);

impl Parameters {
    /// Reads `application/x-www-form-urlencoded`.
    pub fn parse(text: &[u8]) -> Result<Self, Repeated> {
        let mut all = HashMap::new();
        for (name, value) in form_urlencoded::parse(text).filter(|(name, _)| name != "resource") {
            if all.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Repeated(name.into_owned()));
            }
        }
        all.retain(|_, value: &mut String| !value.is_empty());
        Ok(Self(all))
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_empty() {
        let parameters = Parameters::parse(b"a=1&b=&c=x+y%26").expect("read");
        assert_eq!(parameters.get("a"), Some("1"));
        assert_eq!(parameters.get("b"), None);
        assert_eq!(parameters.get("c"), Some("x y&"));
        assert_eq!(
            Parameters::parse(b"a=1&b=2&a=1").err(),
            Some(Repeated("a".to_owned()))
        );
        let resources = Parameters::parse(b"resource=a&resource=b&a=1").expect("read");
        assert_eq!((resources.get("resource"), resources.get("a")), (None, Some("1")));
        // An empty one counts as one.
        assert_eq!(Parameters::parse(b"a=&a=1").err(), Some(Repeated("a".to_owned())));
    }
}
