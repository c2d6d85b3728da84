//! HTTP/1.1 by hand: one request, one connection, the answer read to its end.
//!
//! A client of a hundred lines instead of a library's, because plugins vendor this crate. It follows nothing, retries
//! nothing and keeps no connection.

use crate::{Error, Reply, Result};
use plugin_api::bytes::Bytes;
use plugin_api::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than any limit of the host, so that the host's answer is what a test sees.
const PATIENCE: Duration = Duration::from_secs(120);
/// More than any test has a use for.
const REPLY_MAX_BYTES: u64 = 256 << 20;
/// How much of an answer that cannot be read goes into an error.
const TAIL_BYTES: usize = 256;

/// Sends `request`, whose URI is a path, to `address`.
pub(crate) async fn send(address: &str, request: Request<Bytes>) -> Result<Reply> {
    let asking = format!("{} http://{address}{}", request.method(), request.uri());
    let answer = tokio::time::timeout(PATIENCE, exchange(address, &request)).await;
    let answer = answer.map_err(|_| Error::new(format!("{asking}: no answer within {PATIENCE:?}")))?;
    let answer = answer.map_err(Error::doing(&asking))?;
    parse(&answer).ok_or_else(|| {
        let from = answer.len().saturating_sub(TAIL_BYTES);
        let end = String::from_utf8_lossy(answer.get(from..).unwrap_or_default());
        Error::new(format!("{asking}: the answer is broken off, or not HTTP; it ends with {end:?}"))
    })
}

async fn exchange(address: &str, request: &Request<Bytes>) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut head =
        format!("{} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n", request.method());
    head.push_str(&format!("content-length: {}\r\n", request.body().len()));
    let mut head = head.into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    // A host may answer before it has read everything; then writing fails and the answer counts.
    let written = async { stream.write_all(&head).await.and(stream.write_all(request.body()).await) }.await;
    let mut answer = Vec::new();
    let read = stream.take(REPLY_MAX_BYTES).read_to_end(&mut answer).await;
    if answer.is_empty() {
        written?;
        read?;
    }
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(answer.get(..end)?).ok(), answer.get(end + 4..)?);
    // A header's value may be no UTF-8; then each byte is a character.
    let lossless: String;
    let head = match head {
        Some(head) => head,
        None => {
            lossless = answer.get(..end)?.iter().map(|byte| char::from(*byte)).collect();
            &lossless
        }
    };
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value: Vec<u8> = value.trim().chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?);
    }
    let chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let declared = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let body = match declared {
        _ if chunked => unchunk(body)?,
        Some(declared) => body.get(..declared)?.to_vec(),
        None => body.to_vec(),
    };
    Some(Reply { status: StatusCode::from_u16(status).ok()?, headers, body: Bytes::from(body) })
}

/// The body of a chunked answer; `None` where it ends before its end.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = parse(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx-a: b\r\n\r\nok").unwrap();
        assert_eq!((plain.status.as_u16(), plain.text().as_str()), (201, "ok"));
        assert_eq!(plain.headers["x-a"], "b");
        let chunked = parse(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
        );
        assert_eq!(chunked.unwrap().text(), "abcd");
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab").is_none());
        assert!(parse(b"SSH-2.0").is_none());
    }
}
