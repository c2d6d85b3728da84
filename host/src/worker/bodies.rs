//! Bodies of calls, between the wire's form and the plugin's.

use crate::loader::AnswerBody;
use crate::stream::Pieces;
use bytes::Bytes;
use cardcage_protocol::limits;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What streams after a reply's head.
pub(super) enum Rest {
    Pieces(Pieces),
    Nothing,
}

/// What goes with the head, and what streams after it.
pub(super) fn split(body: AnswerBody) -> (Bytes, Option<Rest>) {
    match body {
        AnswerBody::Whole(bytes) if bytes.len() <= limits::INLINE_BODY_MAX_BYTES => (bytes, None),
        AnswerBody::Whole(bytes) => (bytes, Some(Rest::Nothing)),
        AnswerBody::Stream(first, pieces) => (first, Some(Rest::Pieces(pieces))),
    }
}

/// Tells the length of a large reply beforehand, so that one over the caller's bound is refused before it begins.
pub(super) fn with_length(headers: Bytes, length: usize) -> Bytes {
    let name = http::header::CONTENT_LENGTH;
    if cardcage_abi::headers::get(&headers, name.as_str()).is_some() {
        return headers;
    }
    let mut block = headers.to_vec();
    cardcage_abi::headers::push(&mut block, name.as_str(), length.to_string().as_bytes());
    Bytes::from(block)
}

/// A streamed request body as the plugin reads it.
pub(super) struct PiecesBody(pub(super) Pieces);

impl Body for PiecesBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = std::task::ready!(self.0.poll_recv(cx));
        Poll::Ready(piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
    }
}
