//! What is read, and in which order.

use std::{collections::BTreeMap, ops::Bound};

use super::{Subject, begin, delete, get, keys_of, other, owned, put, table, transact};
use crate::{Keys, Order, Snapshot};

const ALL: usize = usize::MAX;

pub(super) fn committed(subject: &mut dyn Subject) {
    let store = subject.open();
    assert_eq!(get(&store, b"a"), None);
    put(&store, b"a", b"1");
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    let first = store.snapshot().expect("a sound store").commit();
    let second = put(&store, b"a", b"2");
    assert!(second > first && second.time > first.time);
    let (t, o) = (table(&store), other(&store));
    transact(&store, |transaction| {
        transaction.put(t, b"both", b"t")?;
        transaction.put(o, b"both", b"o")
    });
    drop(store);
    let store = subject.open();
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"2"[..]));
    let (t, o) = (table(&store), other(&store));
    let snapshot = store.snapshot().expect("a sound store");
    let asked: [(_, &[u8]); 5] = [
        (o, b"both"),
        (t, b"none"),
        (t, b"both"),
        (o, b"a"),
        (t, b"a"),
    ];
    let found = snapshot.get_many(&asked).expect("a sound store");
    let found: Vec<_> = found.into_iter().map(owned).collect();
    let expected = [Some("o"), None, Some("t"), None, Some("2")]
        .map(|value| value.map(|value| value.as_bytes().to_vec()));
    assert_eq!(found, expected);
    assert!(snapshot.get_many(&[]).expect("a sound store").is_empty());
    assert!(snapshot.commit() > second);
    let last = put(&store, b"a", b"3");
    assert!(last.lsn > second.lsn && last.time > second.time);
    assert_eq!(store.snapshot().expect("a sound store").commit(), last);
}

pub(super) fn own_writes(subject: &mut dyn Subject) {
    let store = subject.open();
    let (t, o) = (table(&store), other(&store));
    for key in [&b"b"[..], b"d", b"f"] {
        put(&store, key, b"stored");
    }
    let mut transaction = begin(&store);
    let mut write = |key: &[u8], value: Option<&[u8]>| {
        match value {
            Some(value) => transaction.put(t, key, value),
            None => transaction.delete(t, key),
        }
        .expect("a valid write");
    };
    write(b"c", Some(b"written"));
    write(b"d", Some(b"written"));
    write(b"b", None);
    write(b"none", None);
    for (key, expected) in [
        (&b"b"[..], None),
        (b"c", Some(&b"written"[..])),
        (b"d", Some(b"written")),
        (b"f", Some(b"stored")),
        (b"none", None),
    ] {
        let found = transaction.get(t, key).expect("a sound store");
        assert_eq!(found.as_deref(), expected, "{key:?}");
        let found = transaction.get_many(&[(o, key), (t, key), (t, b"f")]);
        let found = found.expect("a sound store");
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [None, expected, Some(&b"stored"[..])], "{key:?}");
    }
    let mut check = |keys: &Keys, order, limit, expected: &[&[u8]]| {
        let found = transaction
            .range(t, keys, order, limit)
            .expect("a sound store");
        assert_eq!(keys_of(&found), expected, "{keys:?} {order:?} {limit}");
    };
    use Order::{Ascending, Descending};
    check(&Keys::all(), Ascending, ALL, &[b"c", b"d", b"f"]);
    check(&Keys::all(), Descending, ALL, &[b"f", b"d", b"c"]);
    check(&Keys::all(), Ascending, 2, &[b"c", b"d"]);
    check(&Keys::all(), Descending, 2, &[b"f", b"d"]);
    check(&Keys::all(), Ascending, 0, &[]);
    check(&Keys::after(b"c"), Ascending, ALL, &[b"d", b"f"]);
    check(&Keys::between(b"a", b"d"), Ascending, ALL, &[b"c"]);
    transaction.commit().expect("nobody else is there");
    let snapshot = store.snapshot().expect("a sound store");
    assert_eq!(listed(&snapshot, t, &Keys::all()), [&b"c"[..], b"d", b"f"]);
}

fn listed(snapshot: &Snapshot, table: crate::TableId, keys: &Keys) -> Vec<Vec<u8>> {
    let rows = snapshot.range(table, keys).expect("a sound store");
    rows.map(|row| row.expect("a sound store").0.to_vec())
        .collect()
}

pub(super) fn begun_with(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let before = put(&store, b"a", b"1");
    let mut transaction = begin(&store);
    assert_eq!(transaction.lsn(), before.lsn);
    put(&store, b"a", b"2");
    put(&store, b"b", b"2");
    let found = transaction.get_many(&[(t, b"a"), (t, b"b")]);
    let found = found.expect("a sound store");
    assert_eq!(found[0].as_deref(), Some(&b"1"[..]));
    assert_eq!(found[1], None);
    let rows = transaction.range(t, &Keys::all(), Order::Ascending, ALL);
    assert_eq!(keys_of(&rows.expect("a sound store")), [b"a"]);
    // Without writes there is nothing to validate.
    assert_eq!(transaction.commit().expect("it only read"), before);
}

/// Keys that text orders otherwise than their bytes, or takes for an end or an escape.
fn odd_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
    keys.extend((0..=255_u8).map(|byte| vec![b'a', byte]));
    keys.extend([
        b"\0\0".to_vec(),
        b"\xff\xff".to_vec(),
        b"a\0b".to_vec(),
        b"a\xff\xff".to_vec(),
        "\u{e4}\u{1f600}".as_bytes().to_vec(),
        b"%_'\"\\;--".to_vec(),
        vec![0; 300],
        vec![0xff; 300],
    ]);
    keys
}

pub(super) fn order(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let keys = odd_keys();
    let model: BTreeMap<Vec<u8>, Vec<u8>> = keys
        .iter()
        .map(|key| (key.clone(), key.iter().rev().copied().collect()))
        .collect();
    transact(&store, |transaction| {
        model
            .iter()
            .try_for_each(|(key, value)| transaction.put(t, key, value))
    });
    let snapshot = store.snapshot().expect("a sound store");
    for (key, value) in &model {
        let found = snapshot.get(t, key).expect("a sound store");
        assert_eq!(found.as_deref(), Some(value.as_slice()), "{key:?}");
    }
    let bounds: [&[u8]; 8] = [
        b"\0",
        b"\0\0",
        b"a",
        b"a\0",
        b"a\xff",
        b"b",
        b"\xff",
        b"\xff\xff\xff",
    ];
    let mut ranges = vec![Keys::all()];
    for start in bounds {
        ranges.extend([Keys::from(start), Keys::after(start), Keys::prefix(start)]);
        ranges.push(Keys::new(Bound::Unbounded, Bound::Included(start)));
        for end in bounds {
            ranges.push(Keys::between(start, end));
            ranges.push(Keys::new(Bound::Excluded(start), Bound::Included(end)));
            ranges.push(Keys::new(Bound::Excluded(start), Bound::Excluded(end)));
        }
    }
    let mut transaction = begin(&store);
    for keys in ranges {
        let expected: Vec<&[u8]> = model
            .keys()
            .filter(|key| keys.contains(key))
            .map(Vec::as_slice)
            .collect();
        assert_eq!(listed(&snapshot, t, &keys), expected, "{keys:?}");
        let found = transaction.range(t, &keys, Order::Ascending, 3);
        let found = found.expect("a sound store");
        assert_eq!(
            keys_of(&found),
            expected[..expected.len().min(3)],
            "{keys:?}"
        );
        let found = transaction.range(t, &keys, Order::Descending, 3);
        let last: Vec<&[u8]> = expected.iter().rev().take(3).copied().collect();
        assert_eq!(keys_of(&found.expect("a sound store")), last, "{keys:?}");
    }
}

/// More than any engine gives in one page.
const MANY: u32 = 3000;

pub(super) fn long_ranges(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let key = |number: u32| number.to_be_bytes();
    transact(&store, |transaction| {
        (0..MANY).try_for_each(|number| transaction.put(t, &key(number), b"stored"))
    });
    let snapshot = store.snapshot().expect("a sound store");
    let numbers = |rows: Vec<Vec<u8>>| -> Vec<u32> {
        rows.iter()
            .map(|key| u32::from_be_bytes(key[..].try_into().expect("four bytes")))
            .collect()
    };
    let all: Vec<u32> = (0..MANY).collect();
    assert_eq!(numbers(listed(&snapshot, t, &Keys::all())), all);
    let rows = snapshot.range(t, &Keys::all()).expect("a sound store");
    let back: Vec<_> = rows
        .rev()
        .map(|row| row.expect("a sound store").0.to_vec())
        .collect();
    assert_eq!(numbers(back), (0..MANY).rev().collect::<Vec<_>>());
    // From both ends until they meet: each row once.
    let mut rows = snapshot.range(t, &Keys::all()).expect("a sound store");
    let (mut front, mut back) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next() {
        front.push(row.expect("a sound store").0.to_vec());
        for row in rows.by_ref().rev().take(2) {
            back.push(row.expect("a sound store").0.to_vec());
        }
    }
    back.reverse();
    assert_eq!(numbers([front, back].concat()), all);
    // Own writes over several pages: every second row away, one between each pair.
    let mut transaction = begin(&store);
    for number in (0..MANY).step_by(2) {
        transaction.delete(t, &key(number)).expect("a valid write");
        let between = [&key(number)[..], b"+"].concat();
        transaction.put(t, &between, b"own").expect("a valid write");
    }
    let expected = |order: Order, limit: usize| -> Vec<Vec<u8>> {
        let mut rows: Vec<Vec<u8>> = (0..MANY)
            .map(|number| match number % 2 {
                0 => [&key(number)[..], b"+"].concat(),
                _ => key(number).to_vec(),
            })
            .collect();
        if order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(limit);
        rows
    };
    for order in [Order::Ascending, Order::Descending] {
        for limit in [1, 2, 500, 2048, ALL] {
            let found = transaction.range(t, &Keys::all(), order, limit);
            let found = found.expect("a sound store");
            assert_eq!(keys_of(&found), expected(order, limit), "{order:?} {limit}");
        }
    }
}

pub(super) fn deleted(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    put(&store, b"a", b"1");
    put(&store, b"b", b"1");
    let there = store.snapshot().expect("a sound store");
    delete(&store, b"a");
    delete(&store, b"never was");
    assert_eq!(get(&store, b"a"), None);
    let now = store.snapshot().expect("a sound store");
    assert_eq!(listed(&now, t, &Keys::all()), [b"b"]);
    assert_eq!(listed(&there, t, &Keys::all()), [b"a", b"b"]);
    put(&store, b"a", b"");
    assert_eq!(
        get(&store, b"a").as_deref(),
        Some(&b""[..]),
        "empty is there"
    );
    drop((there, now, store));
    let store = subject.open();
    assert_eq!(get(&store, b"a").as_deref(), Some(&b""[..]));
    delete(&store, b"a");
    assert_eq!(get(&store, b"a"), None);
}
