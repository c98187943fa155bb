//! What is refused, and what just fits.

use super::{OTHER, Subject, TABLE, begin, get, put, table};
use crate::{KEY_LEN_MAX, Keys, Kind, Order, RECORD_LEN_MAX, TableId, VALUE_LEN_MAX};

pub(super) fn lengths(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let longest = vec![0xfe; KEY_LEN_MAX];
    let value = |len: usize| -> Vec<u8> { (0..=250_u8).cycle().take(len).collect() };
    let rows: [(&[u8], usize); 5] = [
        (b"k", 0),
        (b"\0", 1),
        (&longest, 0),
        (&longest[1..], 70_000),
        (b"largest", VALUE_LEN_MAX),
    ];
    for (key, len) in rows {
        put(&store, key, &value(len));
    }
    drop(store);
    let store = subject.open();
    for (key, len) in rows {
        assert_eq!(get(&store, key), Some(value(len)), "{} bytes", key.len());
    }
    let mut transaction = begin(&store);
    let found = transaction.range(t, &Keys::prefix(&[0xfe]), Order::Descending, 5);
    let found = found.expect("a sound store");
    assert_eq!(super::keys_of(&found), [&longest[..], &longest[1..]]);
    // Nothing can be stored under an empty key, so nothing is there.
    assert_eq!(transaction.get(t, b"").expect("a sound store"), None);
    assert_eq!(get(&store, b""), None);
}

pub(super) fn refused(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let mut transaction = begin(&store);
    transaction.put(t, b"a", b"1").expect("a valid write");
    let long_key = vec![0; KEY_LEN_MAX + 1];
    let long_value = vec![0; VALUE_LEN_MAX + 1];
    let refusals = [
        transaction.put(t, b"", b"value"),
        transaction.delete(t, b""),
        transaction.put(t, &long_key, b"value"),
        transaction.delete(t, &long_key),
        transaction.put(t, b"long", &long_value),
    ];
    for refused in refusals {
        let refused = refused.expect_err("too long or empty");
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    let half = vec![7; RECORD_LEN_MAX / 2];
    transaction.put(t, b"half", &half).expect("it fits");
    let refused = transaction.put(t, b"other half", &long_value[1..]);
    assert_eq!(refused.expect_err("too much").kind(), Kind::Invalid);
    transaction
        .commit()
        .expect("what was refused is not part of it");
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&store, b"half"), Some(half));
    assert_eq!(get(&store, b"other half"), None);
}

pub(super) fn tables(subject: &mut dyn Subject) {
    let store = subject.open();
    for name in [TABLE, OTHER] {
        let table = store.table(name).expect("a table of `tables`");
        assert_eq!(store.table_name(table).expect("a table of ours"), name);
    }
    for name in ["", "conformance", "conformance.TABLE", "x\0y", "'; --"] {
        let refused = store.table(name).expect_err("no such table");
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    for number in [0, 7, u32::MAX] {
        let table = TableId::from(number);
        assert!(store.table_name(table).is_err());
        let snapshot = store.snapshot().expect("a sound store");
        let mut reading = begin(&store);
        let rows = |rows: Result<Vec<_>, _>| rows.map(drop);
        let mut writing = begin(&store);
        let wrote = writing
            .put(table, b"a", b"1")
            .and_then(|()| writing.commit().map(drop));
        let refusals = [
            snapshot.get(table, b"a").map(drop),
            snapshot
                .range(table, &Keys::all())
                .and_then(|mut rows| rows.next().transpose().map(drop)),
            reading.get(table, b"a").map(drop),
            rows(begin(&store).range(table, &Keys::all(), Order::Ascending, 1)),
            rows(begin(&store).claim(table, &Keys::all(), 1)),
            wrote,
        ];
        for (index, refused) in refusals.into_iter().enumerate() {
            let refused = refused.expect_err("no such table");
            assert_eq!(refused.kind(), Kind::Invalid, "{index}: {refused}");
        }
    }
}

pub(super) fn closed(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    let mut begun = begin(&store);
    begun.put(t, b"a", b"1").expect("a valid write");
    store.close().expect("a sound store");
    let refusals = [
        begun.commit().map(drop),
        store.begin().map(drop),
        store.snapshot().map(drop),
        store.close(),
    ];
    for refused in refusals {
        let refused = refused.expect_err("it is closed");
        assert_eq!(refused.kind(), Kind::Closed, "{refused}");
    }
    drop(store);
    assert_eq!(get(&subject.open(), b"a"), None);
}
