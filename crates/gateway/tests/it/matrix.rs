//! Every kind of server, with every place where a credential can arrive, at every endpoint, against
//! [`crate::matrix_model`]: what each server and each token endpoint got, what the client heard, and that no credential
//! was anywhere else.

use crate::exchange::ACCESS_TOKEN;
use crate::harness::{Got, KEY, Start, TestGateway, entry, got, logged, personal};
use crate::matrix_model::{
    Brought, Cell, Expected, Fate, KINDS, Kind, PLACES, PLAIN, TAKER, Target, issued, machine_token, status,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use vestibule_testkit::{Answer, Idp, Peer, Reply, Request, SseServer, Upstream};

const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

/// Headers that every request has, and that carry no credential.
const PLAIN_HEADERS: &[&str] = &[
    "host",
    "accept",
    "content-type",
    "content-length",
    "user-agent",
    "mcp-protocol-version",
    "x-amz-date",
    "x-amz-content-sha256",
];

enum Asked {
    Http(Upstream),
    Sse(SseServer),
}

impl Deref for Asked {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        match self {
            Self::Http(server) => server,
            Self::Sse(server) => server,
        }
    }
}

/// A server with its token endpoints.
struct Member {
    name: String,
    kind: Kind,
    asked: Asked,
    /// Where callers' tokens are exchanged.
    exchange: Idp,
    /// The second leg of the identity assertion grant.
    resource: Idp,
    /// Where machine tokens are.
    machines: Idp,
}

struct World {
    members: Vec<Member>,
    gateway: TestGateway,
    cells: usize,
    faults: Vec<String>,
}

impl Member {
    async fn start(name: &str, kind: Kind) -> Self {
        let asked = match kind {
            Kind::MachineOverSse => Asked::Sse(SseServer::start().await),
            _ => Asked::Http(Upstream::start().await),
        };
        let (exchange, resource, machines) = (Idp::start().await, Idp::start().await, Idp::start().await);
        let token = |token: String, kind: &str, token_type: &str| {
            Reply::Json(
                json!({"access_token": token, "token_type": token_type, "issued_token_type": kind, "expires_in": 3600}),
            )
        };
        let server = name.to_owned();
        exchange.judge(move |request| {
            let subject = subject_of(request);
            Some(if kind == Kind::IdJag {
                token(grant(&subject), ID_JAG, "N_A")
            } else {
                token(issued(&server, &subject), ACCESS_TOKEN, "Bearer")
            })
        });
        let server = name.to_owned();
        resource.judge(move |request| {
            let grant = subject_of(request);
            let subject = grant.replace("grant-", "");
            Some(token(issued(&server, &subject), ACCESS_TOKEN, "Bearer"))
        });
        machines.set_default(token(machine_token(name), ACCESS_TOKEN, "Bearer"));
        Self {
            name: name.to_owned(),
            kind,
            asked,
            exchange,
            resource,
            machines,
        }
    }

    fn entry(&self) -> String {
        let name = &self.name;
        let client = format!("client_id: id\nclient_secret: canary-mx-secret-{name}");
        let machine = format!("auth_type: oauth2\n{client}\ntoken_url: {}", self.machines.url());
        let exchange = format!(
            "auth_type: oauth2_token_exchange\n{client}\ntoken_exchange_endpoint: {}",
            self.exchange.url()
        );
        let configured = |auth_type: &str, value: &str| {
            format!("auth_type: {auth_type}\nauthentication_token: {value}canary-mx-static-{name}")
        };
        let person = format!(
            "auth_type: oauth2\n{client}\nauthorization_url: {0}/authorize\ntoken_url: {0}/token",
            self.resource.base()
        );
        let fields = match self.kind {
            Kind::Nothing => String::new(),
            Kind::PassedOn => "extra_headers: [Authorization]".into(),
            Kind::OAuthPassthrough => "auth_type: none\noauth_passthrough: true".into(),
            Kind::ApiKey => configured("api_key", ""),
            Kind::Bearer => configured("bearer_token", ""),
            Kind::BearerElsewhere => configured("bearer_token", "") + "\nupstream_token_header: X-Up",
            Kind::Basic => configured("basic", "") + ":pass",
            Kind::Authorization => configured("authorization", "Odd "),
            Kind::TokenScheme => configured("token", ""),
            Kind::Machine => machine,
            Kind::MachineOverSse => format!("transport: sse\n{machine}"),
            Kind::PersonUnknown | Kind::PersonKept => person,
            Kind::Delegated => "auth_type: oauth2\ndelegate_auth_to_upstream: true".into(),
            Kind::TruePassthrough => "auth_type: true_passthrough".into(),
            Kind::OAuthDelegate => "auth_type: oauth_delegate".into(),
            Kind::Exchange => exchange,
            Kind::ExchangeElsewhere => exchange + "\nupstream_token_header: X-Up",
            Kind::ExchangeOrMachine => format!(
                "{exchange}\nallow_client_credentials_fallback: true\ntoken_url: {}",
                self.machines.url()
            ),
            Kind::Entra => exchange + "\ntoken_exchange_profile: entra_obo\nscopes: [api://mcp/.default]",
            Kind::IdJag => format!(
                "auth_type: oauth2_id_jag\n{client}\ntoken_exchange_endpoint: {}\naudience: https://as.example\n\
                 id_jag_resource_token_endpoint: {}\nid_jag_resource_client_id: there\n\
                 id_jag_resource_client_secret: canary-mx-second-{name}",
                self.exchange.url(),
                self.resource.url()
            ),
            Kind::Aws => {
                "auth_type: aws_sigv4\naws_access_key_id: AKID\naws_secret_access_key: canary-mx-aws\naws_region_name: x".into()
            }
        };
        let url = match &self.asked {
            Asked::Http(server) => server.url(),
            Asked::Sse(server) => server.url(),
        };
        entry(name, &format!("url: {url}\n{fields}"))
    }
}

/// The identity provider's grant for `subject`, which does not stand in it.
fn grant(subject: &str) -> String {
    subject.replace("canary-mx-", "canary-mx-grant-")
}

/// What a token request wants exchanged.
fn subject_of(request: &Request) -> String {
    let values = ["subject_token", "assertion"].map(|name| request.form_value(name));
    values.into_iter().flatten().next().unwrap_or_default()
}

impl World {
    async fn start() -> Self {
        let mut members = Vec::new();
        for kind in KINDS {
            members.push(Member::start(&kind.name(), kind).await);
        }
        members.push(Member::start(PLAIN, Kind::Nothing).await);
        members.push(Member::start(TAKER, Kind::PassedOn).await);
        let servers: String = members.iter().map(Member::entry).collect();
        let gateway = Start::new(personal(&servers, "")).start().await;
        let kept = Kind::PersonKept.name();
        let path = format!("/v1/mcp/server/{kept}/oauth-user-credential");
        let keep = gateway
            .http
            .post(gateway.url(&path))
            .header("x-litellm-api-key", KEY)
            .json(&json!({"access_token": format!("canary-mx-kept-{kept}"), "expires_in": 3600}));
        assert_eq!(got(keep).await.status, 200);
        Self {
            members,
            gateway,
            cells: 0,
            faults: Vec::new(),
        }
    }

    fn member(&self, name: &str) -> &Member {
        let mut members = self.members.iter();
        members.find(|member| member.name == name).expect("a member")
    }

    /// Sends one cell's request, and compares everything that came of it with the model.
    async fn check(&mut self, brought: Brought, target: Target, this: Kind, what: Ask) {
        let number = self.cells;
        self.cells += 1;
        let cell = Cell {
            brought,
            target,
            this,
            number,
        };
        let mut expected = match cell.kept_out() {
            Some(_) => Vec::new(),
            None => cell.expected(),
        };
        // A call goes to the server that has the tool; without a session nobody else is asked.
        if what == Ask::Call && target != Target::RestAll {
            expected.retain(|expected| expected.server == this.name());
        }
        if what == Ask::Stream
            && let [
                Expected {
                    fate: Fate::Shown(_), ..
                },
            ] = &expected[..]
            && let Asked::Http(server) = &self.member(&this.name()).asked
        {
            let stream = Answer::raw(200, &[("Content-Type", "text/event-stream")], ": hello\n\n");
            server.push_when(|request| request.method == "GET", stream);
        }
        let answer = got(self.request(&cell, what)).await;
        let mut faults = Vec::new();
        self.judge_answer(&cell, what, &expected, &answer, &mut faults);
        self.judge_peers(&expected, what, &mut faults);
        self.note(&cell, what, &answer, &faults);
    }

    fn judge_peers(&self, expected: &[Expected], what: Ask, faults: &mut Vec<String>) {
        for member in &self.members {
            let expected = expected.iter().find(|expected| expected.server == member.name);
            judge_server(member, expected, what, faults);
            judge_endpoints(member, expected, faults);
        }
    }

    fn note(&mut self, cell: &Cell, what: Ask, answer: &Got, faults: &[String]) {
        if faults.is_empty() {
            return;
        }
        let fault = format!(
            "{what:?} at {:?} about {:?} with {}:\n    {}\n    headers {:?}\n    answer {} {}",
            cell.target,
            cell.this,
            cell.brought.what,
            faults.join("\n    "),
            cell.headers(),
            answer.status,
            answer.body
        );
        self.faults.push(fault);
    }

    /// A session with several servers, and the client's stream, which has theirs.
    async fn check_streams(&mut self, brought: Brought, target: Target, this: Kind) {
        let number = self.cells;
        self.cells += 1;
        let cell = Cell {
            brought,
            target,
            this,
            number,
        };
        if cell.kept_out().is_some() {
            return;
        }
        let mut expected = cell.expected();
        let opening = got(self.request(&cell, Ask::Session)).await;
        let mut faults = Vec::new();
        self.judge_peers(&expected, Ask::Session, &mut faults);
        let session = opening.header("mcp-session-id").to_owned();
        let stream = self.request(&cell, Ask::Stream).header("mcp-session-id", session);
        let stream = stream.send().await.expect("answered");
        if stream.status() == 200 {
            for expected in &expected {
                if matches!(expected.fate, Fate::Shown(_)) {
                    self.member(&expected.server).asked.wait_for(1).await;
                }
            }
        } else {
            faults.push(format!("the stream came with status {}", stream.status()));
        }
        // What came of the first exchange is used for the stream too.
        for expected in &mut expected {
            expected.subject = None;
        }
        self.judge_peers(&expected, Ask::Stream, &mut faults);
        self.note(&cell, Ask::Stream, &opening, &faults);
    }

    fn request(&self, cell: &Cell, what: Ask) -> reqwest::RequestBuilder {
        let this = cell.this.name();
        let http = &self.gateway.http;
        let path = match cell.target {
            Target::One => format!("/{this}/mcp"),
            Target::WithPlain => format!("/{this},{PLAIN}/mcp"),
            Target::WithTaker => format!("/{this},{TAKER}/mcp"),
            Target::All | Target::OneByHeader => "/mcp".into(),
            Target::RestOne if what == Ask::List => format!("/mcp-rest/tools/list?server_id={this}"),
            Target::RestAll if what == Ask::List => "/mcp-rest/tools/list".into(),
            Target::RestOne | Target::RestAll => "/mcp-rest/tools/call".into(),
        };
        let url = self.gateway.url(&path);
        let tool = match cell.target {
            Target::One => "echo".into(),
            _ => format!("{this}-echo"),
        };
        let mut params = json!({"name": tool, "arguments": {"message": "x"}});
        let message = |method: &str, params: &Value| {
            let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
            http.post(url.clone()).json(&message)
        };
        let mut request = match (cell.target.is_rest(), what) {
            (true, Ask::Call) => {
                if cell.target == Target::RestOne {
                    params["name"] = json!("echo");
                    params["server_id"] = json!(this);
                }
                http.post(&url).json(&params)
            }
            (true, _) | (false, Ask::Stream) => http.get(&url),
            (false, Ask::Call) => message("tools/call", &params),
            (false, Ask::Session) => message(
                "initialize",
                &json!({"protocolVersion": "2025-11-25", "capabilities": {}}),
            ),
            (false, Ask::List) => message("tools/list", &json!({})),
        };
        request = match (cell.target.is_rest(), what) {
            (true, _) => request,
            (false, Ask::Stream) => request.header("accept", "text/event-stream"),
            (false, _) => request.header("accept", "application/json, text/event-stream"),
        };
        if cell.target == Target::OneByHeader {
            request = request.header("x-mcp-servers", &this);
        }
        let mut headers = cell.headers().into_iter();
        headers
            .try_fold(request, |request, (name, value)| {
                Some(request.header(name, value))
            })
            .expect("headers")
    }

    fn judge_answer(
        &self,
        cell: &Cell,
        what: Ask,
        expected: &[Expected],
        answer: &Got,
        faults: &mut Vec<String>,
    ) {
        let mut fault = |wanted: &str| faults.push(format!("the client should have got {wanted}"));
        let heard = format!("{:?} {}", answer.headers, answer.body);
        if heard.contains("canary-") {
            fault("no credential");
        }
        let got = (answer.status, answer.code());
        if let Some(code) = cell.kept_out() {
            if got != (status(code), code) {
                fault(code);
            }
            return;
        }
        let this = expected
            .iter()
            .find(|expected| expected.server == cell.this.name());
        let fate = &this.expect("it is among them").fate;
        let lists_several = what == Ask::List
            && matches!(
                cell.target,
                Target::WithPlain | Target::WithTaker | Target::All | Target::RestAll
            );
        match fate {
            _ if lists_several => {}
            Fate::Shown(_) if got == (200, "") => return,
            Fate::Shown(_) => return fault("an answer"),
            // The facade looks for the tool's owner, and this one is silent.
            Fate::Refused(_) if cell.target == Target::RestAll => {
                if got != (404, "unknown_tool") {
                    fault("unknown_tool");
                }
                return;
            }
            Fate::Refused(code) => {
                if got != (status(code), *code) {
                    fault(code);
                }
                return;
            }
        }
        let outcomes = match cell.target {
            Target::RestAll => &answer.body["server_outcomes"],
            _ => &answer.body["result"]["_meta"]["litellm.ai/server_outcomes"],
        };
        if outcomes.as_object().map(serde_json::Map::len) != Some(expected.len()) {
            fault("an outcome of each server");
        }
        for expected in expected {
            let outcome = &outcomes[&expected.server];
            let told = match (&expected.fate, cell.target) {
                (Fate::Shown(_), _) => outcome["status"] == "ok",
                (Fate::Refused(code), Target::RestAll) => outcome["status"] == *code,
                (Fate::Refused(code), _) => self.tells(outcome, expected, code),
            };
            if !told {
                fault(&format!(
                    "{:?} of {}, not {outcome}",
                    expected.fate, expected.server
                ));
            }
        }
    }

    /// Whether the outcome of a refusal says what to do about it.
    fn tells(&self, outcome: &Value, expected: &Expected, code: &str) -> bool {
        let server = &expected.server;
        let wants_sign_in = status(code) == 401;
        let next_step = outcome["next_step"].as_str().unwrap_or_default();
        // Nobody here knows where people get the tokens that are exchanged: no issuer is configured.
        let document = format!(
            "http://{}/.well-known/oauth-protected-resource/{server}/mcp",
            self.gateway.address
        );
        let metadata = if wants_sign_in && !expected.kind.exchanges() {
            json!(document)
        } else {
            Value::Null
        };
        outcome["code"] == code
            && (!wants_sign_in || outcome["status"] == "auth_required")
            && (code != "ambiguous_authorization" || next_step.contains("x-mcp-{alias}-authorization"))
            && outcome["resource_metadata"] == metadata
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    List,
    Call,
    Stream,
    /// A session, which a stream of several servers belongs to.
    Session,
}

/// Every credential of this matrix that stands in `text`.
fn canaries(text: &str) -> BTreeSet<String> {
    let within = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '-' | '_');
    let starts = text.match_indices("canary-").map(|(at, _)| &text[at..]);
    starts
        .map(|rest| rest.chars().take_while(|byte| within(*byte)).collect())
        .collect()
}

/// Request line, headers and body as text, with what stands in Basic in the clear.
fn text_of(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method, request.target);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\n"));
        if let Some(pair) = value.strip_prefix("Basic ") {
            let pair = BASE64_STANDARD.decode(pair).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&pair));
            text.push('\n');
        }
    }
    text + &String::from_utf8_lossy(&request.body)
}

/// The headers that could be a credential.
fn credentials_of(request: &Request) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        if PLAIN_HEADERS.contains(&name.as_str()) || name.starts_with("mcp-") {
            continue;
        }
        let value = if value.starts_with("AWS4-HMAC-SHA256 ") {
            "(signature)"
        } else {
            value
        };
        let all: &mut String = found.entry(name).or_default();
        if !all.is_empty() {
            all.push_str(" and ");
        }
        all.push_str(value);
    }
    found
}

fn judge_server(member: &Member, expected: Option<&Expected>, what: Ask, faults: &mut Vec<String>) {
    let seen = member.asked.take_requests();
    let shown = match expected.map(|expected| &expected.fate) {
        Some(Fate::Shown(shown)) => shown,
        Some(Fate::Refused(_)) | None => {
            if !seen.is_empty() {
                faults.push(format!(
                    "{} was asked, with {:?}",
                    member.name,
                    credentials_of(&seen[0])
                ));
            }
            return;
        }
    };
    let shown: BTreeMap<String, String> = shown
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let allowed: BTreeSet<String> = shown
        .values()
        .flat_map(|value| match value.strip_prefix("Basic ") {
            Some(pair) => canaries(&String::from_utf8_lossy(
                &BASE64_STANDARD.decode(pair).expect("Base64"),
            )),
            None => canaries(value),
        })
        .collect();
    let over_sse = matches!(member.asked, Asked::Sse(_));
    let wanted = match what {
        Ask::Stream => "GET",
        Ask::List | Ask::Call | Ask::Session => "POST",
    };
    if !seen.iter().any(|request| request.method == wanted || over_sse) {
        faults.push(format!("{} was not asked", member.name));
    }
    for request in &seen {
        let found = credentials_of(request);
        if found != shown {
            faults.push(format!("{} saw {found:?} instead of {shown:?}", member.name));
            return;
        }
        let found = canaries(&text_of(request));
        if found != allowed {
            faults.push(format!(
                "{} saw {found:?}, and only {allowed:?} is its own",
                member.name
            ));
            return;
        }
    }
}

/// Each token endpoint hears of its client's secret and of the token to exchange, once, and of nothing else.
fn judge_endpoints(member: &Member, expected: Option<&Expected>, faults: &mut Vec<String>) {
    let name = &member.name;
    let subject = expected.and_then(|expected| expected.subject.clone());
    let secret = format!("canary-mx-secret-{name}");
    let second = format!("canary-mx-second-{name}");
    let grant = subject.as_ref().filter(|_| member.kind == Kind::IdJag);
    let grant = grant.map(|subject| self::grant(subject));
    for (place, idp, secret, subject) in [
        ("exchange", &member.exchange, secret.clone(), subject),
        ("resource", &member.resource, second, grant),
    ] {
        let asked = idp.take_requests();
        let subjects: Vec<String> = asked.iter().map(subject_of).collect();
        if subjects != subject.iter().cloned().collect::<Vec<_>>() {
            faults.push(format!(
                "the {place} endpoint of {name} got {subjects:?} instead of {subject:?}"
            ));
        }
        let mut allowed = BTreeSet::from([secret]);
        allowed.extend(subject.iter().flat_map(|subject| canaries(subject)));
        for request in &asked {
            let found = canaries(&text_of(request));
            if found != allowed {
                faults.push(format!(
                    "the {place} endpoint of {name} saw {found:?} instead of {allowed:?}"
                ));
            }
        }
    }
    let wanted = expected.is_some_and(|expected| match &expected.fate {
        Fate::Shown(shown) => shown.values().any(|value| value.contains(&machine_token(name))),
        Fate::Refused(_) => false,
    });
    for request in member.machines.take_requests() {
        let found = canaries(&text_of(&request));
        if !wanted || found != BTreeSet::from([secret.clone()]) {
            faults.push(format!("the machine endpoint of {name} saw {found:?}"));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let count = self.faults.len();
        let shown: Vec<&String> = self.faults.iter().take(20).collect();
        assert!(
            count == 0,
            "{count} of {} cells:\n{}",
            self.cells,
            shown.iter().map(|fault| format!("{fault}\n")).collect::<String>()
        );
        let log = logged();
        let line = log.lines().find(|line| line.contains("canary-mx-"));
        assert!(line.is_none(), "a credential was logged: {line:?}");
    }
}

async fn every_place_and_kind(target: Target, asks: &[Ask]) {
    let mut world = World::start().await;
    for brought in PLACES {
        for kind in KINDS {
            for what in asks {
                // A stream over HTTP+SSE is a session's.
                if *what == Ask::Stream && kind == Kind::MachineOverSse {
                    continue;
                }
                world.check(*brought, target, kind, *what).await;
            }
        }
    }
}

#[tokio::test]
async fn at_a_servers_own_endpoint() {
    every_place_and_kind(Target::One, &[Ask::List, Ask::Call, Ask::Stream]).await;
}

#[tokio::test]
async fn at_the_common_endpoint_with_one_server() {
    every_place_and_kind(Target::OneByHeader, &[Ask::List, Ask::Call]).await;
}

#[tokio::test]
async fn beside_a_server_that_takes_nothing() {
    every_place_and_kind(Target::WithPlain, &[Ask::List, Ask::Call]).await;
}

#[tokio::test]
async fn beside_a_server_that_takes_authorization_as_well() {
    every_place_and_kind(Target::WithTaker, &[Ask::List, Ask::Call]).await;
}

#[tokio::test]
async fn the_streams_of_several_servers() {
    let mut world = World::start().await;
    for brought in PLACES {
        // A stream over HTTP+SSE is there before anybody asks for it.
        for kind in KINDS.into_iter().filter(|kind| *kind != Kind::MachineOverSse) {
            for target in [Target::WithPlain, Target::WithTaker] {
                world.check_streams(*brought, target, kind).await;
            }
        }
    }
}

/// Servers whose tokens come of one token endpoint are one party: it hears the caller's token, and they do not.
#[tokio::test]
async fn two_servers_of_one_token_endpoint_and_one_more() {
    let (a, b) = (
        Member::start("a", Kind::Exchange).await,
        Member::start("b", Kind::Exchange).await,
    );
    let endpoint = a.exchange.url();
    let servers = a.entry() + &b.entry().replace(&b.exchange.url(), &endpoint);
    for taker in [false, true] {
        let third = Member::start("third", if taker { Kind::PassedOn } else { Kind::Nothing }).await;
        let gateway = TestGateway::with_servers(&(servers.clone() + &third.entry())).await;
        let list = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}});
        let answer = gateway.post("/a,b,third/mcp", &list);
        let answer = got(answer.header("authorization", "Bearer canary-mx-caller-0")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut subjects: Vec<String> = a.exchange.take_requests().iter().map(subject_of).collect();
        subjects.dedup();
        let token = format!("Bearer {}", issued("a", "canary-mx-caller-0"));
        for member in [&a, &b] {
            let shown: Vec<_> = member.asked.take_requests().iter().map(credentials_of).collect();
            let own = BTreeMap::from([("authorization".to_owned(), token.clone())]);
            assert_eq!(shown.is_empty(), taker, "{shown:?}");
            assert!(shown.iter().all(|shown| *shown == own), "{shown:?}");
        }
        assert_eq!(
            subjects,
            if taker {
                vec![]
            } else {
                vec!["canary-mx-caller-0".to_owned()]
            }
        );
        third.asked.assert_never_seen("canary-mx");
    }
}

#[tokio::test]
async fn under_rest_with_a_server() {
    every_place_and_kind(Target::RestOne, &[Ask::List, Ask::Call]).await;
}

#[tokio::test]
async fn with_all_servers_at_once() {
    let mut world = World::start().await;
    for (index, brought) in PLACES.iter().enumerate() {
        for target in [Target::All, Target::RestAll] {
            world
                .check(*brought, target, KINDS[index % KINDS.len()], Ask::List)
                .await;
        }
        for kind in KINDS {
            world.check(*brought, Target::All, kind, Ask::Call).await;
        }
    }
    // The facade asks every server for its tools before each call, so each kind is called with a few.
    for (index, kind) in KINDS.into_iter().enumerate() {
        for brought in PLACES.iter().skip(index % 6).step_by(6) {
            world.check(*brought, Target::RestAll, kind, Ask::Call).await;
        }
    }
}
