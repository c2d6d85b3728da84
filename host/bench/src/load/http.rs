//! Callers over HTTP/1.1, each with a connection of its own that is kept open.

use bytes::Bytes;
use cardcage_harness::{Error, Result};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::Caller;

/// A request and the answer that is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HttpTarget {
    /// `127.0.0.1:<port>`.
    pub(crate) address: String,
    /// `GET` without a body, `POST` with this one.
    pub(crate) body: Option<String>,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// The right body; `None` where it differs from answer to answer.
    pub(crate) answer: Option<String>,
}

impl HttpTarget {
    pub(super) async fn callers(&self, count: usize) -> Result<Vec<HttpCaller>> {
        let mut callers = Vec::with_capacity(count);
        for _ in 0..count {
            callers.push(self.caller().await?);
        }
        Ok(callers)
    }

    async fn caller(&self) -> Result<HttpCaller> {
        let asking = || format!("cannot ask {}{}", self.address, self.path);
        let stream = TcpStream::connect(&self.address).await.map_err(Error::doing(asking()))?;
        stream.set_nodelay(true).map_err(Error::doing(asking()))?;
        let handshake = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Error::doing(asking()))?;
        // Its error reaches the caller too, through the sender.
        tokio::spawn(connection);
        Ok(HttpCaller {
            sender,
            method: if self.body.is_some() { Method::POST } else { Method::GET },
            uri: self.path.parse().map_err(Error::doing("this is no path"))?,
            host: HeaderValue::from_str(&self.address).map_err(Error::doing("this is no address"))?,
            body: Bytes::from(self.body.clone().unwrap_or_default()),
            status: StatusCode::from_u16(self.status).map_err(Error::doing("this is no status"))?,
            answer: self.answer.clone().map(Bytes::from),
        })
    }
}

/// One connection.
pub(super) struct HttpCaller {
    sender: SendRequest<Full<Bytes>>,
    method: Method,
    uri: Uri,
    host: HeaderValue,
    body: Bytes,
    status: StatusCode,
    answer: Option<Bytes>,
}

impl Caller for HttpCaller {
    async fn ask(&mut self) -> Result<()> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        if !self.body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        self.sender.ready().await.map_err(Error::doing("the connection was closed"))?;
        let response = self.sender.send_request(request).await.map_err(Error::doing("no answer"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Error::doing("half an answer"))?.to_bytes();
        if status != self.status || self.answer.as_ref().is_some_and(|answer| *answer != body) {
            let body = String::from_utf8_lossy(&body);
            return Err(Error::new(format!("{} {} was answered {status}: {body}", self.method, self.uri)));
        }
        Ok(())
    }
}
