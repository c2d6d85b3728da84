//! The admin listener: what operators, probes and scrapers ask a host.
//!
//! | request | answer |
//! |---|---|
//! | `GET /livez` | 200 `alive` while the supervisor's process lives |
//! | `GET /readyz` | 200 `ready`, or `ready, degraded` and for how many reasons; or 503 and the reason in a line |
//! | `GET /readyz?verbose` | the same status; JSON: status, degraded, refused, plugins, quarantined, blocked, child, last crash; of worker groups also each process' own |
//! | `GET /metrics` | OpenMetrics text: the supervisor's own, and the child's if it answers within 1 s |
//! | `POST /reload` | 202 and the number of the reload that reads what is there now; 403 from elsewhere |
//! | `GET /reload` | the reload under way, and how the last one ended |
//!
//! `HEAD` is answered as `GET` without a body; other methods get 405, other paths 404, both as
//! `application/problem+json`.
//!
//! Invariants: it runs in the supervisor and answers while the child is dead, hung or starting. One
//! request per connection, within [`CONNECTION_MAX`]; heads of 16 KiB at most; bodies are not read.
//!
//! What it refuses to do: it changes nothing but by the configuration that is there, and it knows no secrets; still, listen
//! on loopback. A reload is taken from this machine only, unless `admin.remote_reload` says otherwise, and never from a browser.

mod desk;
mod metrics;

pub use desk::{Desk, ReloadAccepted, ReloadResult, ReloadState};

use crate::process::{Crew, Snapshot, Stage};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The longest that a connection may last.
pub const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// The largest head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Connections at the same time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// How long the child may take over its metrics.
const CHILD_METRICS_MAX: Duration = Duration::from_secs(1);
/// The pause after a failed accept, which is the machine's trouble (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// What the listener works with.
#[derive(Clone, Debug)]
pub struct Office {
    /// The status and metrics of the supervisors.
    pub crew: Crew,
    /// Where reloads are asked for.
    pub desk: Desk,
    /// Whether other machines may ask for one.
    pub remote_reload: bool,
}

/// Answers on a listener that is already bound, until the future is dropped.
///
/// # Errors
/// When the runtime cannot take the listener over; a retry does not help.
pub async fn serve(listener: std::net::TcpListener, office: Office) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Connections end with the server: dropping the set aborts them.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (office, is_near) = (office.clone(), peer.ip().to_canonical().is_loopback());
                connections.spawn(async move {
                    // Too slow, or gone: nobody is left to tell.
                    let _ = tokio::time::timeout(CONNECTION_MAX, converse(stream, office, is_near)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, office: Office, is_near: bool) {
    let service = service_fn(move |request: Request<Incoming>| {
        let office = office.clone();
        async move { Ok::<_, Infallible>(answer(&request, &office, is_near).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

async fn answer(request: &Request<Incoming>, office: &Office, is_near: bool) -> Response<Full<Bytes>> {
    let crew = &office.crew;
    let path = request.uri().path();
    if path == "/reload" && !is_near && !office.remote_reload {
        let detail = "A reload is this machine's business only; `admin.remote_reload` changes that.";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    if path == "/reload" && request.method() == Method::POST {
        return ask_for_reload(request, office);
    }
    if !["/livez", "/readyz", "/metrics", "/reload"].contains(&path) {
        return problem(
            StatusCode::NOT_FOUND,
            "There are /livez, /readyz (also with ?verbose), /metrics and /reload.",
        );
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "This path is only for reading.");
        let allow = if path == "/reload" { "GET, HEAD, POST" } else { "GET, HEAD" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        return response;
    }
    match path {
        "/livez" => respond(StatusCode::OK, TEXT, "alive\n"),
        "/readyz" => readyz(&crew.snapshot(), verbose(request.uri().query())),
        "/reload" => json(StatusCode::OK, &office.desk.state()),
        _ => {
            let child = crew.metrics_text(CHILD_METRICS_MAX).await;
            let text = metrics::text(&crew.snapshot(), &crew.duties.text(), child.as_deref());
            respond(StatusCode::OK, metrics::CONTENT_TYPE, text)
        }
    }
}

fn verbose(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|one| one == "verbose" || one.starts_with("verbose=")))
}

fn readyz(now: &Snapshot, verbose: bool) -> Response<Full<Bytes>> {
    let status = if now.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if verbose {
        return json(status, now);
    }
    if now.ready && !now.degraded.is_empty() {
        let reasons = match now.degraded.len() {
            1 => "1 reason".to_owned(),
            more => format!("{more} reasons"),
        };
        return respond(status, TEXT, format!("ready, degraded: {reasons}, in /readyz?verbose\n"));
    }
    respond(
        status,
        TEXT,
        match (now.ready, now.status) {
            (true, _) => "ready\n",
            (false, Stage::Starting) => "not ready: starting\n",
            (false, Stage::Serving) if !now.responding => {
                "not ready: the child shows no sign of life; it may be stopped\n"
            }
            (false, Stage::Serving) => "not ready: not consuming\n",
            (false, Stage::Draining) => "not ready: draining\n",
            (false, Stage::Ended) => "not ready: ended\n",
        },
    )
}

/// A web page that the operator has open may send requests here, too; its browser says so.
fn ask_for_reload(request: &Request<Incoming>, office: &Office) -> Response<Full<Bytes>> {
    if request.headers().contains_key(ORIGIN) {
        return problem(StatusCode::FORBIDDEN, "A reload is not taken from a browser.");
    }
    json(StatusCode::ACCEPTED, &ReloadAccepted { number: office.desk.ask() })
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(json) => respond(status, JSON, json),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    });
    respond(status, PROBLEM, body.to_string())
}

#[cfg(test)]
mod tests;
