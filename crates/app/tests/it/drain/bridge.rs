//! A bridge between a sender and a receiver that fails.

use super::{
    peer::{Answer, Peer},
    *,
};
use crate::serving::{Reply, Serving};

/// The smallest request there is: no log record at all, which is a valid one.
const EMPTY: &[u8] = b"";

fn bridge(sandbox: &Sandbox, url: &str) -> Serving {
    let args = [
        "events",
        "bridge",
        "--listen",
        "127.0.0.1:0",
        "--forward-url",
        url,
    ];
    Serving::start_with(sandbox, &args, &[])
}

fn send(bridge: &Serving) -> Reply {
    bridge.post("/v1/logs", "application/x-protobuf", EMPTY)
}

/// Proves: EVT-7
#[test]
fn the_sender_hears_yes_only_from_the_receiver() {
    let sandbox = Sandbox::new();
    let peer = Peer::new(|_| Answer::Accept);
    let bridge = bridge(&sandbox, &peer.url());
    let check = |answer: Answer, status: u16| {
        let given = answer.clone();
        peer.answers(move |_| given.clone());
        assert_eq!(send(&bridge).status, status, "{answer:?}");
    };
    check(Answer::Accept, 200);
    check(Answer::Refuse(0), 200);
    for status in [400, 413, 415, 422, 429] {
        check(Answer::Status(status, vec![]), status);
    }
    // Nothing of this is the sender's fault, and none of it may make the sender drop what it has.
    for status in [301, 401, 403, 404, 500, 502, 503, 504] {
        check(Answer::Status(status, vec![("location", "/")]), 503);
    }
    check(Answer::HangUp, 503);
    assert!(!sandbox.data_dir().exists(), "a bridge keeps nothing");
    drop(peer);
    assert_eq!(send(&bridge).status, 503, "nobody is there");
    assert_eq!(bridge.stop(), 0);
}

/// Proves: EVT-7
#[test]
fn a_partial_success_and_a_wish_for_time_are_passed_through() {
    let sandbox = Sandbox::new();
    let peer = Peer::new(|_| Answer::Refuse(3));
    let bridge = bridge(&sandbox, &peer.url());
    let reply = send(&bridge);
    assert_eq!(reply.status, 200);
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(body.contains("unfit"), "{body}");
    for status in [429, 503] {
        peer.answers(move |_| Answer::Status(status, vec![("retry-after", "17")]));
        let reply = send(&bridge);
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("retry-after"), Some("17"));
    }
    let request = &peer.requests()[0];
    assert_eq!(request.path, "/v1/logs");
    assert_eq!(
        request.header("content-type"),
        Some("application/x-protobuf")
    );
}
