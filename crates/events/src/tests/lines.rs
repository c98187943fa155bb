//! Events as lines of JSON, both ways.

use wal::{Generation, JournalId, Lsn};
use world::Timestamp;

use crate::{
    Ack, Class, Event, EventId, NewEvent, SpanId, TraceId,
    lines::{self, Defaults, parse, parse_kept},
};

const DEFAULTS: Defaults<'_> = Defaults {
    source: Some("here"),
    class: Class::Other,
    now: Timestamp::from_nanos(1),
    is_relay: false,
};

fn kept(body: &str) -> Event {
    Event {
        id: EventId {
            journal: JournalId([0xAB; 16]),
            generation: Generation(2),
            lsn: Lsn::new(42),
        },
        received: Timestamp::from_nanos(1_700_000_000_123_456_789),
        event: NewEvent {
            producer_id: Some("p\"\u{1}1".to_owned()),
            time: Timestamp::from_nanos(1_600_000_000_000_000_001),
            source: "söurce\n".to_owned(),
            class: Class::Decision,
            trace: Some(TraceId([0x0F; 16])),
            span: Some(SpanId([0xF0; 8])),
            body: body.to_owned(),
        },
    }
}

#[test]
fn an_event_is_one_line_and_comes_back_whole() {
    for body in [
        r#"{"b":1,"a":[1.50,12345678901234567890123,"\u00fc"]}"#,
        "null",
        r#""text""#,
    ] {
        let event = kept(body);
        let mut line = String::new();
        lines::push(&mut line, &event);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(parse_kept(line.as_bytes()), Ok(event.clone()));
        let mut new = String::new();
        lines::push_new(&mut new, &event.event);
        assert_eq!(parse(new.as_bytes(), &DEFAULTS), Ok(event.event));
    }
}

#[test]
fn a_body_of_several_lines_goes_out_on_one() {
    let mut line = String::new();
    lines::push(&mut line, &kept("{\n  \"a\":\r\n 1\n}"));
    assert_eq!(line.matches(['\n', '\r']).count(), 1, "{line}");
    assert_eq!(
        parse_kept(line.as_bytes()).unwrap().event.body,
        "{   \"a\":   1 }"
    );
}

#[test]
fn a_line_says_what_it_wants_and_gets_the_rest() {
    let event = parse(br#"{"body": {"x": 1.0} }"#, &DEFAULTS).unwrap();
    let expected = NewEvent {
        producer_id: None,
        time: Timestamp::from_nanos(1),
        source: "here".to_owned(),
        class: Class::Other,
        trace: None,
        span: None,
        body: r#"{"x": 1.0}"#.to_owned(),
    };
    assert_eq!(event, expected);
    let event = parse(
        br#"{"time":"1970-01-01T02:00:00.5+01:00","class":"error","body":null}"#,
        &DEFAULTS,
    )
    .unwrap();
    assert_eq!(event.time, Timestamp::from_nanos(3_600_500_000_000));
    assert_eq!((event.class, event.body.as_str()), (Class::Error, "null"));
}

#[test]
fn what_a_line_has_too_much_too_little_or_wrong_is_named() {
    for (line, field) in [
        ("", "line"),
        ("[]", "line"),
        // Fields by their order are no way to write an event.
        (
            r#"[null,null,null,"press","other",null,null,null,1]"#,
            "line",
        ),
        (r#"{"body":1"#, "line"),
        (r#"{"body":1,"body":2}"#, "line"),
        (r#"{"body":1,"severity":"high"}"#, "line"),
        (r#"{"body":1} {"body":2}"#, "line"),
        (r#"{}"#, "body"),
        (r#"{"body":1e999}"#, "body"),
        (r#"{"body":1,"source":""}"#, "source"),
        (r#"{"body":1,"class":"Error"}"#, "class"),
        (r#"{"body":1,"time":"yesterday"}"#, "time"),
        (r#"{"body":1,"time":"1969-12-31T23:59:59Z"}"#, "time"),
        (r#"{"body":1,"time":"2999-01-01T00:00:00Z"}"#, "time"),
        (r#"{"body":1,"trace":"12"}"#, "trace"),
        (r#"{"body":1,"span":"zzzzzzzzzzzzzzzz"}"#, "span"),
        (r#"{"body":1,"producer_id":""}"#, "producer_id"),
    ] {
        let unfit = parse(line.as_bytes(), &DEFAULTS).expect_err(line);
        assert_eq!(unfit.field, field, "{line}: {unfit}");
    }
    assert_eq!(
        parse(b"{\"body\":\"\xff\"}", &DEFAULTS).unwrap_err().field,
        "line"
    );
    let none = Defaults {
        source: None,
        ..DEFAULTS
    };
    assert_eq!(parse(br#"{"body":1}"#, &none).unwrap_err().field, "source");
    let long = vec![b' '; lines::LINE_LEN_MAX + 1];
    assert_eq!(parse(&long, &DEFAULTS).unwrap_err().field, "line");
}

#[test]
fn an_event_of_another_log_keeps_its_producers_id_or_else_gets_the_one_it_has_there() {
    let relay = Defaults {
        is_relay: true,
        ..DEFAULTS
    };
    let mut event = kept("1");
    let mut line = String::new();
    lines::push(&mut line, &event);
    assert_eq!(
        parse(line.as_bytes(), &relay).unwrap().producer_id,
        event.event.producer_id
    );
    event.event.producer_id = None;
    line.clear();
    lines::push(&mut line, &event);
    assert_eq!(
        parse(line.as_bytes(), &relay).unwrap().producer_id,
        Some(event.id.to_string())
    );
    assert_eq!(parse(line.as_bytes(), &DEFAULTS).unwrap().producer_id, None);
}

#[test]
fn an_acknowledgement_says_where_the_event_is() {
    let ack = Ack {
        id: kept("1").id,
        is_duplicate: true,
    };
    let expected = r#"{"id":"abababababababababababababababab:2:42","journal":"abababababababababababababababab","generation":2,"lsn":42,"duplicate":true}"#;
    assert_eq!(ack.to_string(), expected);
}
