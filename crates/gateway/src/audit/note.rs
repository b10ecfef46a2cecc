//! What a request comes by on its way, noted where it is known and made into one row when the request is answered. A
//! note travels with the task, so that no function has to hand it on; taking it down makes no text, asks no database and
//! waits for nobody.

use super::message::Asked;
use super::trace::Kind;
use super::{Actor, Shared};
use crate::admission::keys::VirtualKey;
use crate::admission::{Admission, Principal};
use crate::app::App;
use crate::clock::Moment;
use crate::credentials::person::Person;
use crate::diagnosis::AuthResolution;
use crate::ids::RequestId;
use crate::registry::Server;
use crate::web::body::Body;
use crate::web::error::{Refusal, shown};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// Messages up to this size are looked into by the writer, and not by the call.
const COPIED: usize = 1024;
/// As much of somebody else's text as a row repeats.
pub(super) const SHOWN: usize = 200;
/// As much of a description.
pub(super) const DESCRIBED: usize = 500;

/// The outcome of a call that a server answered with an error of its own.
const TOOL_ERROR: &str = "tool_error";
/// The outcome of a call that was answered with an error of the protocol's.
const RPC_ERROR: &str = "rpc_error";
/// The outcome of a step that goes on when the person has answered.
const ASKED: &str = "asked";

tokio::task_local! {
    static CURRENT: RefCell<Held>;
}

/// A note under way. Dropped before there was an answer, it is of a caller that did not wait for one.
struct Held(Option<Box<Note>>);

/// What is known of a request.
pub(super) struct Note {
    pub(super) shared: Arc<Shared>,
    /// [`Kind::Refusal`] until it is known to be more.
    pub(super) kind: Kind,
    pub(super) with_arguments: bool,
    pub(super) with_calls: bool,
    pub(super) id: RequestId,
    pub(super) started: Moment,
    pub(super) method: Method,
    pub(super) path: Option<PathAndQuery>,
    pub(super) client: Option<HeaderValue>,
    pub(super) address: IpAddr,
    pub(super) principal: Option<Principal>,
    pub(super) header: Option<HeaderName>,
    /// A key that was shown, taken or not.
    pub(super) key: Option<Arc<VirtualKey>>,
    pub(super) user: Option<Box<str>>,
    /// Who acts as the key, where that is somebody at a page.
    pub(super) visitor: Option<Box<Actor>>,
    pub(super) server: Option<Arc<Server>>,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) message: Message,
    /// The tool by the server's own name, where it is another than the caller's.
    pub(super) tool: Option<Box<str>>,
    pub(super) resolution: Option<AuthResolution>,
    pub(super) token: Option<&'static str>,
    pub(super) retried: bool,
    pub(super) upstream: Option<StatusCode>,
    pub(super) requests: u16,
    pub(super) redirects: u16,
    pub(super) admitted: Option<Moment>,
    pub(super) sent: Option<Moment>,
    pub(super) first_byte: Option<Moment>,
    pub(super) outcome: Option<Cow<'static, str>>,
    pub(super) refusal: Option<Box<Refusal>>,
    pub(super) rpc: Option<i64>,
    pub(super) step: Option<Box<Step>>,
    pub(super) status: Option<StatusCode>,
    pub(super) ended: Option<Moment>,
}

/// The message of a call.
#[derive(Clone)]
pub(super) enum Message {
    None,
    /// Small, and yet to be read.
    Copied(Box<[u8]>),
    /// Read already.
    Read(Box<Asked>),
}

/// A step of a sign-in.
#[derive(Clone, Default)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) flow: Option<String>,
    pub(super) client: Option<String>,
    pub(super) grant: Option<&'static str>,
    pub(super) description: Option<String>,
    secrets: Vec<SecretString>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(note) = self.0.take() {
            Shared::take(note);
        }
    }
}

/// Begins the note of a request, where something is kept.
pub(crate) fn begin<B>(app: &App, request: &Request<B>, peer: IpAddr, id: RequestId) -> Beginning {
    let Some(shared) = &app.audit.shared else {
        return Beginning(Held(None));
    };
    let headers = request.headers();
    let address = app.addresses.of(headers, peer).counted();
    Beginning(Held(Some(Box::new(Note {
        with_calls: app.audit.settings.calls,
        with_arguments: app.audit.settings.arguments,
        path: request.uri().path_and_query().cloned(),
        client: headers.get(header::USER_AGENT).cloned(),
        ..Note::new(shared, id, request.method().clone(), address)
    }))))
}

/// A note that nothing is in yet.
pub(crate) struct Beginning(Held);

/// Answers a request, whose note this is.
pub(crate) async fn taken_along(
    beginning: Beginning,
    answering: Pin<&mut impl Future<Output = Response<Body>>>,
) -> Response<Body> {
    let whole = async {
        let response = answering.await;
        with(|note| note.end(response.status()));
        response
    };
    CURRENT.scope(RefCell::new(beginning.0), whole).await
}

/// One server's part of a request that is for several: a row of its own.
pub(crate) fn of_server<T>(
    server: &Arc<Server>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> impl Future<Output = Result<T, Refusal>> {
    let mut part = None;
    with(|note| part = (note.kind == Kind::Call).then(|| note.part(server)));
    let work = Box::pin(work);
    let whole = async {
        let result = work.await;
        with(|note| match &result {
            Ok(_) => note.end(StatusCode::OK),
            Err(refusal) => {
                note.refusal = Some(Box::new(refusal.clone()));
                note.end(refusal.code.status());
            }
        });
        result
    };
    CURRENT.scope(RefCell::new(Held(part)), whole)
}

/// Work that a call needs beside itself, and that is not to be mistaken for it.
pub(crate) fn apart<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    CURRENT.scope(RefCell::new(Held(None)), Box::pin(work))
}

/// Where there is a note, does this with it.
fn with(take_down: impl FnOnce(&mut Note)) {
    // Without a scope there is none: work of nobody's request.
    let _ = CURRENT.try_with(|held| {
        if let Ok(mut held) = held.try_borrow_mut()
            && let Some(note) = &mut held.0
        {
            take_down(note);
        }
    });
}

/// The request is a call of a server.
pub(crate) fn call() {
    with(|note| note.kind = Kind::Call);
}

/// The request is a step of a sign-in.
pub(crate) fn step(name: &'static str) {
    with(|note| {
        note.kind = Kind::SignIn;
        // A sign-in goes by the id of its first request, until another one is known.
        note.step = Some(Box::new(Step {
            name,
            ..Step::default()
        }));
    });
}

/// A key that is known was shown, taken or not.
pub(crate) fn presented(key: &Arc<VirtualKey>) {
    with(|note| note.key = Some(Arc::clone(key)));
}

/// The caller was let in.
pub(crate) fn admitted(app: &App, admission: &Admission) {
    with(|note| {
        note.principal = Some(admission.principal.clone());
        note.header = admission.header().cloned();
        note.admitted = Some(app.clock.now());
        note.user = Person::admitted(app, admission).map(|person| person.id().as_str().into());
    });
}

/// Who asks at a page of the gateway as a key that is not the one they signed in with.
pub(crate) fn visitor(visitor: &Actor) {
    with(|note| note.visitor = Some(Box::new(visitor.clone())));
}

/// The person, where the key does not say it.
pub(crate) fn person(person: &Person) {
    with(|note| note.user = Some(person.id().as_str().into()));
}

/// The server that it is about.
pub(crate) fn server(server: &Arc<Server>) {
    with(|note| note.server = Some(Arc::clone(server)));
}

/// The servers that it is about.
pub(crate) fn servers(servers: &[Arc<Server>]) {
    with(|note| match servers {
        [server] => note.server = Some(Arc::clone(server)),
        several => note.servers = several.to_vec(),
    });
}

/// The message of a call.
pub(crate) fn message(message: &[u8]) {
    with(|note| {
        note.message = match message.len() {
            0 => Message::None,
            1..=COPIED => Message::Copied(message.into()),
            _ => Message::Read(Box::new(Asked::read(message, note.with_arguments))),
        }
    });
}

/// A tool of `server`, by the server's own name for it.
pub(crate) fn tool(server: &Arc<Server>, name: &str) {
    with(|note| {
        note.server = Some(Arc::clone(server));
        note.tool = Some(shown(name, SHOWN).into());
    });
}

/// What a call of no message asks for; `arguments` are JSON.
pub(crate) fn tool_call(name: &str, arguments: Option<&str>) {
    with(|note| {
        let arguments = arguments.filter(|_| note.with_arguments);
        note.message = Message::Read(Box::new(Asked::of_tool(name, arguments)));
    });
}

/// What is asked for beside tools: the method, and the name or URI.
pub(crate) fn question(method: &str, name: &str) {
    with(|note| note.message = Message::Read(Box::new(Asked::of(method, name))));
}

/// What the server is shown.
pub(crate) fn resolution(resolution: AuthResolution) {
    with(|note| note.resolution = Some(resolution));
}

/// Whether a token was there, or had to be waited for.
pub(crate) fn token(in_hand: bool) {
    with(|note| note.token = Some(if in_hand { "in_hand" } else { "fetched" }));
}

/// Another token is tried, after the server refused one.
pub(crate) fn retried() {
    with(|note| note.retried = true);
}

/// A request goes to the server.
pub(crate) fn sent() {
    with(|note| {
        note.requests = note.requests.saturating_add(1);
        if note.sent.is_none() {
            note.sent = Some(note.shared.clock.now());
        }
    });
}

/// The server began its answer.
pub(crate) fn first_byte(status: StatusCode) {
    with(|note| {
        note.upstream = Some(status);
        note.redirects += u16::from(status.is_redirection());
        note.first_byte = Some(note.shared.clock.now());
    });
}

/// The whole answer of a server, where it is in hand: whether it is an error of the server's.
pub(crate) fn answer(body: &[u8]) {
    with(|note| {
        if super::message::is_error(body) {
            note.outcome = Some(Cow::Borrowed(TOOL_ERROR));
        }
    });
}

/// The result of a tool.
pub(crate) fn result(result: &str) {
    with(|note| {
        if super::message::is_failure(result) {
            note.outcome = Some(Cow::Borrowed(TOOL_ERROR));
        }
    });
}

/// What the caller was told in the place of an answer.
pub(crate) fn refused(refusal: &Refusal) {
    with(|note| note.refusal = Some(Box::new(refusal.clone())));
}

/// A JSON-RPC error of the protocol's own.
pub(crate) fn rpc_error(code: i64) {
    with(|note| {
        note.outcome = Some(Cow::Borrowed(RPC_ERROR));
        note.rpc = Some(code);
    });
}

/// The sign-in that a step belongs to.
pub(crate) fn flow(flow: &str) {
    with_step(|step| step.flow = Some(flow.to_owned()));
}

/// What the client of a sign-in calls itself.
pub(crate) fn client_name(name: Option<&str>) {
    with_step(|step| step.client = name.map(|name| shown(name, SHOWN)));
}

/// The grant of a token request.
pub(crate) fn grant(grant: &'static str) {
    with_step(|step| step.grant = Some(grant));
}

/// The person is asked first.
pub(crate) fn asked() {
    with(|note| note.outcome = Some(Cow::Borrowed(ASKED)));
}

/// What must not be repeated of a step, whoever repeats it to us.
pub(crate) fn secret(text: Option<&str>) {
    with_step(|step| step.secrets.extend(text.map(Into::into)));
}

/// A step that did not succeed: an error of OAuth's, and a sentence.
pub(crate) fn failed(error: &str, description: Option<&str>) {
    with(|note| {
        let Some(step) = &mut note.step else { return };
        step.description = description.map(|text| shown(step.without_secrets(text), DESCRIBED));
        note.outcome = Some(Cow::Owned(shown(step.without_secrets(error), SHOWN)));
    });
}

fn with_step(take_down: impl FnOnce(&mut Step)) {
    with(|note| {
        if let Some(step) = &mut note.step {
            take_down(step);
        }
    });
}

impl Step {
    /// The text, unless a secret stands in it.
    fn without_secrets<'t>(&self, text: &'t str) -> &'t str {
        let stands = |secret: &SecretString| {
            let secret = secret.expose_secret();
            !secret.is_empty() && text.contains(secret)
        };
        if self.secrets.iter().any(stands) {
            "(holds a secret)"
        } else {
            text
        }
    }
}

impl Note {
    /// Of a request that begins now, with nothing taken down.
    fn new(shared: &Arc<Shared>, id: RequestId, method: Method, address: IpAddr) -> Self {
        Self {
            shared: Arc::clone(shared),
            kind: Kind::Refusal,
            with_arguments: false,
            with_calls: false,
            id,
            started: shared.clock.now(),
            method,
            path: None,
            client: None,
            address,
            principal: None,
            header: None,
            key: None,
            user: None,
            visitor: None,
            server: None,
            servers: Vec::new(),
            message: Message::None,
            tool: None,
            resolution: None,
            token: None,
            retried: false,
            upstream: None,
            requests: 0,
            redirects: 0,
            admitted: None,
            sent: None,
            first_byte: None,
            outcome: None,
            refusal: None,
            rpc: None,
            step: None,
            status: None,
            ended: None,
        }
    }

    fn end(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.ended = Some(self.shared.clock.now());
    }

    /// The note of one server's part.
    fn part(&self, server: &Arc<Server>) -> Box<Self> {
        Box::new(Self {
            kind: self.kind,
            with_arguments: self.with_arguments,
            with_calls: self.with_calls,
            server: Some(Arc::clone(server)),
            path: self.path.clone(),
            client: self.client.clone(),
            principal: self.principal.clone(),
            header: self.header.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            visitor: self.visitor.clone(),
            message: self.message.clone(),
            ..Self::new(&self.shared, self.id, self.method.clone(), self.address)
        })
    }
}
