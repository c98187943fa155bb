//! Appending: what is acknowledged, what is refused, what is kept once.

use wal::Lsn;

use super::{Bench, event, named};
use crate::{Filter, Kind};

#[test]
fn an_id_seen_again_is_acknowledged_with_the_position_it_had() {
    let bench = Bench::new();
    let first = bench.append(named("a")).unwrap();
    let again = bench.append(named("a")).unwrap();
    assert_eq!(again.id, first.id);
    assert!(again.is_duplicate && !first.is_duplicate);
    let other = bench.append(named("b")).unwrap();
    assert_eq!(other.id.lsn, Lsn::new(2));
    assert_eq!(
        bench
            .log
            .read(Lsn::FIRST, &Filter::default())
            .unwrap()
            .count(),
        2
    );
    assert_eq!(
        bench.append(event("not json")).unwrap_err().kind(),
        Kind::Invalid
    );
}
