//! Calls and their replies on the wire.
//!
//! A call is the hottest message there is, so it is binary, in one piece, and its parts share the received buffer.
//! Headers cross as the block that the plugin boundary uses, unread on the way.
//!
//! Invariants: whatever encodes decodes to the same value; no input panics. Growth goes into `ext` or a new version.
//! Refuses: reading header blocks, `ext` and bodies.

use bytes::Bytes;

use crate::id::CallId;
use crate::limits;
use crate::name::{Name, is_name};
use crate::wire::{Reader, Text, WireError, Writer};

const KIND_REQUEST: u8 = 1;
const KIND_REPLY: u8 = 2;

/// A request's or reply's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallBody {
    /// The body is here, at most [`limits::INLINE_BODY_MAX_BYTES`] long.
    Whole(Bytes),
    /// The body follows as frames on the receiver's `callio` subject.
    Stream,
}

/// One invocation of a route's handler, from an API's child to a worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRequest {
    /// Correlates frames and cancellation with this call.
    pub call_id: CallId,
    /// Milliseconds since 1970 by the broker's clock; later than this nobody waits for the reply.
    pub deadline_unix_ms: u64,
    /// The route's name.
    pub route: Text,
    /// The HTTP request's id.
    pub request_id: [u8; 16],
    /// The calling process, to which frames are addressed.
    pub caller_instance: Text,
    /// Method, path and query (below the plugin's prefix) and headers, encoded by the plugin boundary's codec.
    pub header_block: Bytes,
    /// The request's body.
    pub body: CallBody,
    /// Reserved for growth.
    pub ext: Bytes,
}

impl CallRequest {
    /// The call as bytes.
    ///
    /// # Errors
    /// [`WireError`] when a part is over its bound or a name is malformed.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        check_name("the route", &self.route)?;
        check_name("the caller's instance", &self.caller_instance)?;
        let texts = self.route.len();
        let blocks =
            self.header_block.len() + body_len(&self.body) + self.ext.len() + self.caller_instance.len();
        let mut w = Writer::new(KIND_REQUEST, texts + blocks + 80);
        w.array(self.call_id.as_bytes());
        w.u64(self.deadline_unix_ms);
        w.array(&self.request_id);
        w.bytes("the route", self.route.as_bytes(), limits::NAME_MAX_BYTES)?;
        w.bytes("the caller's instance", self.caller_instance.as_bytes(), limits::NAME_MAX_BYTES)?;
        write_rest(&mut w, &self.header_block, &self.ext, &self.body)?;
        Ok(w.finish())
    }

    /// Reads a call; its parts share `message`'s buffer.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong and where.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let (kind, mut r) = Reader::new(message)?;
        if kind != KIND_REQUEST {
            return Err(WireError::Malformed("the kind"));
        }
        let call_id = CallId::from_bytes(r.array("the call id")?);
        let deadline_unix_ms = r.u64("the deadline")?;
        let request_id = r.array("the request id")?;
        let route = r.text("the route", limits::NAME_MAX_BYTES)?;
        let caller_instance = r.text("the caller's instance", limits::NAME_MAX_BYTES)?;
        let (header_block, ext, body) = read_rest(r)?;
        check_name("the route", &route)?;
        check_name("the caller's instance", &caller_instance)?;
        Ok(Self { call_id, deadline_unix_ms, route, request_id, caller_instance, header_block, body, ext })
    }

    /// The route as a name.
    #[must_use]
    pub fn route_name(&self) -> Option<Name> {
        Name::new(&self.route).ok()
    }
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyKind {
    /// The handler answered; status, headers and body are its own.
    Done,
    /// The worker has no free slot. Another one may have.
    Busy,
    /// The worker's child died while it had the call.
    Crashed,
    /// The call arrived after its deadline, and was not started.
    Expired,
    /// The worker refuses, with this problem code.
    Refused(Text),
    /// The worker is ready for the request's frames, at `worker_instance`.
    GoAhead,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallReply {
    /// What became of the call.
    pub kind: ReplyKind,
    /// The HTTP status; 0 unless the kind is [`ReplyKind::Done`].
    pub status: u16,
    /// The answering process, to which credits are addressed.
    pub worker_instance: Text,
    /// The response's headers, encoded by the plugin boundary's codec.
    pub header_block: Bytes,
    /// The response's body.
    pub body: CallBody,
    /// Reserved for growth.
    pub ext: Bytes,
}

impl CallReply {
    /// A reply that carries nothing but its kind.
    #[must_use]
    pub fn bare(kind: ReplyKind, worker_instance: &str) -> Self {
        let body = CallBody::Whole(Bytes::new());
        let worker_instance = Text::from(worker_instance);
        Self { kind, status: 0, worker_instance, header_block: Bytes::new(), body, ext: Bytes::new() }
    }

    /// The reply as bytes.
    ///
    /// # Errors
    /// [`WireError`] when a part is over its bound or malformed.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        check_name("the worker's instance", &self.worker_instance)?;
        let blocks = self.header_block.len() + body_len(&self.body) + self.ext.len();
        let mut w = Writer::new(KIND_REPLY, blocks + 192);
        let code = match &self.kind {
            ReplyKind::Refused(code) => code.as_str(),
            _ => "",
        };
        w.u8(match self.kind {
            ReplyKind::Done => 0,
            ReplyKind::Busy => 1,
            ReplyKind::Crashed => 2,
            ReplyKind::Expired => 3,
            ReplyKind::Refused(_) => 4,
            ReplyKind::GoAhead => 5,
        });
        w.u16(self.status);
        w.bytes("the code", code.as_bytes(), limits::CODE_MAX_BYTES)?;
        w.bytes("the worker's instance", self.worker_instance.as_bytes(), limits::NAME_MAX_BYTES)?;
        write_rest(&mut w, &self.header_block, &self.ext, &self.body)?;
        Ok(w.finish())
    }

    /// Reads a reply; its parts share `message`'s buffer.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong and where.
    pub fn decode(message: Bytes) -> Result<Self, WireError> {
        let (kind, mut r) = Reader::new(message)?;
        if kind != KIND_REPLY {
            return Err(WireError::Malformed("the kind"));
        }
        let tag = r.u8("the reply's kind")?;
        let status = r.u16("the status")?;
        let code = r.text("the code", limits::CODE_MAX_BYTES)?;
        let worker_instance = r.text("the worker's instance", limits::NAME_MAX_BYTES)?;
        let (header_block, ext, body) = read_rest(r)?;
        let kind = match tag {
            0 => ReplyKind::Done,
            1 => ReplyKind::Busy,
            2 => ReplyKind::Crashed,
            3 => ReplyKind::Expired,
            4 => ReplyKind::Refused(code.clone()),
            5 => ReplyKind::GoAhead,
            _ => return Err(WireError::Malformed("the reply's kind")),
        };
        if tag != 4 && !code.is_empty() {
            return Err(WireError::Malformed("the code"));
        }
        check_name("the worker's instance", &worker_instance)?;
        Ok(Self { kind, status, worker_instance, header_block, body, ext })
    }
}

fn check_name(field: &'static str, text: &Text) -> Result<(), WireError> {
    if is_name(text) { Ok(()) } else { Err(WireError::Malformed(field)) }
}

fn body_len(body: &CallBody) -> usize {
    match body {
        CallBody::Whole(bytes) => bytes.len(),
        CallBody::Stream => 0,
    }
}

fn write_rest(w: &mut Writer, header_block: &Bytes, ext: &Bytes, body: &CallBody) -> Result<(), WireError> {
    w.bytes("the header block", header_block, limits::HEADER_BLOCK_MAX_BYTES)?;
    w.bytes("ext", ext, limits::EXT_MAX_BYTES)?;
    match body {
        CallBody::Whole(bytes) => {
            w.u8(0);
            w.bytes("the body", bytes, limits::INLINE_BODY_MAX_BYTES)
        }
        CallBody::Stream => {
            w.u8(1);
            Ok(())
        }
    }
}

fn read_rest(mut r: Reader) -> Result<(Bytes, Bytes, CallBody), WireError> {
    let header_block = r.bytes("the header block", limits::HEADER_BLOCK_MAX_BYTES)?;
    let ext = r.bytes("ext", limits::EXT_MAX_BYTES)?;
    let body = match r.u8("the body's kind")? {
        0 => CallBody::Whole(r.bytes("the body", limits::INLINE_BODY_MAX_BYTES)?),
        1 => CallBody::Stream,
        _ => return Err(WireError::Malformed("the body's kind")),
    };
    r.end()?;
    Ok((header_block, ext, body))
}
