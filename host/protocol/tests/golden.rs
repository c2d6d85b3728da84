//! What was written by earlier versions stays readable, and what is written today does not change by accident.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may; clippy.toml reaches only what stands inside a test function"
)]

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use cardcage_protocol::{
    CallBody, CallId, CallReply, CallRequest, Cause, FollowUp, Frame, ReplyKind, State, Subjects,
    TaskEnvelope, TaskRecord, Text, Timestamp,
};

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn decode_envelope(text: &str) -> TaskEnvelope {
    let (head, body) = text.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let subject = lines.next().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let body = Bytes::copy_from_slice(body.trim_end().as_bytes());
    TaskEnvelope::decode(&Subjects::default(), subject, headers, body).unwrap()
}

#[test]
fn the_full_envelope_of_version_1_decodes_and_encodes_to_itself() {
    let text = golden("envelope-v1-full.txt");
    let envelope = decode_envelope(&text);
    assert_eq!(envelope.accept_by, Some("2026-01-31T12:00:02Z".parse().unwrap()));
    assert_eq!(envelope.idempotency_key.as_deref(), Some("evt_1NG8Du2eZvKYlo2C"));
    assert_eq!(envelope.message_id(), "01890a5d-ac96-774b-bcce-b302099a8057.1");
    let mut again = Subjects::default().task(&envelope.address()) + "\n";
    for (name, value) in envelope.headers() {
        writeln!(again, "{name}: {value}").unwrap();
    }
    writeln!(again, "\n{}", std::str::from_utf8(&envelope.body).unwrap()).unwrap();
    assert_eq!(again, text);
}

#[test]
fn the_least_envelope_of_version_1_decodes_with_defaults() {
    let envelope = decode_envelope(&golden("envelope-v1-least.txt"));
    assert_eq!((envelope.attempt, envelope.root_id), (1, envelope.id));
    assert_eq!((envelope.accept_by, envelope.parent_id, envelope.schema), (None, None, None));
}

#[test]
fn records_of_version_1_decode_and_encode_to_themselves() {
    for name in ["failed", "succeeded", "children", "exhausted"] {
        let name = format!("record-v1-{name}.json");
        let text = golden(&name);
        let mut record = TaskRecord::decode(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), text.trim_end(), "{name}");
    }
    let failed = TaskRecord::decode(golden("record-v1-failed.json").as_bytes()).unwrap();
    assert_eq!(failed.state, State::Failed);
    assert_eq!(failed.attempts[0].cause, Some(Cause::Panic));
    assert!(matches!(failed.follow_up[1], FollowUp::DeadLetter { .. }));
}

#[test]
fn records_of_a_newer_host_are_readable() {
    let text = golden("record-v1-failed.json").replace("\"panic\"", "\"eaten by a bear\"").replacen(
        "{\"v\":1",
        "{\"field_of_tomorrow\":{},\"v\":1",
        1,
    );
    let record = TaskRecord::decode(text.as_bytes()).unwrap();
    assert_eq!(record.attempts[0].cause, Some(Cause::Unknown));
    let owed =
        golden("record-v1-children.json").replace("{\"kind\":\"children\"}", "{\"kind\":\"choir\",\"of\":3}");
    assert_eq!(TaskRecord::decode(owed.as_bytes()).unwrap().follow_up, [FollowUp::Unknown]);
}

#[test]
fn calls_replies_and_frames_of_version_1_keep_their_bytes() {
    let call = CallRequest {
        call_id: CallId::from_bytes([1; 16]),
        deadline_unix_ms: Timestamp::from_unix_ms(1_769_860_800_000).unix_ms(),
        route: Text::from("call"),
        request_id: [2; 16],
        caller_instance: Text::from("api-1f00ba12"),
        header_block: Bytes::from_static(&[9, 8, 7]),
        body: CallBody::Whole(Bytes::from_static(b"{}")),
        ext: Bytes::new(),
    };
    let mut reply = CallReply::bare(ReplyKind::Refused(Text::from("worker_busy")), "worker-1f00ba12");
    reply.body = CallBody::Stream;
    let messages = [
        ("call", call.encode().unwrap()),
        ("reply", reply.encode().unwrap()),
        ("data", Frame::Data { seq: 7, bytes: Bytes::from_static(b"abc") }.encode().unwrap()),
        ("end", Frame::End { seq: 8 }.encode().unwrap()),
        ("abort", Frame::abort("gone").encode().unwrap()),
        ("credit", Frame::Credit { bytes: 65536 }.encode().unwrap()),
    ];
    let mut text = String::new();
    for (name, bytes) in &messages {
        writeln!(text, "{name} {}", hex::encode(bytes)).unwrap();
    }
    assert_eq!(text, golden("binary-v1.txt"));
    assert_eq!(CallRequest::decode(messages[0].1.clone()).unwrap(), call);
    assert_eq!(CallReply::decode(messages[1].1.clone()).unwrap(), reply);
}
