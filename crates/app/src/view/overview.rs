//! All hosts as lists and pages of the fleet show them, made once for all who ask for the same.
//!
//! An overview is of a position of the store, and is given only to whoever found the store there. What
//! time alone changes in it (a maintenance that ends, a policy that does) ends it at that moment.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt,
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use scan::{
    ledger::{self, Fleets},
    policy::ComplianceState,
    token::Scope,
};
use wal::Lsn;
use world::Timestamp;

use super::{
    BySeverity, Counts, Error, Fleet, HostRow, Moment, Reader, RuleCount, Unassessed,
    fleet::{Assessed, Known, seen},
};

/// Hosts and rules of each list of the overview: what fits on a screen.
const WORST_SHOWN: usize = 10;
/// Bytes of all overviews together: some five of a thousand hosts, by who looks and at which moment.
/// Arbitrary.
const BYTES_MAX: usize = 8 << 20;

/// Everything that is told of all hosts at one moment.
#[derive(Debug)]
pub(crate) struct Overview {
    /// By name, retired ones too.
    pub(super) rows: Vec<HostRow>,
    /// Places in `rows` of those that are watched, the worst first.
    worst: Vec<usize>,
    counts: Counts,
    /// Rules that fail somewhere, the worst first.
    pub(super) rules: Vec<RuleCount>,
    unassessed: Vec<Unassessed>,
    /// The first moment at which it is another, though nothing is committed.
    pub(super) turns: Timestamp,
}

/// What an overview is of, beside the position.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    scope: Scope,
    at: Option<Timestamp>,
}

struct Made {
    asked: Asked,
    position: Lsn,
    /// When it was made: for a clock that goes back it is none.
    from: Timestamp,
    bytes: usize,
    overview: Arc<Overview>,
}

/// The overviews of one process. Used last, last.
#[derive(Default)]
pub(crate) struct Overviews {
    pub(super) fleets: Fleets,
    made: Mutex<Vec<Made>>,
}

impl fmt::Debug for Overviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overviews")
    }
}

impl Overviews {
    fn lock(&self) -> MutexGuard<'_, Vec<Made>> {
        // Nothing is left half done by a panic: what is kept is taken out and put in whole.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, asked: &Asked, position: Lsn, now: Timestamp) -> Option<Arc<Overview>> {
        let mut all = self.lock();
        let holds = |made: &Made| {
            made.asked == *asked
                && made.position >= position
                && made.from <= now
                && now < made.overview.turns
        };
        let place = all.iter().position(holds)?;
        let found = all.remove(place);
        let overview = Arc::clone(&found.overview);
        all.push(found);
        Some(overview)
    }

    fn put(&self, made: Made) {
        if made.bytes > BYTES_MAX {
            return;
        }
        let mut all = self.lock();
        all.retain(|known| known.asked != made.asked);
        let mut bytes: usize = all.iter().map(|known| known.bytes).sum();
        while bytes + made.bytes > BYTES_MAX && !all.is_empty() {
            bytes -= all.remove(0).bytes;
        }
        all.push(made);
    }
}

/// How all hosts that may be seen stand, now or at a moment.
pub(crate) fn overview(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Arc<Overview>, Error> {
    // Before anything is read: all of it is of this position or of a later one.
    let position = reader.store.newest()?.lsn;
    let asked = Asked {
        scope: reader.scope.clone(),
        at,
    };
    if let Some(found) = reader.overviews.find(&asked, position, reader.now) {
        return Ok(found);
    }
    let overview = Arc::new(made(reader, at)?);
    reader.overviews.put(Made {
        asked,
        position,
        from: reader.now,
        bytes: weight(&overview),
        overview: Arc::clone(&overview),
    });
    Ok(overview)
}

fn made(reader: &Reader<'_>, at: Option<Timestamp>) -> Result<Overview, Error> {
    let (hosts, fleet) = seen(reader, at)?;
    let known = Known::of(reader, at)?;
    let found: BTreeMap<&str, &ledger::Assessed> = fleet
        .hosts
        .iter()
        .filter_map(|standing| Some((standing.host.name.as_str(), standing.assessed.as_ref()?)))
        .collect();
    let row = |host| {
        let host: &scan::inventory::Host = host;
        let assessed = found.get(host.name.as_str()).copied();
        known.row_of(reader, host, assessed.map(Assessed::of))
    };
    let rows: Vec<HostRow> = hosts.iter().map(row).collect();
    let watched = rows.iter().enumerate();
    let watched = watched.filter(|(_, row)| row.retired.is_none());
    let mut worst: Vec<usize> = watched.map(|(place, _)| place).collect();
    worst.sort_by_key(|&place| rank(&rows[place]));
    Ok(Overview {
        worst,
        rows,
        counts: (&fleet.summary()).into(),
        rules: failing_in(reader, &fleet),
        unassessed: unassessed(reader, &fleet),
        turns: known.turns,
    })
}

impl Overview {
    /// Those that are watched, the worst first.
    pub(crate) fn worst(&self) -> impl Iterator<Item = &HostRow> {
        self.worst.iter().map(|&place| &self.rows[place])
    }

    /// On one page, as it is asked for at `moment`.
    pub(crate) fn fleet(&self, moment: Timestamp) -> Fleet {
        let mut states: BTreeMap<&'static str, u64> = ComplianceState::ALL
            .into_iter()
            .map(|state| (state.name(), 0))
            .collect();
        let mut failing = BySeverity::default();
        for row in self.worst() {
            *states.entry(row.state.name()).or_default() += 1;
            failing.critical += row.failing.critical;
            failing.high += row.failing.high;
            failing.medium += row.failing.medium;
            failing.low += row.failing.low;
        }
        let pick = |wanted: fn(&HostRow) -> bool| {
            let rows = self.worst().filter(|row| wanted(row));
            rows.take(WORST_SHOWN).cloned().collect()
        };
        Fleet {
            at: Moment(moment),
            hosts: self.worst.len() as u64,
            states,
            counts: self.counts.clone(),
            failing,
            worst_hosts: pick(|row| row.counts.as_ref().is_some_and(|counts| counts.fail > 0)),
            stale_hosts: pick(|row| row.counts.is_none() || row.last_attempt_failed.is_some()),
            worst_rules: self.rules.iter().take(WORST_SHOWN).cloned().collect(),
            unassessed: self.unassessed.clone(),
            turns: self.turns,
        }
    }
}

/// Worst first: what fails most, then what nobody knows.
pub(super) fn rank(row: &HostRow) -> (u8, Reverse<(u64, u64)>) {
    let rank = match row.state {
        ComplianceState::Critical => 0,
        ComplianceState::NonCompliant => 1,
        ComplianceState::Unknown => 2,
        ComplianceState::Partial => 3,
        ComplianceState::Compliant if row.last_attempt_failed.is_some() => 4,
        ComplianceState::Compliant => 5,
    };
    let fail = row.counts.as_ref().map_or(0, |counts| counts.fail);
    (rank, Reverse((row.failing.critical, fail)))
}

fn failing_in(reader: &Reader<'_>, fleet: &ledger::Fleet) -> Vec<RuleCount> {
    let mut rules = fleet.rules();
    rules.retain(|rule| rule.fail > 0);
    rules.sort_by_key(|rule| (rule.severity, Reverse(rule.fail)));
    let told = |rule: ledger::RuleStanding| RuleCount {
        title: reader.title(&rule.rule),
        rule: rule.rule,
        severity: rule.severity,
        failing: rule.fail,
    };
    rules.into_iter().map(told).collect()
}

/// By rule, with the reason that most hosts have.
fn unassessed(reader: &Reader<'_>, fleet: &ledger::Fleet) -> Vec<Unassessed> {
    let told = |found: ledger::UnassessedRule| Unassessed {
        title: reader.title(&found.rule),
        rule: found.rule,
        hosts: found.hosts,
        alike: found.alike,
        reason: found.reason,
    };
    let found = fleet.unassessed_rules();
    found.into_iter().take(WORST_SHOWN).map(told).collect()
}

/// Roughly what it takes in memory.
fn weight(overview: &Overview) -> usize {
    let of_row = |row: &HostRow| {
        let labels = row.groups.iter().chain(&row.tags);
        let labels: usize = labels.map(|label| size_of::<String>() + label.len()).sum();
        // The other names, none of which is longer than a line.
        size_of::<HostRow>() + 100 + row.host.len() + labels
    };
    let rows: usize = overview.rows.iter().map(of_row).sum();
    rows + 200 * overview.rules.len() + size_of::<usize>() * overview.worst.len()
}
