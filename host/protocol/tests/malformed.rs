//! No input, however broken, makes a decoder panic, and what it accepts is what was written.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use bytes::Bytes;
use cardcage_protocol::limits;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, EnvelopeError, Frame, ReplyKind, Subjects, TaskEnvelope, Text,
    WireError, header,
};

const INPUTS: usize = 20_000;
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn call(body: CallBody) -> CallRequest {
    CallRequest {
        call_id: CallId::generate(),
        deadline_unix_ms: 1_769_860_800_000,
        route: Text::from_static("show"),
        request_id: [3; 16],
        caller_instance: Text::from_static("api-1f00ba12"),
        header_block: Bytes::from_static(&[1, 2, 3, 4]),
        body,
        ext: Bytes::from_static(b"ext"),
    }
}

fn reply() -> CallReply {
    let mut reply = CallReply::bare(ReplyKind::Done, "worker-1f00ba12");
    reply.status = 200;
    reply.body = CallBody::Whole(Bytes::from_static(b"hello"));
    reply
}

/// Cuts, flips, or replaces a message by noise.
fn spoil(rng: &mut fastrand::Rng, message: &Bytes) -> Bytes {
    let mut bytes = message.to_vec();
    match rng.u8(0..4) {
        0 => bytes.truncate(rng.usize(0..bytes.len())),
        1 => {
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..bytes.len());
                bytes[at] ^= 1 << rng.u8(0..8);
            }
        }
        2 => {
            let at = rng.usize(0..bytes.len());
            bytes[at] = rng.u8(..);
            bytes.truncate(rng.usize(at..=bytes.len()));
        }
        _ => {
            let keep = rng.usize(0..4);
            bytes.truncate(keep);
            let noise = rng.usize(0..100);
            bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(noise));
        }
    }
    Bytes::from(bytes)
}

#[test]
fn spoiled_binary_messages_are_errors_or_messages_but_never_panics() {
    let mut rng = fastrand::Rng::with_seed(20_260_131);
    let sources = [
        call(CallBody::Whole(Bytes::from_static(b"{}"))).encode().unwrap(),
        call(CallBody::Stream).encode().unwrap(),
        reply().encode().unwrap(),
        Frame::Data { seq: 1, bytes: Bytes::from_static(b"abcdef") }.encode().unwrap(),
        Frame::abort("gone").encode().unwrap(),
    ];
    let mut refused = 0;
    for n in 0..INPUTS {
        let message = spoil(&mut rng, &sources[n % sources.len()]);
        let call = CallRequest::decode(message.clone());
        let reply = CallReply::decode(message.clone());
        let frame = Frame::decode(message.clone());
        assert!([call.is_ok(), reply.is_ok(), frame.is_ok()].into_iter().filter(|ok| *ok).count() <= 1);
        // What is accepted has one form: it encodes to the bytes that it was read from.
        let again = match (call, reply, frame) {
            (Ok(call), _, _) => call.encode(),
            (_, Ok(reply), _) => reply.encode(),
            (_, _, Ok(frame)) => frame.encode(),
            _ => {
                refused += 1;
                continue;
            }
        };
        assert_eq!(again.unwrap(), message);
    }
    assert!(
        refused > INPUTS / 4 && refused < INPUTS,
        "{refused} refused: the test spoils too little or too much"
    );
}

#[test]
fn binary_messages_share_the_received_buffer() {
    let message = call(CallBody::Whole(Bytes::from(vec![7; 1000]))).encode().unwrap();
    let range = message.as_ptr_range();
    let CallBody::Whole(body) = CallRequest::decode(message).unwrap().body else { panic!("not whole") };
    assert!(range.contains(&body.as_ptr()));
}

#[test]
fn fields_over_their_bound_are_refused_on_both_sides() {
    let large = Bytes::from(vec![0; limits::INLINE_BODY_MAX_BYTES + 1]);
    assert!(matches!(
        call(CallBody::Whole(large)).encode(),
        Err(WireError::TooLarge { field: "the body", .. })
    ));
    let exact = Bytes::from(vec![0; limits::INLINE_BODY_MAX_BYTES]);
    let message = call(CallBody::Whole(exact)).encode().unwrap();
    assert!(CallRequest::decode(message).is_ok());
    assert!(matches!(CallReply::decode(Bytes::from_static(&[0xCC, 9, 2])), Err(WireError::Version(9))));
    assert_eq!(CallReply::decode(Bytes::from_static(b"{}")), Err(WireError::Magic));
}

#[test]
fn bad_envelopes_name_the_header_and_the_reason() {
    let subject = format!("cardcage.task.orders.v2.fulfil.p5.{ID}");
    let good = [(header::VERSION, "2.3.1"), (header::ENQUEUED_AT, "2026-01-31T12:00:00Z")];
    let decode = |headers: &[(&str, &str)]| {
        TaskEnvelope::decode(&Subjects::default(), &subject, headers.iter().copied(), Bytes::new())
    };
    assert!(decode(&good).is_ok());
    let bad = [
        (header::TASK_ID, "01890a5d-ac96-774b-bcce-b302099a8058"),
        (header::PLUGIN, "payments"),
        (header::TASK, "refund"),
        (header::ENVELOPE_VERSION, "2"),
        (header::ATTEMPT, "0"),
        (header::ATTEMPT, "-1"),
        (header::ACCEPT_BY, "soon"),
        (header::EXPIRES_AT, "1969-01-01T00:00:00Z"),
        (header::ROOT_ID, "x"),
        (header::PARENT_ID, ""),
        (header::IDEMPOTENCY_KEY, ""),
        (header::TRACEPARENT, "a\r\nb"),
        (header::VERSION, "2.3.1"),
    ];
    for (name, value) in bad {
        let error = decode(&[good[0], good[1], (name, value)]).unwrap_err();
        assert!(matches!(error, EnvelopeError::Header { name: n, .. } if n == name), "{name}: {error}");
        assert!(error.to_string().contains(name));
    }
    assert!(matches!(decode(&[good[0]]), Err(EnvelopeError::Header { name: header::ENQUEUED_AT, .. })));
    let long = "x".repeat(limits::ENVELOPE_HEADERS_MAX_BYTES);
    assert!(matches!(decode(&[("Other", &long)]), Err(EnvelopeError::HeadersTooLarge { .. })));
    let body = Bytes::from(vec![0; limits::TASK_BODY_MAX_BYTES + 1]);
    let result = TaskEnvelope::decode(&Subjects::default(), &subject, good, body);
    assert!(matches!(result, Err(EnvelopeError::BodyTooLarge { .. })));
}
