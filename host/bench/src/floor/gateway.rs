//! Bare hyper, and behind it a NATS request, a JetStream publish, or nothing.

use std::convert::Infallible;
use std::sync::Arc;

use async_nats::{Client, jetstream};
use bytes::Bytes;
use cardcage_harness::{Error, Result};
use cardcage_protocol::TaskId;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::responder::SUBJECT;
use super::{NAMESPACE, connect};
use crate::envelope::Envelopes;
use crate::part::{Ready, say};

/// What `GET /hello/inline?name=x` answers.
pub(crate) const GREETING: &str = "Hello, x!";

/// An HTTP server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gateway {
    /// The broker.
    pub(crate) nats_url: String,
    pub(crate) work: Work,
}

/// What is behind the server.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Nothing: it answers by itself.
    Greet,
    /// A request over NATS, whose reply is the answer.
    Call,
    /// A publish to JetStream, acknowledged before the answer.
    Enqueue,
}

/// What a request needs.
enum Means {
    Greet,
    Call(Client),
    Enqueue(jetstream::Context, Envelopes),
}

impl Gateway {
    pub(crate) async fn serve(self) -> Result<()> {
        let means = Arc::new(match self.work {
            Work::Greet => Means::Greet,
            Work::Call => Means::Call(connect(&self.nats_url).await?),
            Work::Enqueue => {
                Means::Enqueue(jetstream::new(connect(&self.nats_url).await?), Envelopes::new(NAMESPACE)?)
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::doing("cannot listen"))?;
        let address = listener.local_addr().map_err(Error::doing("cannot tell where it listens"))?;
        say(&Ready { address: Some(address.to_string()) }).await?;
        loop {
            let (stream, _) = listener.accept().await.map_err(Error::doing("cannot accept"))?;
            tokio::spawn(connection(stream, Arc::clone(&means)));
        }
    }
}

async fn connection(stream: TcpStream, means: Arc<Means>) {
    // An error here is the caller's going away; it sees more of it than we do.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let means = Arc::clone(&means);
        async move { Ok::<_, Infallible>(answer(request, &means).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, means: &Means) -> Response<Full<Bytes>> {
    match answer_or_fail(request, means).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Full::from(error.to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn answer_or_fail(request: Request<Incoming>, means: &Means) -> Result<Response<Full<Bytes>>> {
    if let Means::Greet = means {
        return Ok(response(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            Bytes::from_static(GREETING.as_bytes()),
        ));
    }
    let body = request.into_body().collect().await.map_err(Error::doing("cannot read the body"))?.to_bytes();
    match means {
        Means::Greet => Err(Error::new("a greeting has no body")),
        Means::Call(client) => {
            let reply = client.request(SUBJECT, body).await.map_err(Error::doing("nobody replied"))?;
            Ok(response(StatusCode::OK, "application/octet-stream", reply.payload))
        }
        Means::Enqueue(jetstream, envelopes) => {
            let id = TaskId::generate();
            let (subject, headers) = envelopes.write(id, &body);
            let publish = jetstream.publish_with_headers(subject, headers, body).await;
            let stored = publish.map_err(Error::doing("cannot publish"))?.await;
            stored.map_err(Error::doing("the publish was not acknowledged"))?;
            let receipt = format!(r#"{{"id":"{id}","state":"queued","links":{{"self":"/tasks/{id}"}}}}"#);
            Ok(response(StatusCode::ACCEPTED, "application/json", receipt.into()))
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
