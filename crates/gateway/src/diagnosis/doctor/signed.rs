//! A refused signature (AWS Signature Version 4): what of it is wrong, as far as the server's name and clock tell.

use super::advice::{Advice, line, you};
use super::mode::{Mode, Signature};
use super::walk::Walk;
use url::Url;

/// AWS takes no signature whose time is further off, in seconds.
const SKEW: u64 = 300;

impl Walk {
    pub(super) fn signature_lines(&self) -> Vec<Advice> {
        let Mode::Signed(signature) = &self.mode else {
            return Vec::new();
        };
        let mut advice = Vec::new();
        let now = self.worker.app.clock.unix_seconds();
        let theirs = self.unasked.as_ref().and_then(|unasked| unasked.date);
        if let Some(off) = theirs
            .map(|theirs| theirs.abs_diff(now))
            .filter(|off| *off > SKEW)
        {
            advice.push(you(format!(
                "set this machine's clock: it is {off} s away from the server's, and AWS takes at most {SKEW}"
            )));
        }
        if signature.half {
            advice.push(line(
                "aws_session_token",
                "os.environ/AWS_SESSION_TOKEN",
                "what comes with a temporary access key, whose id begins with ASIA",
            ));
        }
        let url = self.address.as_ref().map(|(url, _)| url);
        advice.extend(url.into_iter().flat_map(|url| scope_lines(url, signature)));
        advice.push(you(format!(
            "check aws_access_key_id and aws_secret_access_key, that the key may call this server (IAM), and the scope of \
             the signature: aws_region_name is {}, aws_service_name is {}",
            signature.region, signature.service
        )));
        advice
    }
}

/// The region and the service that the name of an AWS endpoint has in it, where the configuration has others.
fn scope_lines(url: &Url, signature: &Signature) -> Vec<Advice> {
    let host = url.host_str().unwrap_or_default();
    let labels = |end: &str| -> Option<Vec<&str>> { Some(host.strip_suffix(end)?.split('.').collect()) };
    let amazon = labels(".amazonaws.com").or_else(|| labels(".amazonaws.com.cn"));
    let (service, region) = match (amazon.as_deref(), labels(".on.aws").as_deref()) {
        (Some([.., service, region]), _) => (*service, *region),
        (_, Some([_, "lambda-url", region])) => ("lambda", *region),
        _ => return Vec::new(),
    };
    // `us-east-1`, and not the name of a service without regions.
    let is_region = region.split('-').count() >= 3 && region.ends_with(|c: char| c.is_ascii_digit());
    if !is_region {
        return Vec::new();
    }
    let why = "what the host in url says";
    let wanted = [
        ("aws_region_name", region, signature.region.as_str()),
        ("aws_service_name", service, signature.service.as_str()),
    ];
    wanted
        .into_iter()
        .filter(|(_, named, configured)| named != configured)
        .map(|(name, named, _)| line(name, named, why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_says_region_and_service() {
        let signature = Signature {
            region: "us-east-1".into(),
            service: "bedrock-agentcore".into(),
            half: false,
        };
        let (frankfurt, lambda) = ("aws_region_name: eu-central-1", "aws_service_name: lambda");
        for (url, expected) in [
            ("https://bedrock-agentcore.us-east-1.amazonaws.com/mcp", &[][..]),
            (
                "https://bedrock-agentcore.eu-central-1.amazonaws.com/mcp",
                &[frankfurt],
            ),
            (
                "https://id.gateway.bedrock-agentcore.eu-central-1.amazonaws.com/mcp",
                &[frankfurt],
            ),
            (
                "https://abc.execute-api.us-east-1.amazonaws.com/mcp",
                &["aws_service_name: execute-api"],
            ),
            (
                "https://abc.lambda-url.eu-central-1.on.aws/",
                &[frankfurt, lambda],
            ),
            ("https://s3.amazonaws.com/mcp", &[]),
            ("https://mcp.example.com/mcp", &[]),
            ("https://127.0.0.1/mcp", &[]),
        ] {
            let lines = scope_lines(&Url::parse(url).expect("url"), &signature);
            let lines: Vec<_> = lines
                .iter()
                .map(|advice| match advice {
                    Advice::Configuration { line, .. } => line.as_str(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(lines, expected, "{url}");
        }
    }
}
