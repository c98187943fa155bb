//! Where a page of some hosts' changes ends, and what that tells of the others.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

const ALL: [&str; 6] = ["a", "c", "c.d", "e", "m", "z"];
const OWN: [&str; 2] = ["c", "m"];
/// Several times what one page looks at.
const MOMENTS: u64 = 30;

/// Every host has a change at each moment, but for the asker's own: those are few, so that pages end between
/// them, before, at and after each.
fn is_there(host: &str, at: u64) -> bool {
    !OWN.contains(&host) || at % 11 == host.len() as u64 || at.is_multiple_of(13)
}

/// Places that no clock would give: many hosts at the same moment.
fn crowded(place: &Place) -> Ledger {
    let (ledger, store) = place.open();
    let scan = place.scan("model", &[("a", Outcome::Pass)]);
    let model = ledger.apply(&scan, &Heard::default()).unwrap();
    let model = encode(&model.changes[0]);
    let tables = &ledger.tables;
    let mut transaction = store.begin().unwrap();
    for at in 1..=MOMENTS {
        for host in ALL.into_iter().filter(|host| is_there(host, at)) {
            let place = index::Place {
                at,
                host: host.to_owned(),
                scan: at,
            };
            let change = row::change_key(host, "a", at);
            transaction.put(tables.changes, &change, &model).unwrap();
            let rules = encode(&["a"]);
            transaction.put(tables.index, &place.key(), &rules).unwrap();
        }
    }
    transaction.commit().unwrap();
    ledger
}

fn place_of(cursor: &Cursor) -> index::Place {
    let bytes = URL_SAFE_NO_PAD.decode(cursor.to_string()).unwrap();
    index::Place::of_key(&bytes[4..]).unwrap()
}

/// A page that ended at what it looked at, and not at a row, had the name of a host in its cursor that the
/// asker may not see: anybody can decode it.
/// Proves: SVC-6
#[test]
fn a_page_of_some_hosts_ends_at_no_name_of_another_and_neither_skips_nor_repeats() {
    let place = Place::new();
    let ledger = crowded(&place);
    let filter = Filter {
        hosts: Some(Arc::new(OWN.map(str::to_owned).into())),
        ..Filter::default()
    };
    let wanted = (1..=MOMENTS).flat_map(|at| OWN.map(|host| (at, host.to_owned())));
    let wanted: Vec<(u64, String)> = wanted.filter(|(at, host)| is_there(host, *at)).collect();
    assert!(wanted.len() > 4);
    for order in [Order::Ascending, Order::Descending] {
        for limit in [1, 2, 3, 7, 1000] {
            let (mut found, mut after, mut short) = (Vec::new(), None, 0);
            loop {
                let page = ledger.changes(&filter, order, after.as_ref(), limit);
                let page = page.unwrap();
                found.extend(page.rows.iter().map(|entry| {
                    let place = place_of(&entry.cursor);
                    assert_eq!(place.host, entry.host);
                    (place.at, place.host)
                }));
                let Some(next) = page.next else { break };
                let named = place_of(&next).host;
                assert!(named.is_empty() || OWN.contains(&&named[..]), "{named}");
                short += usize::from(page.rows.len() < limit);
                after = Some(next.to_string().parse().unwrap());
            }
            if order == Order::Descending {
                found.reverse();
            }
            assert_eq!(found, wanted, "{order:?} by {limit}");
            assert!(short > 0, "{order:?} by {limit}: {short} pages ended short");
        }
    }
}
