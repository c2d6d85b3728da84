//! Bodies at the edge: responses going out, requests coming in.

use crate::stream::Pieces;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

/// A response's body.
pub enum EdgeBody {
    /// All of it, or nothing once it was taken.
    Whole(Option<Bytes>),
    /// Piece by piece.
    Stream(Box<Streaming>),
}

/// See [`EdgeBody::Stream`].
pub struct Streaming {
    first: Option<Bytes>,
    pieces: Pieces,
    left_bytes: usize,
    /// What is still to come, where that is known beforehand; a body of another length closes the connection.
    expected_bytes: Option<usize>,
    /// Whatever must live until the body's end: a running handler, a place among the requests under way.
    _held: Box<dyn std::any::Any + Send + Sync>,
}

impl std::fmt::Debug for EdgeBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl EdgeBody {
    /// A body that is there already.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// A body that comes piece by piece, `max_bytes` at most and `length` exactly, where that is known; `held` is
    /// dropped with it.
    pub fn stream(
        first: Bytes,
        pieces: Pieces,
        max_bytes: usize,
        length: Option<usize>,
        held: Box<dyn std::any::Any + Send + Sync>,
    ) -> Self {
        let first = Some(first).filter(|first| !first.is_empty());
        Self::Stream(Box::new(Streaming {
            first,
            pieces,
            left_bytes: max_bytes,
            expected_bytes: length,
            _held: held,
        }))
    }
}

/// Why a response's body ends early: the connection is closed, so that the caller cannot take it for complete.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyBroken(String);

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(
                bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))),
            ),
            Self::Stream(stream) => {
                let piece = match stream.first.take() {
                    Some(first) => Some(Ok(first)),
                    None => std::task::ready!(stream.pieces.poll_recv(cx)),
                };
                Poll::Ready(piece.map(|piece| {
                    let bytes = piece.map_err(BodyBroken)?;
                    stream.left_bytes = stream
                        .left_bytes
                        .checked_sub(bytes.len())
                        .ok_or_else(|| BodyBroken("the reply is larger than api.reply_max_bytes".into()))?;
                    stream.expected_bytes =
                        stream.expected_bytes.map(|left| left.saturating_sub(bytes.len()));
                    Ok(Frame::data(bytes))
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => exactly(bytes.as_ref().map_or(0, Bytes::len)),
            Self::Stream(stream) => stream.expected_bytes.map_or_else(SizeHint::default, exactly),
        }
    }
}

fn exactly(bytes: usize) -> SizeHint {
    SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// A request's body, read as far as it fits into one message.
pub(super) enum Received {
    Whole(Bytes),
    /// The start, and the rest still to come.
    More(Bytes, Limited),
}

impl Received {
    /// What goes wrong with the rest, for whoever asks later.
    pub(super) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Whole(_) => None,
            Self::More(_, rest) => Some(rest.fault()),
        }
    }
}

/// Why a request's body cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the request body is larger than it may be")]
    TooLarge,
    /// The client went away, or sent no valid body.
    #[error("the client's body broke off")]
    Broken,
    #[error("the client sent nothing for too long")]
    Slow,
}

/// Reads up to `inline_max` bytes; refuses what is known to exceed `max`.
pub(super) async fn read(
    mut body: Incoming,
    inline_max: usize,
    max: usize,
    idle: Duration,
) -> Result<Received, ReadError> {
    if body.is_end_stream() {
        return Ok(Received::Whole(Bytes::new()));
    }
    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(ReadError::TooLarge);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = Vec::new();
    loop {
        let length = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if length > max {
            return Err(ReadError::TooLarge);
        }
        if length > inline_max {
            let start = join(first, rest);
            return Ok(Received::More(start, Limited::new(body, max - length, idle)));
        }
        if body.is_end_stream() {
            return Ok(Received::Whole(join(first, rest)));
        }
        match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(ReadError::Slow),
            Ok(None) => return Ok(Received::Whole(join(first, rest))),
            Ok(Some(Err(_))) => return Err(ReadError::Broken),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                // A body in one piece, which is most of them, is not copied.
                match &first {
                    None => first = Some(data),
                    Some(_) => rest.extend_from_slice(&data),
                }
            }
        }
    }
}

fn join(first: Option<Bytes>, rest: Vec<u8>) -> Bytes {
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        return first;
    }
    let mut all = Vec::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Bytes::from(all)
}

/// What went wrong with a large body while it was passed on. The handler sees a broken body and may answer anything;
/// with this the edge can tell the caller what it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Fault(Arc<OnceLock<ReadError>>);

impl Fault {
    pub(super) fn get(&self) -> Option<ReadError> {
        self.0.get().copied()
    }
}

/// The rest of a large request body, within the limits on size and silence.
pub(super) struct Limited {
    body: Incoming,
    left_bytes: usize,
    silence: Duration,
    /// Made beforehand: an inline handler polls from its plugin's threads, where the host's runtime makes no timers.
    timer: Pin<Box<tokio::time::Sleep>>,
    /// The timer runs while the client is waited for, and only then: a handler that takes its time is no silence.
    is_waiting: bool,
    fault: Fault,
}

impl Limited {
    fn new(body: Incoming, left_bytes: usize, silence: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(silence));
        Self { body, left_bytes, silence, timer, is_waiting: false, fault: Fault::default() }
    }

    pub(super) fn fault(&self) -> Fault {
        self.fault.clone()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if !self.is_waiting {
                self.is_waiting = true;
                self.timer.as_mut().reset(tokio::time::Instant::now() + self.silence);
            }
            return self.timer.as_mut().poll(cx).map(|()| Some(Err(ReadError::Slow)));
        };
        self.is_waiting = false;
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|_| ReadError::Broken)?;
            let length = frame.data_ref().map_or(0, Bytes::len);
            self.left_bytes = self.left_bytes.checked_sub(length).ok_or(ReadError::TooLarge)?;
            Ok(frame)
        }))
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = ReadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReadError>>> {
        let frame = std::task::ready!(self.poll_read(cx));
        if let Some(Err(error)) = &frame {
            // The first one counts.
            let _ = self.fault.0.set(*error);
        }
        Poll::Ready(frame)
    }
}
