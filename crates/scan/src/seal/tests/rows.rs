//! Rows of a store that somebody changed behind our back.

use store::{TableId, Transaction};

use super::*;

/// One change to the tables, in one transaction.
type Edit = fn(&row::Tables, &mut Transaction);

fn tampered(what: &str, edit: Edit) -> String {
    let place = Place::with_history();
    place.verify(Kind::Ledger).unwrap();
    let tables = row::Tables::of(&place.store).unwrap();
    let mut transaction = place.store.begin().unwrap();
    edit(&tables, &mut transaction);
    transaction.commit().unwrap();
    place.verify(Kind::Ledger).expect_err(what)
}

fn replace(work: &mut Transaction, table: TableId, key: &[u8], from: &str, to: &str) {
    let value = work.get(table, key).unwrap().unwrap();
    let text = str::from_utf8(&value).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    let text = text.replacen(from, to, 1);
    work.put(table, key, text.as_bytes()).unwrap();
}

fn scan_id(tables: &row::Tables, work: &mut Transaction, host: &str, number: u64) -> String {
    let link = work
        .get(tables.links, &row::link_key(host, number))
        .unwrap()
        .unwrap();
    let link: serde_json::Value = serde_json::from_slice(&link).unwrap();
    link["scan_id"].as_str().unwrap().to_owned()
}

const EDITED: [(&str, &str, Edit); 9] = [
    (
        "host `web`, change 4: its link",
        "a verdict in a change",
        |tables, work| {
            let key = row::change_key("web", "a", 3);
            replace(
                work,
                tables.changes,
                &key,
                r#""to":"fail""#,
                r#""to":"pass""#,
            );
        },
    ),
    (
        "host `web`, change 1: its link",
        "the reason of a change",
        |tables, work| {
            let key = row::change_key("web", "a", 1);
            replace(work, tables.changes, &key, "os.id is", "os.id was");
        },
    ),
    (
        "host `web`, change 1: its evidence",
        "the evidence of a change",
        |tables, work| {
            let key = row::change_key("web", "a", 1);
            replace(
                work,
                tables.changes,
                &key,
                r#""evidence":""#,
                r#""evidence":"0"#,
            );
        },
    ),
    (
        "host `db`, change 2: its link",
        "the rule of a change",
        |tables, work| {
            let key = row::change_key("db", "b", 1);
            replace(
                work,
                tables.changes,
                &key,
                r#""rule_digest":"0"#,
                r#""rule_digest":"1"#,
            );
        },
    ),
    (
        "host `web`, scan 2: its link",
        "a count of a scan without changes",
        |tables, work| {
            let id = scan_id(tables, work, "web", 2);
            replace(
                work,
                tables.scans,
                id.as_bytes(),
                r#""pass":2"#,
                r#""pass":3"#,
            );
        },
    ),
    (
        "host `db`, scan 1: its link",
        "when a scan was",
        |tables, work| {
            let id = scan_id(tables, work, "db", 1);
            replace(
                work,
                tables.scans,
                id.as_bytes(),
                r#""finished":17"#,
                r#""finished":16"#,
            );
        },
    ),
    (
        "host `db`, verdict of `b`: it is not what",
        "a present verdict",
        |tables, work| {
            let key = row::key(&[b"db", b"b"]);
            replace(
                work,
                tables.states,
                &key,
                r#""verdict":"pass""#,
                r#""verdict":"fail""#,
            );
        },
    ),
    (
        "host `db`: its verdicts are not",
        "the reason of a present verdict",
        |tables, work| {
            let key = row::key(&[b"db", b"a"]);
            replace(work, tables.states, &key, "os.id is", "os.id was");
        },
    ),
    (
        "verdict of `a`: its times",
        "since when a verdict is",
        |tables, work| {
            let key = row::key(&[b"db", b"a"]);
            replace(
                work,
                tables.states,
                &key,
                r#""changed":17"#,
                r#""changed":16"#,
            );
        },
    ),
];

/// Proves: LED-10
#[test]
fn every_row_that_was_edited_is_found_and_named() {
    for (found, what, edit) in EDITED {
        let why = tampered(what, edit);
        assert!(why.contains(found), "{what}: {why}");
    }
}

const REMOVED_OR_ADDED: [(&str, &str, Edit); 10] = [
    (
        "host `web`, scan 3: its change of `a`",
        "a change",
        |tables, work| {
            work.delete(tables.changes, &row::change_key("web", "a", 3))
                .unwrap();
        },
    ),
    ("host `web`, scan 2: its row", "a scan", |tables, work| {
        let id = scan_id(tables, work, "web", 2);
        work.delete(tables.scans, id.as_bytes()).unwrap();
    }),
    (
        "host `web`, scan 2: the row that finds it",
        "a link",
        |tables, work| {
            work.delete(tables.links, &row::link_key("web", 2)).unwrap();
        },
    ),
    (
        "host `db`: its verdicts are not",
        "a present verdict",
        |tables, work| {
            work.delete(tables.states, &row::key(&[b"db", b"b"]))
                .unwrap();
        },
    ),
    ("host `web`: it has no row", "a host", |tables, work| {
        work.delete(tables.hosts, b"web").unwrap();
    }),
    (
        "host `db`, change 1: its evidence",
        "evidence",
        |tables, work| {
            let key = finding("a", Judged::Pass).evidence_digest;
            work.delete(tables.evidence, key.as_bytes()).unwrap();
        },
    ),
    (
        "its content has another SHA-256",
        "the content of evidence",
        |tables, work| {
            let one = finding("a", Judged::Pass).evidence_digest;
            let other = finding("c", Judged::Fail).evidence_digest;
            let packed = work
                .get(tables.evidence, other.as_bytes())
                .unwrap()
                .unwrap();
            work.put(tables.evidence, one.as_bytes(), &packed).unwrap();
        },
    ),
    (
        "host `db`: it has 4 rows of changes, and its chain 3",
        "a change that nobody made",
        |tables, work| {
            let value = work
                .get(tables.changes, &row::change_key("db", "a", 1))
                .unwrap()
                .unwrap();
            work.put(tables.changes, &row::change_key("db", "a", 9), &value)
                .unwrap();
        },
    ),
    (
        "it is not in the chain of host `db`",
        "a scan that nobody made",
        |tables, work| {
            let id = scan_id(tables, work, "db", 1);
            let value = work.get(tables.scans, id.as_bytes()).unwrap().unwrap();
            work.put(tables.scans, b"another", &value).unwrap();
        },
    ),
    (
        "rows of scans: 1 are from before",
        "an old scan that nobody made",
        |tables, work| {
            let id = scan_id(tables, work, "db", 1);
            replace(
                work,
                tables.scans,
                id.as_bytes(),
                r#""number":1"#,
                r#""number":1"#,
            );
            let value = work.get(tables.scans, id.as_bytes()).unwrap().unwrap();
            let text = str::from_utf8(&value)
                .unwrap()
                .replace(r#""number":1,"#, "");
            work.put(tables.scans, b"another", text.as_bytes()).unwrap();
        },
    ),
];

/// Pages of the fleet are made from these rows alone: a failing rule that is painted over there was
/// sound to verification.
/// Proves: LED-10
#[test]
fn a_row_of_the_fleet_that_says_something_else_than_the_verdicts_is_found() {
    let edits: [(&str, Edit); 5] = [
        ("it is not what the verdicts", |tables, work| {
            let board = work.get(tables.boards, b"web").unwrap().unwrap();
            let text = String::from_utf8(board.to_vec()).unwrap();
            let at = text.find(r#""verdicts":""#).unwrap() + r#""verdicts":""#.len();
            let mut text = text.into_bytes();
            text[at] = b'C';
            work.put(tables.boards, b"web", &text).unwrap();
        }),
        ("it is not what the verdicts", |tables, work| {
            let key = b"web";
            replace(work, tables.boards, key, r#""pass":1"#, r#""pass":2"#);
        }),
        ("it is not readable", |tables, work| {
            work.put(tables.boards, b"db", b"{}").unwrap();
        }),
        ("no scan of its host is known", |tables, work| {
            let board = work.get(tables.boards, b"web").unwrap().unwrap();
            work.put(tables.boards, b"another", &board).unwrap();
        }),
        ("the list of its rules", |tables, work| {
            let board = work.get(tables.boards, b"web").unwrap().unwrap();
            let board: serde_json::Value = serde_json::from_slice(&board).unwrap();
            let list = board["rules"].as_str().unwrap();
            work.put(tables.rules, list.as_bytes(), b"[]").unwrap();
        }),
    ];
    for (found, edit) in edits {
        let why = tampered(found, edit);
        assert!(
            why.contains(found) && why.contains("its row of a fleet"),
            "{found}: {why}"
        );
    }
}

/// The key of the first row of the index of this kind whose key has `part` in it.
fn indexed(tables: &row::Tables, work: &mut Transaction, kind: u8, part: &str) -> Vec<u8> {
    let keys = Keys::prefix(&[kind]);
    let rows = work.range(tables.index, &keys, store::Order::Ascending, 100);
    let mut keys = rows.unwrap().into_iter().map(|(key, _)| key.to_vec());
    let has = |key: &[u8]| key.windows(part.len()).any(|it| it == part.as_bytes());
    keys.find(|key| has(key)).unwrap()
}

/// Moves the changes that this row of their host leads to, as whoever knows the format does.
fn moved_to(tables: &row::Tables, work: &mut Transaction, of_host: &[u8], at: u64) {
    let before = work.get(tables.index, of_host).unwrap().unwrap();
    let place = [b"p", &before[..], &of_host[1..]].concat();
    let rules = work.get(tables.index, &place).unwrap().unwrap();
    let moved = [b"p", &at.to_be_bytes()[..], &of_host[1..]].concat();
    work.delete(tables.index, &place).unwrap();
    work.put(tables.index, &moved, &rules).unwrap();
    work.put(tables.index, of_host, &at.to_be_bytes()).unwrap();
}

/// Hosts and changes are found by these rows alone: a host whose name was taken out was in no score, and a
/// change in no feed and no export, and verification had nothing to say.
/// Proves: LED-10
#[test]
fn a_row_of_the_index_that_hides_or_makes_up_something_is_found() {
    let edits: [(&str, Edit); 10] = [
        ("host `web`: it is not among the names", |tables, work| {
            work.delete(tables.index, b"nweb").unwrap();
        }),
        ("host `db`: it is not among the names", |tables, work| {
            work.delete(tables.index, b"ndb").unwrap();
        }),
        ("host `e`: it is among the names", |tables, work| {
            work.put(tables.index, b"ne", b"{}").unwrap();
        }),
        ("host `web`, changes of scan 1: the feed", |tables, work| {
            let key = indexed(tables, work, b'p', "web");
            work.delete(tables.index, &key).unwrap();
        }),
        ("host `db`, changes of scan 1: the feed", |tables, work| {
            let key = indexed(tables, work, b'p', "db");
            work.put(tables.index, &key, br#"["a"]"#).unwrap();
        }),
        ("host `db`, changes of scan 1: the index", |tables, work| {
            let key = indexed(tables, work, b'h', "db");
            work.delete(tables.index, &key).unwrap();
        }),
        ("host `web`, changes of scan 1: the feed", |tables, work| {
            let (of_host, place) = (
                indexed(tables, work, b'h', "web"),
                indexed(tables, work, b'p', "web"),
            );
            let rules = work.get(tables.index, &place).unwrap().unwrap();
            let mut moved = place.clone();
            // Before the scan that made them.
            moved[1..9].copy_from_slice(&1_u64.to_be_bytes());
            work.delete(tables.index, &place).unwrap();
            work.put(tables.index, &moved, &rules).unwrap();
            work.put(tables.index, &of_host, &moved[1..9]).unwrap();
        }),
        (
            "host `web`, changes of scan 3: their place",
            |tables, work| {
                // Long after everything else: of no page and no export of this century.
                let first = indexed(tables, work, b'h', "web");
                let last = [&first[..first.len() - 8], &3_u64.to_be_bytes()[..]].concat();
                moved_to(tables, work, &last, u64::MAX / 2);
            },
        ),
        (
            "host `web`, changes of scan 3: their place",
            |tables, work| {
                // In the place of the last, which its host's row allows, so that those after it come before it.
                let first = indexed(tables, work, b'h', "web");
                let last = [&first[..first.len() - 8], &3_u64.to_be_bytes()[..]].concat();
                let at = work.get(tables.index, &last).unwrap().unwrap();
                let at = u64::from_be_bytes(at[..].try_into().unwrap());
                moved_to(tables, work, &first, at);
            },
        ),
        ("index of changes: it leads to", |tables, work| {
            let key = indexed(tables, work, b'p', "db");
            work.put(tables.index, &key, br#"["a","b","c"]"#).unwrap();
        }),
    ];
    for (found, edit) in edits {
        let why = tampered(found, edit);
        assert!(why.contains(found), "{found}: {why}");
    }
}

/// Proves: LED-10
#[test]
fn every_row_that_was_removed_or_added_is_found_and_named() {
    for (found, what, edit) in REMOVED_OR_ADDED {
        let why = tampered(what, edit);
        assert!(why.contains(found), "{what}: {why}");
    }
}

/// Whoever can write to the store, but has not the key, puts everything back to an earlier day.
#[test]
fn a_chain_that_was_shortened_with_its_head_is_found_by_the_statements() {
    let why = tampered("a shorter chain", |tables, work| {
        let id = scan_id(tables, work, "db", 1);
        let scan = work.get(tables.scans, id.as_bytes()).unwrap().unwrap();
        let scan: serde_json::Value = serde_json::from_slice(&scan).unwrap();
        let value = work.get(tables.hosts, b"db").unwrap().unwrap();
        let mut host: serde_json::Value = serde_json::from_slice(&value).unwrap();
        host["scans"] = json!(1);
        host["chain"] = json!({ "scans": 1, "changes": 2, "sha256": scan["chain"] });
        work.put(tables.hosts, b"db", host.to_string().as_bytes())
            .unwrap();
        let second = scan_id(tables, work, "db", 2);
        work.delete(tables.scans, second.as_bytes()).unwrap();
        work.delete(tables.links, &row::link_key("db", 2)).unwrap();
        work.delete(tables.changes, &row::change_key("db", "b", 2))
            .unwrap();
    });
    assert!(why.contains("host `db`, scan 2"), "{why}");
}

/// Statements that were removed or edited.
#[test]
fn a_statement_that_is_gone_or_edited_is_found() {
    for (found, from, to) in [
        (
            "statement 2: it is not signed",
            r#""reason":"hourly""#,
            r#""reason":"asked""#,
        ),
        (
            "statement 2: number 2 should come here",
            r#""sequence":2"#,
            r#""sequence":7"#,
        ),
        ("statement 2: it is not there", "", ""),
    ] {
        let place = Place::with_history();
        let table = place.store.table("seal.statement").unwrap();
        let mut transaction = place.store.begin().unwrap();
        if from.is_empty() {
            transaction.delete(table, &2_u64.to_be_bytes()).unwrap();
        } else {
            replace(&mut transaction, table, &2_u64.to_be_bytes(), from, to);
        }
        transaction.commit().unwrap();
        let why = place.verify(Kind::Ledger).expect_err(found);
        let found = found.replace("statement 2: number 2", "statement 7: number 2");
        assert!(why.contains(&found), "{found}: {why}");
    }
}

#[test]
fn a_history_that_began_before_there_were_chains_verifies_and_its_rows_are_covered() {
    let place = Place::new();
    for verdict in [Judged::Pass, Judged::Fail] {
        place.scan("h", &[("a", verdict), ("b", Judged::Pass)]);
    }
    let tables = row::Tables::of(&place.store).unwrap();
    let snapshot = place.store.snapshot().unwrap();
    let mut transaction = place.store.begin().unwrap();
    for table in [tables.hosts, tables.changes, tables.scans] {
        for item in snapshot.range(table, &Keys::all()).unwrap() {
            let (key, value) = item.unwrap();
            let mut value: serde_json::Value = serde_json::from_slice(&value).unwrap();
            for field in ["chain", "number", "verdicts"] {
                value.as_object_mut().unwrap().shift_remove(field);
            }
            let value = value.to_string();
            transaction.put(table, &key, value.as_bytes()).unwrap();
        }
    }
    for number in 1..=2 {
        transaction
            .delete(tables.links, &row::link_key("h", number))
            .unwrap();
    }
    transaction.commit().unwrap();
    place.verify(Kind::Ledger).unwrap();
    place.scan("h", &[("a", Judged::Pass), ("b", Judged::Pass)]);
    place.seal(Reason::Asked);
    place.verify(Kind::Ledger).unwrap();
    let bytes = place.export(&asked(Kind::Ledger), false).unwrap();
    verify(&bytes, Some(&place.key().public())).unwrap();

    let mut transaction = place.store.begin().unwrap();
    let key = row::change_key("h", "a", 2);
    replace(
        &mut transaction,
        tables.changes,
        &key,
        "os.id is",
        "os.id was",
    );
    transaction.commit().unwrap();
    let why = place.verify(Kind::Ledger).unwrap_err();
    assert!(
        why.contains("host `h`: its changes from before its chain"),
        "{why}"
    );
}

/// Only the row of the host says so: everything below it is as it was.
#[test]
fn a_head_that_is_not_the_last_link_is_found() {
    for (from, to) in [
        (r#""sha256":""#, r#""sha256":"0"#),
        (r#""changes":3"#, r#""changes":2"#),
    ] {
        let place = Place::with_history();
        let tables = row::Tables::of(&place.store).unwrap();
        let mut transaction = place.store.begin().unwrap();
        replace(&mut transaction, tables.hosts, b"db", from, to);
        transaction.commit().unwrap();
        let why = place.verify(Kind::Ledger).expect_err(from);
        assert!(
            why.contains("host `db`: its head is not the last link"),
            "{why}"
        );
    }
}
