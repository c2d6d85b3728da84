//! What hyper cannot parse never becomes a request: hyper answers it alone, with an empty 400, 414 or 431, and closes
//! the connection. This stream puts a problem in the place of that answer.
//!
//! # Invariants
//! * Bytes are looked at only until a connection's first request was handed over. Until then nothing but hyper's own
//!   answer can be written; from then on what is written may be a plugin's, and passes untouched.
//!
//! # What it refuses
//! Garbage that follows a sound request on the same connection keeps hyper's empty answer: telling it from a plugin's
//! bytes would need a second HTTP parser. HTTP/2 has no such answer: it ends the stream or the connection.

use super::head::RequestId;
use cardcage_protocol::problem::MEDIA_TYPE;
use cardcage_protocol::{Problem, ProblemCode};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Told of a connection's first request.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstRequest(Arc<AtomicBool>);

impl FirstRequest {
    pub(super) fn came(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct AnswersUnparsable {
    stream: TcpStream,
    first_request: FirstRequest,
    /// The problem, as far as it is not written yet.
    problem: Vec<u8>,
}

impl AnswersUnparsable {
    pub(super) fn new(stream: TcpStream, first_request: FirstRequest) -> Self {
        Self { stream, first_request, problem: Vec::new() }
    }

    /// Takes hyper's answer, where that is what `bytes` are.
    fn takes(&mut self, bytes: &[u8]) -> bool {
        if self.first_request.has_come() || !self.problem.is_empty() {
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
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_problem(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
