//! What a catch-up may take, and the phases it goes through.

use std::time::Duration;

use wal::Lsn;

use super::cluster::limits;
use crate::machine::{Limits, Phase, Time, Violation, budget::Budget};

fn at(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

/// Progress as (second, position); what is exceeded at `now`.
fn check(from: u64, progress: &[(u64, u64)], now: u64) -> Option<Violation> {
    let limits = Limits {
        catch_up_duration: Duration::from_secs(100),
        catch_up_records: 50,
        progress: Duration::from_secs(10),
        ..limits()
    };
    let mut budget = Budget::new(at(0), Lsn::new(from));
    for (second, reached) in progress {
        budget.progress(at(*second), Lsn::new(*reached), 0);
    }
    budget.exceeded(at(now), &limits)
}

/// The ancestor counted calls first, and then records from the beginning of the log.
#[test]
fn a_budget_is_kept_up_to_its_bound_and_exceeded_behind_it() {
    let steady: Vec<(u64, u64)> = (0..=12).map(|step| (step * 9, 1000 + step)).collect();
    let at_stall = Lsn::new(1003);
    for (what, progress, now, expected) in [
        ("time", &steady[..], 100, None),
        (
            "time is over",
            &steady[..],
            101,
            Some(Violation::Duration { seconds: 101 }),
        ),
        ("records", &[(1, 1050)][..], 2, None),
        (
            "too many records",
            &[(1, 1051)][..],
            2,
            Some(Violation::Records { records: 51 }),
        ),
        ("a pause", &[(5, 1003)][..], 15, None),
        (
            "a stall",
            &[(5, 1003)][..],
            16,
            Some(Violation::Stalled { at: at_stall }),
        ),
        (
            "the same again",
            &[(5, 1003), (9, 1003)][..],
            16,
            Some(Violation::Stalled { at: at_stall }),
        ),
        (
            "less again",
            &[(5, 1003), (9, 1001)][..],
            16,
            Some(Violation::Stalled { at: at_stall }),
        ),
    ] {
        assert_eq!(check(1000, progress, now), expected, "{what}");
    }
}

#[test]
fn of_all_pairs_of_phases_exactly_the_listed_ones_are_moves() {
    use Phase::{CatchUp, Completed, Connecting, Handshake, Init, Invalidated, Tail, Transfer};
    let all = [
        Init,
        Connecting,
        Handshake,
        CatchUp,
        Transfer,
        Tail,
        Completed,
        Invalidated,
    ];
    let listed = [
        (Init, Connecting),
        (Connecting, Handshake),
        (Handshake, CatchUp),
        (Handshake, Transfer),
        (Handshake, Completed),
        (CatchUp, Completed),
        (Transfer, Tail),
        (Tail, Completed),
        (Init, Invalidated),
        (Connecting, Invalidated),
        (Handshake, Invalidated),
        (CatchUp, Invalidated),
        (Transfer, Invalidated),
        (Tail, Invalidated),
    ];
    for from in all {
        for to in all {
            assert_eq!(
                from.moved(to).is_ok(),
                listed.contains(&(from, to)),
                "{from:?} to {to:?}"
            );
        }
    }
}
