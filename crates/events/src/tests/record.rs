//! An event through its record, and bytes that are no record.

use proptest::prelude::*;
use world::Timestamp;

use crate::{
    Class, EventId, NewEvent, SpanId, TraceId,
    event::{self, BODY_LEN_MAX, PRODUCER_ID_LEN_MAX, SOURCE_LEN_MAX, decode, encode},
};

fn any_event() -> impl Strategy<Value = NewEvent> {
    (
        prop::option::of("\\PC{1,40}"),
        any::<u64>(),
        "\\PC{1,40}",
        0..Class::ALL.len(),
        prop::option::of(any::<[u8; 16]>()),
        prop::option::of(any::<[u8; 8]>()),
        prop_oneof![
            Just("null".to_owned()),
            "\\PC{0,20}".prop_map(|text| serde_json::Value::from(text).to_string())
        ],
    )
        .prop_map(
            |(producer_id, time, source, class, trace, span, body)| NewEvent {
                producer_id,
                time: Timestamp::from_nanos(time),
                source,
                class: Class::ALL[class],
                trace: trace.map(TraceId),
                span: span.map(SpanId),
                body,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves: EVT-2
    #[test]
    fn everything_that_an_event_has_comes_back(event in any_event(), received in any::<u64>()) {
        let received = Timestamp::from_nanos(received);
        let bytes = encode(&event, received);
        prop_assert_eq!(bytes.len(), crate::record::encoded_len(&event));
        prop_assert_eq!(decode(&bytes), Ok((event, received)));
    }

    #[test]
    fn no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any = decode(&bytes);
    }
}

#[test]
fn a_record_that_is_cut_lengthened_or_changed_in_its_head_is_no_other_event() {
    let event = NewEvent {
        producer_id: Some("p".to_owned()),
        time: Timestamp::from_nanos(7),
        source: "s".to_owned(),
        class: Class::Action,
        trace: Some(TraceId([1; 16])),
        span: Some(SpanId([2; 8])),
        body: "{}".to_owned(),
    };
    let received = Timestamp::from_nanos(9);
    let bytes = encode(&event, received);
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).is_err());
    for at in [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(decode(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

fn check_unfit(change: impl FnOnce(&mut NewEvent), field: &str) {
    let mut event = super::event("1");
    change(&mut event);
    let unfit = event.check().expect_err(field);
    assert_eq!(unfit.field, field, "{unfit}");
}

#[test]
fn each_part_of_an_event_has_a_bound() {
    assert_eq!(super::event("1").check(), Ok(()));
    check_unfit(|event| event.source.clear(), "source");
    check_unfit(
        |event| event.source = "s".repeat(SOURCE_LEN_MAX + 1),
        "source",
    );
    check_unfit(
        |event| event.producer_id = Some(String::new()),
        "producer_id",
    );
    check_unfit(
        |event| event.producer_id = Some("p".repeat(PRODUCER_ID_LEN_MAX + 1)),
        "producer_id",
    );
    check_unfit(
        |event| event.body = format!("\"{}\"", "b".repeat(BODY_LEN_MAX)),
        "body",
    );
    check_unfit(
        |event| event.body = "[".repeat(65) + &"]".repeat(65),
        "body",
    );
    check_unfit(|event| event.body = "no".to_owned(), "body");
    let mut longest = super::event(&format!("\"{}\"", "b".repeat(BODY_LEN_MAX - 2)));
    longest.source = "s".repeat(SOURCE_LEN_MAX);
    longest.producer_id = Some("p".repeat(PRODUCER_ID_LEN_MAX));
    assert_eq!(longest.check(), Ok(()));
    let deepest = "[".repeat(event::BODY_DEPTH_MAX) + &"]".repeat(event::BODY_DEPTH_MAX);
    assert_eq!(super::event(&deepest).check(), Ok(()));
}

#[test]
fn an_id_has_one_spelling() {
    let text = "000102030405060708090a0b0c0d0e0f:3:42";
    let id: EventId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    for wrong in [
        "",
        "000102030405060708090a0b0c0d0e0f:3",
        "000102030405060708090a0b0c0d0e0f:3:42:1",
        "000102030405060708090A0B0C0D0E0F:3:42",
        "000102030405060708090a0b0c0d0e0f:+3:42",
        "000102030405060708090a0b0c0d0e0f:3:042",
        "000102030405060708090a0b0c0d0e0f:4294967296:42",
        "000102030405060708090a0b0c0d0e0f:3:18446744073709551616",
    ] {
        assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
    }
}
