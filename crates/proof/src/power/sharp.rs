//! Whether the proof would see a missing sync: each place is taken away alone, until that is found.

use std::{collections::BTreeSet, io, process::ExitCode};

use world::{Disk, RealDisk};

use super::{Campaign, bench::Kit};

/// Machines that tell which places there are.
const SURVEY_RUNS: u64 = 100;

/// Ends of places whose sync is for tidiness only, and what shows it. Each is taken away all the same.
const TIDY: [(&str, &str); 4] = [
    (
        "after unlink #.spare",
        "opening removes every spare: nothing vouches for one",
    ),
    (
        "after unlink ahead.spare",
        "opening removes every spare: nothing vouches for one",
    ),
    (
        "./events after mkdir ids",
        "the index of ids is derived from the journal, and made again where it is missing",
    ),
    (
        "after rename reserve.tmp to reserve",
        "a missing reserve is made again; one that becomes a segment has its name synced then",
    ),
];

/// Takes away every place that a survey meets, each for up to `runs` machines. Exit code 1 when one
/// of them is not missed, and is neither covered by a later sync of the same nor without anything to
/// sync.
pub(super) fn run(
    kit: &Kit,
    seed: u64,
    runs: u64,
    jobs: usize,
    only: &str,
) -> io::Result<ExitCode> {
    let survey = Campaign {
        kit,
        seed,
        runs: SURVEY_RUNS,
        jobs,
        swallowed: BTreeSet::new(),
    };
    let survey = survey.run()?;
    if let Some(found) = survey.found {
        println!("{}", found.words);
        println!("found with every sync in place: nothing can be said about one that is missing");
        return Ok(ExitCode::from(1));
    }
    let mut blind = 0_u64;
    println!("{:>8}  {:>12}  place", "met", "missed after");
    for (place, met) in &survey.places {
        if !place.words().contains(only) {
            continue;
        }
        let without = Campaign {
            kit,
            seed,
            runs,
            jobs,
            swallowed: BTreeSet::from([place.clone()]),
        };
        let outcome = without.run()?;
        let after = match &outcome.found {
            Some(found) => {
                RealDisk.remove_dir_all(&found.dir)?;
                (found.seed.wrapping_sub(seed) + 1).to_string()
            }
            None if met.covered == met.times => "covered".to_owned(),
            None if met.empty == met.times => "empty".to_owned(),
            None if tidy(place.words()).is_some() => "tidiness".to_owned(),
            None => {
                blind += 1;
                format!("not in {runs}")
            }
        };
        println!("{:>8}  {after:>12}  {place}", met.times);
        if let Some(found) = &outcome.found {
            println!("{:>24}{}", "", found.promise());
        } else if let Some(reason) = tidy(place.words()) {
            println!("{:>24}{reason}", "");
        }
    }
    println!("{} places, {blind} not missed", survey.places.len());
    Ok(ExitCode::from(u8::from(blind > 0)))
}

fn tidy(place: &str) -> Option<&'static str> {
    let found = TIDY.iter().find(|(end, _)| place.ends_with(end));
    found.map(|(_, reason)| *reason)
}
