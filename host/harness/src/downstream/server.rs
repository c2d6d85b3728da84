//! The listening part that the fake services share.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// Any free port of this machine.
pub(super) const ANY_PORT: &str = "127.0.0.1:0";

/// A listener. Dropping it stops listening; open connections end with the runtime.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Answers every request with `handler`, which gets its body read whole.
    pub(super) async fn start<F>(address: &str, handler: F) -> Result<Self>
    where
        F: AsyncHandler,
    {
        let failed = || Error::doing(format!("cannot listen on {address} for a fake service"));
        let listener = TcpListener::bind(address).await.map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let handler = handler.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let handler = handler.clone();
                    async move { Ok::<_, Infallible>(respond(&handler, request).await) }
                });
                // A connection that breaks is the caller's affair.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Ok(Self { address, accepting })
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What answers; cloned for each request.
pub(super) trait AsyncHandler: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Bytes>) -> impl Future<Output = Answer> + Send;
}

/// A status and a JSON body.
pub(super) type Answer = (u16, serde_json::Value);

async fn respond(handler: &impl AsyncHandler, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (status, answer) = handler.answer(Request::from_parts(parts, body)).await;
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
