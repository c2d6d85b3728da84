//! Calls of routes.

use std::sync::atomic::Ordering;

use plugin_api::abi::{code, headers};
use serde_json::json;

use super::host::{Body, Held, Started, none, wait_logged, wait_polled_and_left};
use super::plugin::{DROPPED, Good};

fn started() -> Started {
    Started::new::<Good>(&json!({}))
}

/// The one answer, and one return of the token.
#[track_caller]
fn answer(held: &Held) -> (u16, u32, String) {
    assert_eq!((held.replies.len(), held.releases), (1, 1));
    let reply = &held.replies[0];
    (reply.status, reply.failure, reply.body.to_text().into_owned())
}

#[test]
fn call_is_answered_once_and_its_token_given_back_once() {
    let started = started();
    let call = started.call("GET", "/fine?x=1", none());
    let id = call.id();
    let held = call.end();
    assert_eq!(answer(&held), (200, 0, format!("{:02x}", id[15])));
    let reply = &held.replies[0];
    assert_eq!(headers::get(reply.headers.as_slice(), "x-fine"), Some(&b"yes"[..]));
    assert_eq!((reply.streaming, held.ended), (0, None), "what is there already goes with its head");
    wait_polled_and_left(id);
    let event = wait_logged("fine was called");
    assert_eq!(event["work"]["route"], "GET /fine", "without the query");
}

#[test]
fn handlers_panic_is_an_answer_and_never_unwinds_into_the_host() {
    let started = started();
    for _ in 0..100 {
        let held = started.call("GET", "/panic", none()).end();
        assert_eq!(answer(&held), (0, code::PANICKED, "the handler panicked".to_owned()));
    }
    assert_eq!(wait_logged("the handler panicked")["message"], "plugin code panicked");
}

#[test]
fn cancelled_handler_is_dropped_and_answers_nothing_even_where_its_destructor_panics() {
    let started = started();
    let before = DROPPED.load(Ordering::SeqCst);
    let call = started.call("GET", "/wait", none());
    wait_logged("waiting for ever");
    call.cancel();
    let held = call.end();
    assert_eq!((held.replies.len(), held.releases), (0, 1));
    assert_eq!(DROPPED.load(Ordering::SeqCst), before + 1);
    assert_eq!(answer(&started.call("GET", "/fine", none()).end()).0, 200, "the runtime lives");
}

#[test]
fn what_the_plugin_has_no_route_for_is_its_own_404_and_405() {
    let started = started();
    assert_eq!(answer(&started.call("GET", "/nowhere", none()).end()).0, 404);
    assert_eq!(answer(&started.call("DELETE", "/fine", none()).end()).0, 405);
}

#[test]
fn head_that_cannot_be_read_is_rejected() {
    let started = started();
    let mut cut = Vec::new();
    headers::push(&mut cut, headers::METHOD, b"GET");
    cut.truncate(cut.len() - 1);
    let pairs = |pairs: &[(&str, &[u8])]| {
        let mut block = Vec::new();
        pairs.iter().for_each(|(name, value)| headers::push(&mut block, name, value));
        block
    };
    let blocks = [
        cut,
        vec![0xff; 40],
        pairs(&[(headers::METHOD, b"G T")]),
        pairs(&[(headers::PATH, b"\xff\xff")]),
        pairs(&[("bad name", b"x")]),
        pairs(&[("x-split", b"a\r\nb")]),
    ];
    for block in blocks {
        let held = started.call_with(block, none()).end();
        let (status, failure, _) = answer(&held);
        assert_eq!((status, failure), (0, code::REJECTED));
    }
}

#[test]
fn bodies_stream_in_both_directions_with_pauses() {
    let started = started();
    let pieces: Vec<Vec<u8>> = (0..50_u8).flat_map(|n| [vec![n; 1000], Vec::new()]).collect();
    let sent: Vec<u8> = pieces.concat();
    let body = Body::Stream(Held { pieces: pieces.into(), not_ready: 5, ..Held::default() });
    let held = started.call("POST", "/back", body).end();
    assert_eq!((held.replies.len(), held.releases), (1, 1));
    let reply = &held.replies[0];
    assert_eq!((reply.status, reply.streaming), (200, 1));
    assert_eq!([reply.body.as_slice(), &held.pushed].concat(), sent);
    assert_eq!(held.ended.as_deref(), Some(""), "ended well");
}

#[test]
fn whole_body_of_a_megabyte_arrives() {
    let held = started().call("POST", "/size", Body::Whole(vec![7; 1 << 20])).end();
    assert_eq!(answer(&held), (200, 0, (1 << 20).to_string()));
}

#[test]
fn request_body_that_breaks_is_an_error_of_the_caller_or_breaks_the_reply() {
    let started = started();
    let broken = || Body::Stream(Held { pieces: [vec![1; 10]].into(), breaks: true, ..Held::default() });
    let read = started.call("POST", "/size", broken()).end();
    assert_eq!(answer(&read).0, 400);
    let streamed = started.call("POST", "/back", broken()).end();
    assert!(streamed.ended.is_some_and(|text| text.contains("ended early")), "the reply breaks too");
}

#[test]
fn many_calls_at_once_are_all_answered() {
    let started = started();
    let calls: Vec<_> = (0..500).map(|_| started.call("GET", "/fine", none())).collect();
    for call in calls {
        let id = call.id();
        assert_eq!(answer(&call.end()).2, format!("{:02x}", id[15]));
    }
}
