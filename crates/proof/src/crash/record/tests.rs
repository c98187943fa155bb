use serde_json::json;

use super::*;

/// A scan of one host with the verdicts of three rules, `p` for pass and `f` for fail.
fn report(id: &str, verdicts: &str) -> Report {
    let names = ["a", "b", "c"];
    let rows: Vec<Value> = names
        .iter()
        .zip(verdicts.chars())
        .map(|(rule, letter)| {
            let verdict = if letter == 'p' { "pass" } else { "fail" };
            json!({"rule": rule, "severity": "high", "verdict": verdict, "reason": "x",
                   "evidence": format!("{rule}{letter}")})
        })
        .collect();
    let count = |letter| verdicts.chars().filter(|it| *it == letter).count();
    serde_json::from_value(json!({
        "scan_id": id, "host": "press-3", "started": "s", "finished": id,
        "summary": {"pass": count('p'), "fail": count('f'), "not_applicable": 0,
                    "not_assessed": 0, "error": 0, "score": 50.0},
        "verdicts": rows,
    }))
    .unwrap()
}

/// A record of scans `1`, `2`, … with these verdicts.
fn record(scans: &[&str]) -> Record {
    let mut record = Record::default();
    for (id, verdicts) in (1..).zip(scans) {
        let report = report(&id.to_string(), verdicts);
        let attempt = Attempt::Acknowledged(Arc::new(report.clone()));
        let settled = record.settle(&attempt, Some(report), id.to_string());
        assert_eq!(settled, Ok(Landed::Wholly));
    }
    record
}

/// Settles an attempt that would record `fpp` after scans `ppp` and `ppf`.
fn check(attempt: &Attempt, status: Option<Report>, expected: Option<Landed>) {
    let mut record = record(&["ppp", "ppf"]);
    let count = record.scans().len();
    let settled = record.settle(attempt, status.clone(), "then".to_owned());
    assert_eq!(
        settled.as_ref().ok(),
        expected.as_ref(),
        "{status:?}: {settled:?}"
    );
    let grown = usize::from(expected == Some(Landed::Wholly));
    assert_eq!(record.scans().len(), count + grown);
}

fn attempts() -> [Attempt; 3] {
    [
        Attempt::Acknowledged(Arc::new(report("3", "fpp"))),
        Attempt::Untold(Arc::new(report("elsewhere", "fpp"))),
        Attempt::Unseen,
    ]
}

#[test]
fn a_scan_that_was_not_told_is_there_or_not() {
    let [_, untold, unseen] = attempts();
    for attempt in [&untold, &unseen] {
        check(attempt, Some(report("2", "ppf")), Some(Landed::NotAtAll));
        check(attempt, Some(report("3", "fpp")), Some(Landed::Wholly));
    }
}

#[test]
fn a_scan_that_was_told_must_be_there() {
    let [told, ..] = attempts();
    check(&told, Some(report("3", "fpp")), Some(Landed::Wholly));
    check(&told, Some(report("2", "ppf")), None);
    check(&told, Some(report("4", "fpp")), None);
    check(&told, None, None);
}

#[test]
fn a_torn_status_is_found() {
    for attempt in attempts() {
        // The new scan's row with verdicts of the old one, in part or as a whole.
        let mut torn = report("3", "fpp");
        torn.verdicts[2] = report("2", "ppf").verdicts[2].clone();
        check(&attempt, Some(torn), None);
        let mut swapped = report("3", "fpp");
        swapped.verdicts = report("1", "ppp").verdicts;
        check(&attempt, Some(swapped), None);
        // The old scan's row with verdicts of the new one.
        let mut early = report("3", "fpp");
        early.scan_id = "2".to_owned();
        check(&attempt, Some(early), None);
        // A verdict fewer, and nothing at all.
        let mut fewer = report("3", "fpp");
        fewer.verdicts.pop();
        check(&attempt, Some(fewer), None);
        check(&attempt, None, None);
        // The scan before the last one.
        check(&attempt, Some(report("1", "ppp")), None);
    }
}

#[test]
fn other_evidence_under_the_same_verdict_is_found() {
    let [told, untold, _] = attempts();
    let mut other = report("3", "fpp");
    other.verdicts[1].evidence = "other".to_owned();
    check(&told, Some(other.clone()), None);
    check(&untold, Some(other), None);
}

#[test]
fn a_past_moment_answers_exactly_what_was_there() {
    let record = record(&["ppp", "ppf"]);
    let first = record.scans().first();
    assert_eq!(Record::compare(first, Some(&report("1", "ppp"))), Ok(()));
    assert_eq!(Record::compare(None, None), Ok(()));
    let mut doctored = report("1", "ppp");
    doctored.verdicts[0].evidence = "other".to_owned();
    for wrong in [Some(report("2", "ppf")), Some(doctored), None] {
        assert!(Record::compare(first, wrong.as_ref()).is_err(), "{wrong:?}");
    }
    assert!(Record::compare(None, Some(&report("1", "ppp"))).is_err());
}

#[test]
fn history_has_one_row_for_each_flip_and_no_other() {
    let record = record(&["ppp", "fpp", "fpf", "ppf"]);
    let rows = record.flips("a");
    let ids: Vec<&str> = rows.iter().map(|row| row.scan_id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "4"]);
    assert_eq!(record.compare_history("a", &rows), Ok(()));
    let mut twice = rows.clone();
    twice.push(rows[2].clone());
    let mut other = rows.clone();
    other[1].evidence = "other".to_owned();
    for wrong in [&rows[..2], &rows[1..], &twice, &other] {
        assert!(record.compare_history("a", wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_scan_that_tells_other_changes_is_found() {
    let record = record(&["ppp", "ppf"]);
    let mut told = report("3", "fpf");
    for (changes, sound) in [
        (json!([{"rule": "a", "from": "pass", "to": "fail"}]), true),
        (json!([]), false),
        (
            json!([{"rule": "a", "from": "pass", "to": "fail"},
                {"rule": "c", "from": "pass", "to": "fail"}]),
            false,
        ),
        (json!([{"rule": "a", "from": null, "to": "fail"}]), false),
    ] {
        told.changes = serde_json::from_value(changes.clone()).unwrap();
        assert_eq!(record.compare_changes(&told).is_ok(), sound, "{changes}");
    }
}

#[test]
fn half_a_document_acknowledges_nothing() {
    let whole =
        br#"{"scan_id":"1","host":"h","started":"s","finished":"f","summary":{},"verdicts":[]}"#;
    assert!(Report::in_output(whole).is_some());
    for len in 0..whole.len() {
        assert!(Report::in_output(&whole[..len]).is_none(), "{len}");
    }
    let mut more = whole.to_vec();
    more.extend_from_slice(b"\n{\"scan_id\":");
    assert!(Report::in_output(&more).is_some(), "`up` goes on");
}
