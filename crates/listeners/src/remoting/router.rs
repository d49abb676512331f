//! From a request's code to its handler, and from what the handler says to a response.
//!
//! What every request needs (decoding, refusals, one-way, encoding) stands here, once.

use std::sync::Arc;

use apogee_broker::publish::Recent;
use apogee_broker::{self as broker, Broker};
use apogee_store::Unit;
use apogee_types::{Millis, json};
use apogee_wire::output::Output;
use apogee_wire::remoting::header::ResponseHead;
use apogee_wire::remoting::{
    Fields, Header, HeaderEncoding, Request, RequestInfo, ResponseCode, Text, requests,
};

use super::door::{Door, Peer};
use super::pending::{Pending, Until};
use super::{errors, pull};

/// What a refusal says at most.
const REMARK_LEN_MAX: usize = 1024;
/// What a line of the log shows of a topic at most.
const NAME_LEN_MAX: usize = 128;

/// A request on its way through a handler.
pub struct Call<'a> {
    pub door: &'a Arc<Door>,
    pub peer: &'a Arc<Peer>,
    pub header: &'a Header<'a>,
    pub encoding: HeaderEncoding,
    pub body: &'a [u8],
    pub scratch: &'a mut Scratch,
}

/// Buffers that a connection uses for one request after the other.
#[derive(Default)]
pub struct Scratch {
    /// The properties of a message as they will be stored.
    pub properties: Vec<u8>,
    /// The records that a pull found.
    pub units: Vec<Unit>,
    /// Id of a stored message; of a batch all ids, joined by `,`.
    pub ids: String,
    /// Something was appended since the last dispatch.
    pub appended: bool,
    /// A pull left something behind that is there already.
    pub reads_backlog: bool,
    /// Of the sends that came together.
    pub recent: Recent,
}

/// What a handler gives back.
pub enum Reply<T> {
    Now(T),
    WithBody(T, Vec<u8>),
    /// Another code than success, but with fields.
    Coded {
        code: ResponseCode,
        remark: &'static str,
        fields: T,
    },
    /// As `Now`, but only once the disk has what is promised.
    After(T, Until),
    /// With these records as body.
    Records {
        remark: &'static str,
        fields: T,
        units: Vec<Unit>,
    },
    /// Someone else answers, through the peer's outbox; or nobody.
    Later,
}

impl Call<'_> {
    /// The start of a response to this request.
    #[must_use]
    pub fn head(&self) -> ResponseHead<'static> {
        let (encoding, opaque) = (self.encoding, self.header.opaque);
        ResponseHead { encoding, code: ResponseCode::SUCCESS, opaque, remark: None }
    }

    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        self.door.broker()
    }

    /// The time, the same for all requests that came together: to ask for it takes as long as to
    /// look up a topic.
    pub fn now(&mut self) -> Millis {
        *self.scratch.recent.now.get_or_insert_with(|| self.door.broker().clock.now_ms())
    }

    /// Answers with an error, unless the sender wants no answer.
    pub fn refuse(&self, output: &mut Output, code: ResponseCode, remark: &str) {
        // A remark repeats names as they came, and those may be as long as a frame.
        let remark = &remark[..remark.floor_char_boundary(REMARK_LEN_MAX)];
        self.log_refusal(code, remark);
        if !self.header.is_oneway() {
            let head = ResponseHead { code, remark: Some(remark), ..self.head() };
            head.write(output, |_| {}, |_| {});
        }
    }

    /// What a client in order is told now and then, as of a topic that does not exist yet, is no
    /// news for the operator.
    fn log_refusal(&self, code: ResponseCode, remark: &str) {
        let number = self.header.code;
        let request = requests::request_name(number).unwrap_or("unknown");
        let peer = self.peer.addr;
        if !is_fault_of_sender(code) {
            tracing::debug!(%peer, request, %code, remark, "request refused");
            return;
        }
        self.door.complaints.tell(|| {
            let topic = self.header.fields.get("topic").or_else(|| self.header.fields.get("b"));
            let topic = topic.map(|it| it.to_cow().into_owned()).unwrap_or_default();
            let topic = &topic[..topic.floor_char_boundary(NAME_LEN_MAX)];
            tracing::warn!(%peer, request, number, ?topic, %code, ?remark, "request refused");
        });
    }
}

/// The request is wrong, or nobody may ask it: to try again is in vain.
fn is_fault_of_sender(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::REQUEST_CODE_NOT_SUPPORTED
            | ResponseCode::MESSAGE_ILLEGAL
            | ResponseCode::NO_PERMISSION
            | ResponseCode::SUBSCRIPTION_PARSE_FAILED
            | ResponseCode::INVALID_PARAMETER
    )
}

/// A request that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ResponseCode,
    pub remark: String,
}

impl Refusal {
    pub fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }
}

impl From<broker::Error> for Refusal {
    fn from(error: broker::Error) -> Self {
        Self::new(errors::response_code(&error), error.to_string())
    }
}

pub type Answer<T> = Result<Reply<T>, Refusal>;

/// A handler for `R`. What it returns may borrow from the frame and from the scratch buffers.
pub type Handler<R> = for<'a, 'b> fn(
    &'b mut Call<'a>,
    <R as Request>::At<'a>,
) -> Answer<<R as Request>::Response<'b>>;

type Invoke = Box<dyn Fn(&mut Call<'_>, &mut Output, &mut Pending) + Send + Sync>;

struct Route {
    info: RequestInfo,
    invoke: Invoke,
}

/// Handlers by code, sorted.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
}

impl Router {
    /// Routes `R`'s code to `handler`. Two handlers for one code are a mistake at start.
    #[must_use]
    pub fn on<R: Request>(mut self, handler: Handler<R>) -> Self {
        let invoke: Invoke = Box::new(move |call, output, pending| {
            invoke::<R>(handler, call, output, pending);
        });
        let at = self.routes.partition_point(|route| route.info.code < R::INFO.code);
        let is_twice = self.routes.get(at).is_some_and(|route| route.info.code == R::INFO.code);
        assert!(!is_twice, "two handlers for {}", R::INFO.name);
        self.routes.insert(at, Route { info: R::INFO, invoke });
        self
    }

    /// Codes that are served, for the manual and the test that every code has an answer.
    pub fn served(&self) -> impl Iterator<Item = &RequestInfo> {
        self.routes.iter().map(|route| &route.info)
    }

    /// Serves one request; its answer goes to `output`, to `pending`, or later to the outbox.
    pub fn dispatch(&self, call: &mut Call<'_>, output: &mut Output, pending: &mut Pending) {
        let code = call.header.code;
        match self.routes.binary_search_by_key(&code, |route| route.info.code) {
            Ok(at) => (self.routes[at].invoke)(call, output, pending),
            Err(_) => {
                let name = requests::request_name(code).unwrap_or("unknown");
                let remark = format!(" request type {code} not supported ({name})");
                call.refuse(output, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, &remark);
            }
        }
    }
}

fn invoke<R: Request>(
    handler: Handler<R>,
    call: &mut Call<'_>,
    output: &mut Output,
    pending: &mut Pending,
) {
    let request = match R::At::decode(&call.header.fields) {
        Ok(request) => request,
        Err(error) => {
            let remark = format!("{}: {error}", R::INFO.name);
            return call.refuse(output, ResponseCode::INVALID_PARAMETER, &remark);
        }
    };
    match serve::<R>(handler, call, request, output, pending) {
        Ok(None) => {}
        Ok(Some(units)) => call.scratch.units = units,
        Err(refusal) => call.refuse(output, refusal.code, &refusal.remark),
    }
}

/// Calls the handler and encodes what it says; gives back the list of records, if it took it.
fn serve<'a, R: Request>(
    handler: Handler<R>,
    call: &mut Call<'a>,
    request: R::At<'a>,
    output: &mut Output,
    pending: &mut Pending,
) -> Result<Option<Vec<Unit>>, Refusal> {
    let (head, door, oneway) = (call.head(), call.door, call.header.is_oneway());
    let reply = handler(call, request)?;
    Ok(if oneway { None } else { write_reply(door, head, reply, output, pending) })
}

/// Encodes a reply; gives back the list of records, to be used again.
fn write_reply<'a, T: Fields<'a>>(
    door: &Door,
    head: ResponseHead<'_>,
    reply: Reply<T>,
    output: &mut Output,
    pending: &mut Pending,
) -> Option<Vec<Unit>> {
    match reply {
        Reply::Now(fields) => head.write_fields(output, &fields, |_| {}),
        Reply::WithBody(fields, body) => {
            head.write_fields(output, &fields, |out| out.bytes.extend_from_slice(&body));
        }
        Reply::Coded { code, remark, fields } => {
            let head = ResponseHead { code, remark: Some(remark), ..head };
            head.write_fields(output, &fields, |_| {});
        }
        Reply::Records { remark, fields, units } => {
            let head = ResponseHead { remark: Some(remark), ..head };
            let records = |out: &mut Output| pull::write_records(door.broker(), &units, out);
            head.write_fields(output, &fields, records);
            return Some(units);
        }
        Reply::After(fields, until) if until == Until::default() => {
            head.write_fields(output, &fields, |_| {});
        }
        Reply::After(fields, until) => {
            pending.push(until, head.opaque, |out| head.write_fields(out, &fields, |_| {}));
        }
        Reply::Later => {}
    }
    None
}

/// A name of a topic or group as text. One with escapes is no legal name; its raw form is refused
/// by whoever checks or looks up names.
pub(super) fn plain(text: Text<'_>) -> &str {
    let (Text::Plain(text) | Text::Escaped(text)) = text;
    text
}

/// Reads a JSON body.
pub(super) fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    json::read(bytes).map_err(|error| {
        Refusal::new(ResponseCode::SYSTEM_ERROR, format!("the body cannot be read: {error}"))
    })
}

/// Success with a JSON body.
pub(super) fn json_body<T>(fields: T, body: &impl serde::Serialize) -> Answer<T> {
    Ok(Reply::WithBody(fields, json::write(body)))
}
