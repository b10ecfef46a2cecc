//! A message that is signed, with the configured access key or a role's. A role's key that the server calls ended is
//! replaced, and the message sent again, once.

use super::forward::{Answer, Call, no_token};
use crate::credentials::aws_sigv4::{AccessKey, Signer};
use crate::credentials::machine::{AfterRefusal, TokenError};
use crate::credentials::per_request::PerRequest;
use crate::net::token_endpoint::TokenFault;
use crate::web::error::{ErrorCode, Refusal};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use vestibule_oauth::TokenResponseFault;

/// As much of a refusal as is read for its code, in bytes.
const READ: usize = 16 * 1024;

/// Where most services put the code of an error; what may follow a colon is an address.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

impl Call<'_> {
    /// Signed, and sent.
    pub(super) async fn signed(&self, signer: &Signer, brought: &PerRequest) -> Result<Answer, Refusal> {
        let slot = match signer.key() {
            AccessKey::Configured(key) => return self.send_with(None, Some(key), brought).await,
            AccessKey::OfRole(slot) => slot,
        };
        let mut retried = false;
        loop {
            let key = slot.token().await.map_err(no_access_key)?;
            let mut answer = self.send_with(None, Some(key.credential()), brought).await?;
            if answer.response.status() != StatusCode::FORBIDDEN {
                slot.accepted(&key);
                return Ok(answer);
            }
            let patience = self.server.first_byte_timeout;
            let ended = match code_in(answer.response.headers()) {
                Some(code) => has_ended(&code),
                None => match answer.response.body_mut().buffer(READ, patience).await {
                    Ok((body, true)) => code_of(&body).is_some_and(|code| has_ended(&code)),
                    Ok((_, false)) | Err(_) => false,
                },
            };
            if !ended {
                slot.accepted(&key);
            }
            // Its body is read, and it is nobody's to read but ours.
            if !ended || slot.refused(&key) != AfterRefusal::Retry || retried {
                return Err(Refusal::new(ErrorCode::UpstreamRefusedSignature));
            }
            retried = true;
        }
    }
}

fn has_ended(code: &str) -> bool {
    matches!(code, "ExpiredToken" | "ExpiredTokenException")
}

fn code_in(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(ERROR_TYPE)?.to_str().ok()?;
    value.split(':').next().map(|code| code.trim().to_owned())
}

/// The code in the body of an error: a member of JSON, or an element of XML.
fn code_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(alias = "Code", alias = "__type")]
        code: String,
    }
    if let Ok(Said { code }) = serde_json::from_slice(body) {
        // `__type` may have a name space before it.
        return code.rsplit('#').next().map(str::to_owned);
    }
    let text = std::str::from_utf8(body).ok()?;
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    Some(code.to_owned())
}

/// Why there is no access key. The words of a token endpoint's codes do not fit STS.
fn no_access_key(error: TokenError) -> Refusal {
    let code = match &error.fault {
        TokenFault::Unreachable(_) => ErrorCode::StsUnreachable,
        TokenFault::Timeout => ErrorCode::StsTimeout,
        TokenFault::TooLarge
        | TokenFault::Truncated
        | TokenFault::Response(TokenResponseFault::Redirect(_)) => ErrorCode::StsAnswerInvalid,
        _ => return no_token(error),
    };
    let retry_after = Some(error.retry_after);
    let message = match error.fault {
        TokenFault::Unreachable(why) => format!("AWS STS cannot be reached ({why})."),
        _ => code.meaning().to_owned(),
    };
    Refusal {
        retry_after,
        ..Refusal::because(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_refusal_is_found_in_the_shapes_of_aws() {
        for (body, expected) in [
            (
                r#"{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"x"}"#,
                Some("ExpiredTokenException"),
            ),
            (r#"{"code":"ExpiredToken"}"#, Some("ExpiredToken")),
            (
                r#"{"Code":"AccessDenied","Message":"ExpiredToken"}"#,
                Some("AccessDenied"),
            ),
            ("<Error><Code>ExpiredToken</Code></Error>", Some("ExpiredToken")),
            (r#"{"message":"ExpiredToken"}"#, None),
            ("", None),
        ] {
            assert_eq!(code_of(body.as_bytes()).as_deref(), expected, "{body}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(code_in(&headers), None);
        headers.insert(
            ERROR_TYPE,
            "ExpiredTokenException:http://internal/".parse().expect("a value"),
        );
        assert_eq!(code_in(&headers).as_deref(), Some("ExpiredTokenException"));
    }
}
