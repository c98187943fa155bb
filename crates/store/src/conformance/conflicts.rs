//! Which transactions must not both commit, and which must.

use super::{Subject, begin, conflicts, delete, get, keys_of, other, put, table, transact};
use crate::{Commit, Keys, Order, Store, Transaction};

/// Reads something in a transaction.
type Read<'a> = dyn Fn(&mut Transaction) + 'a;

/// A transaction that reads by `read` and then writes elsewhere, with `change` in between by another.
fn is_refused(
    store: &Store,
    read: &dyn Fn(&mut Transaction),
    change: &dyn Fn() -> Option<Commit>,
) -> bool {
    let mut transaction = begin(store);
    read(&mut transaction);
    change();
    let wrote = transaction.put(other(store), b"result", b"of what was read");
    wrote.expect("a valid write");
    conflicts(transaction)
}

pub(super) fn points(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    put(&store, b"there", b"1");
    let get = |key: &'static [u8]| {
        move |transaction: &mut Transaction| {
            transaction.get(t, key).expect("a sound store");
        }
    };
    let many = |transaction: &mut Transaction| {
        let keys: [(_, &[u8]); 2] = [(t, b"apart"), (t, b"there")];
        transaction.get_many(&keys).expect("a sound store");
    };
    let reads: [(&str, &Read<'_>, &[u8]); 3] = [
        ("a key that is there", &get(b"there"), b"there"),
        ("a key that is not there", &get(b"absent"), b"absent"),
        ("one of many", &many, b"there"),
    ];
    for (what, read, key) in reads {
        let changed = is_refused(&store, read, &|| Some(put(&store, key, b"2")));
        assert!(changed, "{what} was written");
        let changed = is_refused(&store, read, &|| Some(delete(&store, key)));
        assert!(changed, "{what} was deleted");
        put(&store, b"there", b"1");
        delete(&store, b"absent");
    }
    let nobody = is_refused(&store, &get(b"there"), &|| None);
    assert!(!nobody, "nobody changed anything");
    // A change before it began is none.
    put(&store, b"there", b"3");
    assert!(!is_refused(&store, &get(b"there"), &|| None));
}

pub(super) fn ranges(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    for key in [&b"b"[..], b"d", b"f", b"h"] {
        put(&store, key, b"1");
    }
    let range = |keys: Keys, order: Order, limit: usize| {
        move |transaction: &mut Transaction| {
            transaction
                .range(t, &keys, order, limit)
                .expect("a sound store");
        }
    };
    use Order::{Ascending, Descending};
    let all = usize::MAX;
    let inside = Keys::between(b"c", b"g");
    let reads: [(Keys, Order, usize, &[&[u8]]); 6] = [
        (Keys::all(), Ascending, all, &[b"a", b"b", b"e", b"i"]),
        (
            inside.clone(),
            Ascending,
            all,
            &[b"c", b"d", b"e", b"f\xff"],
        ),
        // Ended by its limit it has looked at the gaps before its last row all the same.
        (inside.clone(), Ascending, 1, &[b"c", b"d"]),
        (inside.clone(), Descending, 1, &[b"f", b"f\x01"]),
        (Keys::all(), Ascending, 2, &[b"a", b"b", b"c", b"d"]),
        (Keys::between(b"x", b"z"), Ascending, 1, &[b"x", b"y"]),
    ];
    for (keys, order, limit, changes) in reads {
        let read = range(keys.clone(), order, limit);
        for key in changes {
            let was = get(&store, key);
            let refused = is_refused(&store, &read, &|| Some(put(&store, key, b"2")));
            assert!(refused, "{keys:?} {order:?} {limit}: {key:?} was put");
            let refused = is_refused(&store, &read, &|| Some(delete(&store, key)));
            assert!(refused, "{keys:?} {order:?} {limit}: {key:?} was deleted");
            if let Some(was) = was {
                put(&store, key, &was);
            }
        }
        assert!(!is_refused(&store, &read, &|| None));
    }
}

/// Each reads what the other writes; alone, either leaves one of two.
pub(super) fn skew(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let reads: [&dyn Fn(&mut Transaction); 2] = [
        &|transaction| {
            drop(
                transaction
                    .get_many(&[(t, b"a"), (t, b"b")])
                    .expect("sound"),
            )
        },
        &|transaction| {
            let rows = transaction.range(t, &Keys::all(), Order::Ascending, 10);
            assert_eq!(rows.expect("a sound store").len(), 2);
        },
    ];
    for read in reads {
        put(&store, b"a", b"on call");
        put(&store, b"b", b"on call");
        let (mut one, mut two) = (begin(&store), begin(&store));
        read(&mut one);
        read(&mut two);
        one.delete(t, b"a").expect("a valid write");
        two.delete(t, b"b").expect("a valid write");
        let refused = [conflicts(one), conflicts(two)];
        assert!(refused.contains(&true), "both could not have run alone");
        assert!(refused.contains(&false), "one of them comes first");
        assert!(get(&store, b"a").is_some() || get(&store, b"b").is_some());
    }
}

pub(super) fn readers(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let before = put(&store, b"a", b"1");
    let mut transaction = begin(&store);
    transaction.get(t, b"a").expect("a sound store");
    put(&store, b"a", b"2");
    let rows = transaction.range(t, &Keys::all(), Order::Ascending, 10);
    assert_eq!(keys_of(&rows.expect("a sound store")), [b"a"]);
    assert_eq!(transaction.commit().expect("it only read"), before);
}

pub(super) fn claims(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    for key in [&b"a"[..], b"b", b"c", b"d"] {
        put(&store, key, b"job");
    }
    let (mut one, mut two) = (begin(&store), begin(&store));
    let first = one.claim(t, &Keys::all(), 2).expect("a sound store");
    assert_eq!(keys_of(&first), [b"a", b"b"]);
    let second = two.claim(t, &Keys::all(), 2).expect("a sound store");
    let both: Vec<_> = second.iter().filter(|row| first.contains(row)).collect();
    for (transaction, rows) in [(&mut one, &first), (&mut two, &second)] {
        for (key, _) in rows {
            transaction.delete(t, key).expect("a valid write");
        }
    }
    assert!(!conflicts(one), "it came first");
    let refused = conflicts(two);
    assert!(refused || both.is_empty(), "{both:?} were claimed twice");
    // What was claimed and given up is there again.
    let left = 4 - first.len() - if refused { 0 } else { second.len() };
    let mut given_up = begin(&store);
    let claimed = given_up.claim(t, &Keys::all(), 10).expect("a sound store");
    assert_eq!(claimed.len(), left);
    drop(given_up);
    let mut last = begin(&store);
    let claimed = last.claim(t, &Keys::all(), 10).expect("a sound store");
    assert_eq!(claimed.len(), left);
}

pub(super) fn claimed_order(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    for key in [&b"a"[..], b"b", b"c", b"d"] {
        put(&store, key, b"job");
    }
    let mut transaction = begin(&store);
    let mut check = |keys: &Keys, limit: usize, expected: &[&[u8]]| {
        let found = transaction.claim(t, keys, limit).expect("a sound store");
        assert_eq!(keys_of(&found), expected, "{keys:?} {limit}");
    };
    check(&Keys::all(), 0, &[]);
    check(&Keys::after(b"d"), 5, &[]);
    check(&Keys::between(b"c", b"b"), 5, &[]);
    check(&Keys::from(b"b"), 2, &[b"b", b"c"]);
    // Its own again, with what it wrote.
    transaction.delete(t, b"c").expect("a valid write");
    transaction.put(t, b"e", b"own").expect("a valid write");
    let found = transaction
        .claim(t, &Keys::all(), 10)
        .expect("a sound store");
    assert_eq!(keys_of(&found), [b"a", b"b", b"d", b"e"]);
    let found = transaction
        .claim(t, &Keys::from(b"c"), 1)
        .expect("a sound store");
    assert!(found.len() <= 1 && !keys_of(&found).contains(&&b"c"[..]));
    transaction.commit().expect("nobody else is there");
}

pub(super) fn given_up(subject: &mut dyn Subject) {
    let store = subject.open();
    let (t, o) = (table(&store), other(&store));
    let before = put(&store, b"a", b"1");
    let mut transaction = begin(&store);
    transaction.put(t, b"a", b"2").expect("a valid write");
    transaction.put(o, b"b", b"2").expect("a valid write");
    assert_eq!(
        get(&store, b"a").as_deref(),
        Some(&b"1"[..]),
        "not committed"
    );
    drop(transaction);
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    let retained = store.retained().expect("a sound store");
    assert_eq!(retained.to, before);
    // And hinders nobody.
    transact(&store, |transaction| transaction.put(o, b"b", b"3"));
}
