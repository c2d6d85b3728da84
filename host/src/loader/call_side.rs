//! The host's side of one call: where its handler takes the request's body from, and brings its reply. A file with
//! `unsafe`.
//!
//! # Invariants
//! * No function here panics or blocks; each may be called from any plugin thread.
//! * A [`CallToken`] points to a counted reference that `call_release` gives back.
//!
//! # What it refuses
//! It reads no reply: status, headers and body go on as they came.

use super::answer::{AnswerBody, Answered, RequestBody};
use super::lending;
use super::lock::lock;
use bytes::Bytes;
use cardcage_abi::{CallToken, FfiBytes, FfiWaker, Reply, code};
use http::StatusCode;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

/// Pieces of a streaming reply between plugin and host.
const STREAM_PIECES: usize = 8;

/// The host's side of one call.
pub(super) struct CallSide {
    reply: Mutex<Option<oneshot::Sender<Answered>>>,
    request: Mutex<Option<RequestBody>>,
    stream: Mutex<Option<PollSender<Result<Bytes, String>>>>,
    runtime: tokio::runtime::Handle,
}

impl CallSide {
    /// Must be called inside the host's runtime.
    pub(super) fn new(reply: oneshot::Sender<Answered>, request: Option<RequestBody>) -> Arc<Self> {
        Arc::new(Self {
            reply: Mutex::new(Some(reply)),
            request: Mutex::new(request),
            stream: Mutex::new(None),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    pub(super) fn into_token(self: Arc<Self>) -> CallToken {
        CallToken(Arc::into_raw(self).cast())
    }

    /// Ends a streaming reply as broken. The reader sees a closed channel as a complete body, so the error must
    /// arrive, however full the channel is: it waits for room on the host's runtime, never on the plugin's thread.
    fn break_stream(&self, sender: &PollSender<Result<Bytes, String>>, reason: String) {
        let Some(sender) = sender.get_ref().cloned() else { return };
        lending::spawn(&self.runtime, async move {
            // Fails where nobody reads any more.
            let _ = sender.send(Err(reason)).await;
        });
    }
}

impl Drop for CallSide {
    fn drop(&mut self) {
        // No `body_end` came: the handler panicked or was cancelled in the middle of its reply.
        if let Some(sender) = lock(&self.stream).take() {
            self.break_stream(&sender, "the handler ended in the middle of its reply".into());
        }
    }
}

fn call_side(token: &CallToken) -> &CallSide {
    // SAFETY: made by `CallSide::into_token`, and not yet released: the plugin holds its one reference.
    // OWNERSHIP: borrowed for as long as the token is. THREADS: `CallSide` is `Sync`.
    unsafe { &*token.0.cast::<CallSide>() }
}

pub(super) extern "C" fn complete(token: CallToken, reply: Reply) {
    let side = call_side(&token);
    let Some(sender) = lock(&side.reply).take() else { return };
    let answered = match StatusCode::from_u16(reply.status) {
        Ok(status) => {
            let head = Bytes::from_owner(reply.body);
            let body = if reply.streaming == 0 {
                AnswerBody::Whole(head)
            } else {
                let (pieces, receiver) = mpsc::channel(STREAM_PIECES);
                *lock(&side.stream) = Some(PollSender::new(pieces));
                AnswerBody::Stream(head, receiver)
            };
            Answered::Response { status, headers: Bytes::from_owner(reply.headers), body }
        }
        Err(_) if reply.failure == code::PANICKED => Answered::Panicked(reply.body.to_text().into_owned()),
        Err(_) => Answered::Failed(reply.body.to_text().into_owned()),
    };
    // Nobody listens any more where the caller has gone.
    let _ = sender.send(answered);
}

/// Wakes a plugin's waker once; the boundary's wakers are one-shot.
struct Once(Mutex<Option<FfiWaker>>);

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let waker = lock(&self.0).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn std_waker(waker: FfiWaker) -> Waker {
    Waker::from(Arc::new(Once(Mutex::new(Some(waker)))))
}

pub(super) extern "C" fn body_poll(token: CallToken, waker: FfiWaker, out: &mut FfiBytes) -> u32 {
    let side = call_side(&token);
    let waker = std_waker(waker);
    let mut cx = Context::from_waker(&waker);
    let mut request = lock(&side.request);
    let Some(body) = request.as_mut() else { return code::END };
    loop {
        return match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => code::PENDING,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    *out = FfiBytes::from_owner(data);
                    code::READY
                }
                // Trailers are not passed on.
                Err(_) => continue,
            },
            Poll::Ready(Some(Err(_))) => {
                *request = None;
                code::BROKEN
            }
            Poll::Ready(None) => {
                *request = None;
                code::END
            }
        };
    }
}

pub(super) extern "C" fn body_ready(token: CallToken, waker: FfiWaker) -> u32 {
    let side = call_side(&token);
    let waker = std_waker(waker);
    let mut stream = lock(&side.stream);
    let Some(sender) = stream.as_mut() else { return code::BROKEN };
    match sender.poll_reserve(&mut Context::from_waker(&waker)) {
        Poll::Pending => code::PENDING,
        Poll::Ready(Ok(())) => code::READY,
        Poll::Ready(Err(_)) => code::BROKEN,
    }
}

pub(super) extern "C" fn body_push(token: CallToken, piece: FfiBytes) -> u32 {
    let mut stream = lock(&call_side(&token).stream);
    let sent = stream.as_mut().is_some_and(|sender| sender.send_item(Ok(Bytes::from_owner(piece))).is_ok());
    if sent { code::READY } else { code::BROKEN }
}

pub(super) extern "C" fn body_end(token: CallToken, error: FfiBytes) {
    let side = call_side(&token);
    let Some(sender) = lock(&side.stream).take() else { return };
    if !error.is_empty() {
        side.break_stream(&sender, error.to_text().into_owned());
    }
}

pub(super) extern "C" fn call_release(token: CallToken) {
    // SAFETY: made by `CallSide::into_token`; the plugin gives its one reference back, once.
    // OWNERSHIP: taken here. THREADS: `CallSide` is `Send + Sync`.
    drop(unsafe { Arc::from_raw(token.0.cast::<CallSide>()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> (CallToken, oneshot::Receiver<Answered>) {
        let (reply, answered) = oneshot::channel();
        let token = CallSide::new(reply, None).into_token();
        let empty = FfiBytes::empty;
        complete(
            token,
            Reply { status: 200, failure: 0, streaming: 1, headers: empty(), body: empty(), ext: empty() },
        );
        (token, answered)
    }

    fn push(token: CallToken, count: usize) {
        for _ in 0..count {
            assert_eq!(body_ready(token, FfiWaker::new(Waker::noop())), code::READY);
            assert_eq!(body_push(token, FfiBytes::from_static(b"piece")), code::READY);
        }
    }

    /// How many pieces came, and what the body ended with.
    async fn read(answered: oneshot::Receiver<Answered>) -> (usize, Option<String>) {
        let Ok(Answered::Response { body: AnswerBody::Stream(_, mut pieces), .. }) = answered.await else {
            panic!("no streaming reply");
        };
        let mut count = 0;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(_) => count += 1,
                Err(reason) => return (count, Some(reason)),
            }
        }
        (count, None)
    }

    #[tokio::test]
    async fn reply_that_ends_well_ends_without_an_error() {
        let (token, answered) = streaming();
        push(token, 2);
        body_end(token, FfiBytes::empty());
        call_release(token);
        assert_eq!(read(answered).await, (2, None));
    }

    #[tokio::test]
    async fn broken_reply_is_told_even_when_the_channel_is_full() {
        let (token, answered) = streaming();
        push(token, STREAM_PIECES);
        body_end(token, FfiBytes::from_static(b"the source dried up"));
        call_release(token);
        assert_eq!(read(answered).await, (STREAM_PIECES, Some("the source dried up".into())));
    }

    #[tokio::test]
    async fn handler_that_ends_in_mid_reply_leaves_a_broken_body_and_not_a_complete_one() {
        let (token, answered) = streaming();
        push(token, STREAM_PIECES);
        call_release(token);
        let (count, reason) = read(answered).await;
        assert_eq!(count, STREAM_PIECES);
        assert!(reason.is_some_and(|reason| reason.contains("in the middle")));
    }
}
