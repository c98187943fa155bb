//! The proof on the built binary: it passes what is sound, and finds what was taken away.

use super::*;

const SEED: u64 = 20;

/// Machines of a run that must pass. Some seconds' worth.
const RUNS: u64 = 10;

/// Machines until a missing sync must be found.
const RUNS_TO_FIND_MAX: u64 = 40;

fn campaign_without(swallowed: &[&str], runs: u64) -> Outcome {
    let sandbox = sandbox().unwrap();
    let kit = kit(&crash::tests::binary(), &sandbox).unwrap();
    let swallowed = swallowed.iter().map(|it| Place::named(it)).collect();
    let campaign = Campaign {
        kit: &kit,
        seed: SEED,
        runs,
        jobs: 2,
        swallowed,
    };
    campaign.run().unwrap()
}

/// Loss of power: of what was not synced anything may be gone.
///
/// Proves: DOC-1
#[test]
fn what_was_acknowledged_survives_a_loss_of_power_at_any_moment() {
    let outcome = campaign_without(&[], RUNS);
    assert!(outcome.found.is_none(), "{:?}", outcome.found);
    let counts = outcome.counts;
    assert!(counts.losses >= RUNS && counts.records > 0, "{counts}");
    assert!(counts.strict > 0, "{counts}");
    assert!(counts.refusals > 0, "{counts}");
}

#[test]
fn a_journal_that_does_not_sync_its_records_is_found() {
    let outcome = campaign_without(&["fdatasync journal/#.seg"], RUNS_TO_FIND_MAX);
    assert!(outcome.found.is_some(), "{}", outcome.counts);
}
