//! A request's head on its way to a plugin: the header block, the request's id and its trace context.

use bytes::Bytes;
use cardcage_abi::headers;
use http::header::{CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method};

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACEPARENT_BYTES: usize = 55;

/// Headers that speak of one connection (RFC 9110, section 7.6.1).
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRAILER | TRANSFER_ENCODING | UPGRADE)
        || name == "keep-alive"
        || name == "proxy-connection"
}

/// 16 random bytes, as 32 hex digits in headers and logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId(pub(super) [u8; 16]);

impl RequestId {
    pub(super) fn generate() -> Self {
        Self(fastrand::u128(1..).to_be_bytes())
    }

    pub(super) fn hex(self) -> String {
        String::from_utf8_lossy(&self.digits()).into_owned()
    }

    /// The 32 hex digits, without an allocation: three headers carry them.
    pub(super) fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        // The buffer is twice as long as the id, which is all that can go wrong.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }
}

/// The caller's W3C `traceparent` where it is sound, otherwise a new trace whose id is the request's.
pub(super) fn traceparent(headers: &HeaderMap, id: RequestId) -> String {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
    if let Some(given) = given.filter(|given| is_traceparent(given)) {
        return given.to_owned();
    }
    let mut span = [0; 16];
    // As for the id.
    let _ = hex::encode_to_slice(fastrand::u64(1..).to_be_bytes(), &mut span);
    let mut text = String::with_capacity(TRACEPARENT_BYTES);
    text.push_str("00-");
    text.push_str(&String::from_utf8_lossy(&id.digits()));
    text.push('-');
    text.push_str(&String::from_utf8_lossy(&span));
    text.push_str("-01");
    text
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(4, '-');
    let mut hex = |length| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let some = |part: Option<&str>| part.is_some_and(|part| part.bytes().any(|b| b != b'0'));
    hex(2) == Some("00") && some(hex(32)) && some(hex(16)) && hex(2).is_some()
}

/// Encodes the head: method and path first, then the headers, then what the host adds.
pub(super) fn block(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    traceparent: &str,
    id: RequestId,
) -> Bytes {
    let mut block = Vec::with_capacity(256 + 48 * headers.len());
    headers::push(&mut block, headers::METHOD, method.as_str().as_bytes());
    headers::push(&mut block, headers::PATH, path.as_bytes());
    for (name, value) in headers {
        if !is_hop_by_hop(name) && name != "traceparent" && name != "x-request-id" {
            headers::push(&mut block, name.as_str(), value.as_bytes());
        }
    }
    headers::push(&mut block, "traceparent", traceparent.as_bytes());
    headers::push(&mut block, "x-request-id", &id.digits());
    Bytes::from(block)
}

/// The headers of an HTTP/2 request name their host in the URI; plugins find it where HTTP/1.1 has it.
pub(super) fn with_host(headers: &mut HeaderMap, uri: &http::Uri) {
    if headers.contains_key(HOST) {
        return;
    }
    if let Some(host) =
        uri.authority().and_then(|authority| http::HeaderValue::from_str(authority.as_str()).ok())
    {
        headers.insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_trace_contexts_are_taken_over() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &good.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
