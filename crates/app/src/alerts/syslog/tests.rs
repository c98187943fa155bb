use super::*;
use scan::alert::{HostLabels, Kind, State};

fn event(subject: &str, detail: &str) -> Event {
    Event {
        event: What::Opened,
        alert: 7,
        kind: Kind::FindingCritical,
        severity: Severity::Critical,
        state: State::Open,
        subject: Some(subject.to_owned()),
        detail: detail.to_owned(),
        first: 1_700_000_000_000_000_000,
        last: 1_700_000_060_000_000_000,
        count: 2,
    }
}

fn notice(host: &str, events: Vec<Event>) -> Notice {
    let labels = HostLabels {
        name: host.to_owned(),
        site: "berlin".to_owned(),
        groups: Default::default(),
    };
    let id = "00000000-0000-4000-8000-000000000001".to_owned();
    Notice::new(id, 1_700_000_061_000_000_000, Some(labels), events)
}

fn syslog(payload: Payload) -> Syslog {
    Syslog {
        address: String::new(),
        carrier: Carrier::Udp,
        payload,
        facility: 16,
        node: "watch tower".to_owned(),
        timeout: Duration::from_secs(1),
    }
}

#[test]
fn structured_data_escapes_what_rfc_5424_says_and_nothing_more() {
    let notice = notice(
        r#"a"b\c]d=e|f"#,
        vec![event("sshd", "line\nfeed \"quoted\"")],
    );
    let messages = syslog(Payload::Structured).messages(&notice);
    let process = std::process::id();
    let expected = format!(
        "<130>1 2023-11-14T22:14:21.000Z watch_tower holdfast {process} finding_critical \
         [holdfast@32473 notice=\"00000000-0000-4000-8000-000000000001\" alert=\"7\" \
         event=\"opened\" kind=\"finding_critical\" severity=\"critical\" state=\"open\" \
         count=\"2\" host=\"a\\\"b\\\\c\\]d=e|f\" site=\"berlin\" subject=\"sshd\"] \
         finding_critical: line feed \"quoted\""
    );
    assert_eq!(messages, [expected]);
}

#[test]
fn cef_escapes_the_head_and_the_extension_each_in_its_way() {
    assert_eq!(cef::header("a|b\\c=d\ne"), "a\\|b\\\\c=d e");
    assert_eq!(
        cef::extension("a|b\\c=d\ne\rf\tg"),
        "a|b\\\\c\\=d\\ne\\rf g"
    );
    let notice = notice("a=b", vec![event("x\\y", "2 = 1|0")]);
    let messages = syslog(Payload::Cef).messages(&notice);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "finding_critical - CEF:0|Holdfast|Holdfast|{version}|finding_critical|finding_critical|10|\
         rt=1700000061000 start=1700000000000 end=1700000060000 cnt=2 externalId=7 act=opened \
         outcome=open dhost=a\\=b cs1Label=site cs1=berlin cs2Label=subject cs2=x\\\\y \
         cs3Label=notice cs3=00000000-0000-4000-8000-000000000001 \
         msg=finding_critical: 2 \\= 1|0"
    );
    assert!(
        messages[0].ends_with(&expected),
        "{}\n{expected}",
        messages[0]
    );
}

#[test]
fn what_a_notice_only_counts_is_a_message_of_its_own() {
    let events: Vec<Event> = (0..50).map(|_| event("r", "d")).collect();
    let messages = syslog(Payload::Structured).messages(&notice("h", events));
    assert_eq!(messages.len(), scan::alert::EVENTS_MAX + 1);
    assert!(
        messages
            .last()
            .unwrap()
            .ends_with("more=\"30\"] 30 more alerts")
    );
}

#[test]
fn a_datagram_is_cut_between_characters() {
    assert_eq!(cut("aé", 2), "a");
    assert_eq!(cut("aé", 3), "aé");
    assert_eq!(token("", 5), "-");
    assert_eq!(token("ä b\u{7f}c", 4), "__b_");
}

#[test]
fn octets_are_counted_and_not_characters() {
    let mut written = Vec::new();
    counted(&mut written, &["aé".to_owned(), "b".to_owned()]).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), "3 aé1 b");
}
