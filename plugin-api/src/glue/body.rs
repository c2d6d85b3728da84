//! The host's side of a call as the plugin holds it: the token, and the request body that comes through it.

use crate::context::HostHandle;
use bytes::Bytes;
use cardcage_abi::{CallToken, FfiBytes, FfiWaker, Reply, TaskReply, TaskToken, code};
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Owns a call's token; the last holder gives it back.
pub(super) struct CallGuard {
    pub(super) host: HostHandle,
    pub(super) token: CallToken,
}

impl CallGuard {
    pub(super) fn new(host: HostHandle, token: CallToken) -> Self {
        Self { host, token }
    }

    pub(super) fn complete(&self, reply: Reply) {
        (self.host.vtable.complete())(self.token, reply);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        (self.host.vtable.call_release())(self.token);
    }
}

/// Owns an attempt's token.
pub(super) struct TaskGuard {
    host: HostHandle,
    token: TaskToken,
}

impl TaskGuard {
    pub(super) fn new(host: HostHandle, token: TaskToken) -> Self {
        Self { host, token }
    }

    pub(super) fn complete(&self, reply: TaskReply) {
        (self.host.vtable.task_complete())(self.token, reply);
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        (self.host.vtable.task_release())(self.token);
    }
}

/// A request body that comes piece by piece.
pub(super) struct HostBody {
    guard: Arc<CallGuard>,
    ended: bool,
}

impl HostBody {
    pub(super) fn new(guard: Arc<CallGuard>) -> Self {
        Self { guard, ended: false }
    }
}

/// The caller went away, or the stream broke, before the body's end.
#[derive(Debug)]
pub(super) struct BodyBroken;

impl std::fmt::Display for BodyBroken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request body ended early: the caller has gone or the stream broke")
    }
}

impl std::error::Error for BodyBroken {}

impl http_body::Body for HostBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut chunk = FfiBytes::empty();
        let poll = self.guard.host.vtable.body_poll();
        match poll(self.guard.token, FfiWaker::new(cx.waker()), &mut chunk) {
            code::PENDING => Poll::Pending,
            code::READY => Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(chunk))))),
            code::END => {
                self.ended = true;
                Poll::Ready(None)
            }
            _ => {
                self.ended = true;
                Poll::Ready(Some(Err(BodyBroken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
