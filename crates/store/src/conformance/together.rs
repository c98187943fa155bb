//! Many at once: what must hold whoever comes first.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{Subject, begin, get, put, table, transact};
use crate::{Keys, Kind, Order, Outcome, Store, TableId, Transaction};

const THREADS: u8 = 6;

fn number(value: Option<&[u8]>) -> u64 {
    let bytes = value.unwrap_or(&[0; 8]).try_into();
    u64::from_le_bytes(bytes.expect("eight bytes"))
}

fn read(transaction: &mut Transaction, table: TableId, key: &[u8]) -> Result<u64, crate::Error> {
    Ok(number(transaction.get(table, key)?.as_deref()))
}

pub(super) fn increments(subject: &mut dyn Subject) {
    const EACH: u64 = 20;
    let store = subject.open();
    let t = table(&store);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    transact(&store, |transaction| {
                        let count = read(transaction, t, b"count")? + 1;
                        transaction.put(t, b"count", &count.to_le_bytes())
                    });
                }
            });
        }
    });
    let count = number(get(&store, b"count").as_deref());
    assert_eq!(count, EACH * u64::from(THREADS));
}

const ACCOUNTS: u8 = 8;
const EACH: u64 = 100;

fn sum(rows: impl Iterator<Item = (crate::Bytes, crate::Bytes)>) -> u64 {
    rows.map(|(_, value)| number(Some(&value))).sum()
}

fn transfer(store: &Store, from: u8, to: u8) {
    let t = table(store);
    transact(store, |transaction| {
        let rows = transaction.range(t, &Keys::all(), Order::Ascending, 100)?;
        assert_eq!(sum(rows.into_iter()), EACH * u64::from(ACCOUNTS));
        let (rich, poor) = (read(transaction, t, &[from])?, read(transaction, t, &[to])?);
        if from != to && rich > 0 {
            transaction.put(t, &[from], &(rich - 1).to_le_bytes())?;
            transaction.put(t, &[to], &(poor + 1).to_le_bytes())?;
        }
        Ok(())
    });
}

pub(super) fn transfers(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    transact(&store, |transaction| {
        (0..ACCOUNTS).try_for_each(|account| transaction.put(t, &[account], &EACH.to_le_bytes()))
    });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for round in 0..15_u8 {
                    let from = (thread * 5 + round * 3) % ACCOUNTS;
                    transfer(store, from, (from + round) % ACCOUNTS);
                }
            });
        }
        let store = &store;
        scope.spawn(move || {
            for _ in 0..50 {
                let snapshot = store.snapshot().expect("a sound store");
                let rows = snapshot.range(t, &Keys::all()).expect("a sound store");
                let total = sum(rows.map(|row| row.expect("a sound store")));
                assert_eq!(
                    total,
                    EACH * u64::from(ACCOUNTS),
                    "at {}",
                    snapshot.commit()
                );
            }
        });
    });
}

pub(super) fn queue(subject: &mut dyn Subject) {
    const JOBS: u8 = 40;
    let store = subject.open();
    let t = table(&store);
    transact(&store, |transaction| {
        (0..JOBS).try_for_each(|job| transaction.put(t, &[job], b"job"))
    });
    let taken = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let (jobs, is_empty) = take(&store, t);
                    let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                    for job in jobs {
                        assert!(taken.insert(job.clone()), "{job:?} was taken twice");
                    }
                    if is_empty {
                        break;
                    }
                }
            });
        }
    });
    let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(taken.len(), usize::from(JOBS), "none was lost");
    assert_eq!(get(&store, &[0]), None);
}

/// Claims some and takes them off the queue; whether the queue is empty.
fn take(store: &Store, table: TableId) -> (Vec<Vec<u8>>, bool) {
    let (jobs, _) = transact(store, |transaction| {
        let claimed = transaction.claim(table, &Keys::all(), 3)?;
        for (key, _) in &claimed {
            transaction.delete(table, key)?;
        }
        Ok(claimed
            .into_iter()
            .map(|(key, _)| key.to_vec())
            .collect::<Vec<_>>())
    });
    let snapshot = store.snapshot().expect("a sound store");
    let left = snapshot
        .range(table, &Keys::all())
        .expect("a sound store")
        .next();
    (jobs, left.is_none())
}

pub(super) fn same_key(subject: &mut dyn Subject) {
    let store = subject.open();
    let t = table(&store);
    put(&store, b"a", b"0");
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, outcomes) = (&store, &outcomes);
            scope.spawn(move || {
                let outcome = loop {
                    let mut transaction = begin(store);
                    transaction
                        .put(t, &[b'a', thread], b"1")
                        .expect("a valid write");
                    match transaction.commit_once(b"request") {
                        Ok(outcome) => break outcome,
                        Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
                    }
                };
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes.push(outcome);
            });
        }
    });
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let first: Vec<_> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Committed(_)))
        .collect();
    assert_eq!(first.len(), 1, "{outcomes:?}");
    let commit = first[0].commit();
    assert!(outcomes.iter().all(|outcome| outcome.commit() == commit));
    let written = (0..THREADS).filter(|thread| get(&store, &[b'a', *thread]).is_some());
    assert_eq!(written.count(), 1);
}
