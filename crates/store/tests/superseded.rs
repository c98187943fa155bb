//! A store whose log was thrown away for a base: nobody opens it before the base is whole, whatever
//! positions it has.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod site;

use std::sync::Arc;

use site::{
    dying::DyingDisk,
    pair::{Pair, live},
};
use store::{Base, Derived, History, Install, Kind, Store};
use wal::Lsn;

const TABLES: &[(&str, History)] = &[("t", History::Forever), ("queue", History::Latest)];

/// A target that has what the leader had, and a base of what came since.
fn behind() -> (Pair, Base) {
    let pair = Pair::new(TABLES);
    live(&pair.leader, &pair.source, 24, 1);
    let target = pair.open_target();
    target.store.close().unwrap();
    drop(target);
    live(&pair.leader, &pair.source, 24, 2);
    let base = pair.leader.store.open_base().unwrap();
    (pair, base)
}

fn on_disk(pair: &Pair) -> Derived {
    Derived::on_disk(&pair.target.options()).unwrap().unwrap()
}

/// A copy of another history was killed amid its base: its positions fitted the log that had been begun
/// behind the base, and it was opened and read.
///
/// Proves: REP-17
#[test]
fn a_store_whose_log_was_thrown_away_is_not_opened_until_a_base_is_whole() {
    let (pair, base) = behind();
    let before = on_disk(&pair);
    Install::supersede(&pair.target.options()).unwrap();
    drop(pair.begin(&base).unwrap());
    let superseded = Derived {
        is_superseded: true,
        ..before
    };
    assert_eq!(on_disk(&pair), superseded);
    let refused = Store::open_following(pair.target.options(), pair.ship()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    assert!(
        refused.to_string().contains("has not come whole"),
        "{refused}"
    );
    pair.install(&base).unwrap();
    assert!(!on_disk(&pair).is_superseded);
    pair.check_equal();
}

#[test]
fn a_store_that_is_open_or_holds_nothing_is_not_superseded() {
    let pair = Pair::new(TABLES);
    Install::supersede(&pair.target.options()).unwrap();
    drop(pair.open_target());
    Install::supersede(&pair.target.options()).unwrap();
    let target = pair.open_target();
    let refused = Install::supersede(&pair.target.options()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Locked, "{refused}");
    drop(target);
    let reaches = on_disk(&pair).reaches;
    assert_eq!((reaches, on_disk(&pair).is_superseded), (Lsn::ZERO, false));
}

/// The one store is superseded, the other is not, and there is no third.
#[test]
fn whichever_step_of_an_exchange_is_the_last_one_only_the_base_counts() {
    let (mut pair, base) = behind();
    Install::supersede(&pair.target.options()).unwrap();
    let old = on_disk(&pair).checkpoint;
    let (mut olds, mut news) = (0, 0);
    let aside = pair.put_aside();
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::at(call);
        if pair.install_with(&base, Arc::new(disk)).is_ok() {
            break;
        }
        let found = on_disk(&pair);
        if found.is_superseded {
            assert_eq!(found.checkpoint, old, "call {call}");
            olds += 1;
        } else {
            assert_eq!(found.checkpoint, base.commit().lsn, "call {call}");
            news += 1;
        }
    }
    assert!(olds > 20 && news > 5, "{olds} old, {news} new");
}

/// An exchange that did not come to its end is gone on with first: it ends what was said of the store
/// before it, and not what is said after.
#[test]
fn what_an_earlier_exchange_leaves_is_superseded_too() {
    let (mut pair, base) = behind();
    let aside = pair.put_aside();
    let mut found_whole = 0;
    for call in 1.. {
        pair.target = aside.process_death();
        let disk = DyingDisk::at(call);
        if pair.install_with(&base, Arc::new(disk)).is_ok() {
            break;
        }
        let store = pair.target.dir.path().join("store");
        found_whole += usize::from(store.join("install/whole").exists());
        Install::supersede(&pair.target.options()).unwrap();
        drop(pair.begin(&pair.leader.store.open_base().unwrap()).unwrap());
        assert!(on_disk(&pair).is_superseded, "call {call}");
    }
    assert!(found_whole > 3, "{found_whole}");
}
