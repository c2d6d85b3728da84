//! What hyper cannot parse never becomes a request: hyper answers it alone, with an empty 400, 414 or 431, and closes
//! the connection. This stream puts a problem in the place of that answer.
//!
//! # Invariants
//! * Bytes are looked at only while no exchange is under way: from the moment a request is handed over until the last
//!   byte of its response was passed on, what is written may be a plugin's, and passes untouched. In between, nothing
//!   but hyper's own answer can be written. hyper flushes only what is complete, which is how the end is known.
//! * Sound requests pay for it with a few stores; nothing is parsed.
//!
//! # What it refuses
//! HTTP/2 passes untouched: its library answers too large a head with an empty 431, and ends the stream or the
//! connection for anything else that it cannot read.

use super::activity::Busy;
use super::body::{BodyBroken, EdgeBody};
use super::head::RequestId;
use super::patience::Patient;
use bytes::Bytes;
use cardcage_protocol::problem::MEDIA_TYPE;
use cardcage_protocol::{Problem, ProblemCode};
use http_body::{Body, Frame, SizeHint};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No exchange: what is written is hyper's.
const IDLE: u8 = 0;
/// A request was handed over.
const UNDER_WAY: u8 = 1;
/// Its response was taken by hyper, which may not have written all of it yet.
const TAKEN: u8 = 2;
/// HTTP/2, where exchanges overlap.
const UNTOUCHED: u8 = 3;

/// How a connection's exchanges stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<AtomicU8>);

impl Exchanges {
    /// A request was handed over.
    pub(super) fn begin(&self, version: http::Version, busy: Busy) -> Exchange {
        if version >= http::Version::HTTP_2 {
            self.0.store(UNTOUCHED, Ordering::Relaxed);
            return Exchange { of: None, _busy: busy };
        }
        self.0.store(UNDER_WAY, Ordering::Relaxed);
        Exchange { of: Some(self.clone()), _busy: busy }
    }

    fn flushed(&self) {
        if self.0.load(Ordering::Relaxed) == TAKEN {
            self.0.store(IDLE, Ordering::Relaxed);
        }
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IDLE
    }
}

/// One request and its response; lives as long as the response's body.
#[derive(Debug)]
pub(super) struct Exchange {
    /// `None` where exchanges overlap.
    of: Option<Exchanges>,
    _busy: Busy,
}

impl Exchange {
    pub(super) fn of(self, body: EdgeBody) -> Responding {
        Responding { body, _exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(exchanges) = &self.of {
            exchanges.0.store(TAKEN, Ordering::Relaxed);
        }
    }
}

/// A response's body with its exchange.
#[derive(Debug)]
pub(super) struct Responding {
    body: EdgeBody,
    _exchange: Exchange,
}

impl Body for Responding {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct AnswersUnparsable {
    stream: Patient,
    exchanges: Exchanges,
    /// The problem, as far as it is not written yet.
    problem: Vec<u8>,
}

impl AnswersUnparsable {
    pub(super) fn new(stream: Patient, exchanges: Exchanges) -> Self {
        Self { stream, exchanges, problem: Vec::new() }
    }

    /// Takes hyper's answer, where that is what `bytes` are.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        if !self.exchanges.is_idle() || !self.problem.is_empty() {
            return false;
        }
        let Some(code) = code(bytes) else { return false };
        self.problem = answer(code);
        true
    }

    fn poll_problem(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.problem.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.problem))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.problem.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What hyper's answer means.
fn code(bytes: &[u8]) -> Option<ProblemCode> {
    match bytes.strip_prefix(b"HTTP/1.")?.get(1..5)? {
        b" 400" => Some(ProblemCode::MalformedRequest),
        b" 414" | b" 431" => Some(ProblemCode::HeadersTooLarge),
        _ => None,
    }
}

fn answer(code: ProblemCode) -> Vec<u8> {
    let id = RequestId::generate().hex();
    let body = Problem::new(code).member("request_id", id.clone()).to_json();
    let reason = http::StatusCode::from_u16(code.status()).ok().and_then(|status| status.canonical_reason());
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nx-request-id: {id}\r\n\
         connection: close\r\n\r\n",
        code.status(),
        reason.unwrap_or_default(),
        body.len(),
    );
    [head.into_bytes(), body].concat()
}

impl AsyncRead for AnswersUnparsable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for AnswersUnparsable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes(bytes) {
            // All of it, as far as hyper knows. Now, and not with a flush: hyper may close without one.
            if let Poll::Ready(Err(error)) = self.poll_problem(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_problem(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.first().is_some_and(|first| self.takes(first)) {
            if let Poll::Ready(Err(error)) = self.poll_problem(cx) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        ready!(self.poll_problem(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_problem(cx))?;
        self.exchanges.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_problem(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
