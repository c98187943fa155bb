//! How all hosts stand at one moment, and the questions that a page about a fleet asks.
//!
//! Answered from the boards of the hosts. Verdicts are as they were recorded; waivers are counted
//! beside them and change none. One denominator everywhere: what passed or failed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use store::{Bytes, Keys, Snapshot};
use world::Timestamp;

use super::{
    Class, Error,
    board::{self, Board, Read, Row},
    decode,
    fleets::Rows,
    history, index,
    row::{Host, ScanRow, Tables},
    rows,
};
use crate::{
    inventory,
    judge::{Outcome, Summary},
    policy::{Bands, ComplianceState},
    rule::Severity,
    schedule::state_of,
    waiver::{self, Waiver},
};

/// All hosts at one moment.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Commit time of the snapshot that answered: at or before the moment asked for.
    pub as_of: Timestamp,
    /// By name, those that were retired by then among them.
    pub hosts: Vec<Arc<HostStanding>>,
}

/// One host at one moment.
#[derive(Clone, Debug)]
pub struct HostStanding {
    pub host: Host,
    /// `None`: no scan was applied by then.
    pub assessed: Option<Assessed>,
}

/// What the latest scan found.
#[derive(Clone, Debug)]
pub struct Assessed {
    pub scan_id: String,
    pub finished: Timestamp,
    pub summary: Summary,
    /// Sorted; shared by hosts that were judged by the same rules.
    rules: Arc<[String]>,
    verdicts: Vec<(Outcome, Severity)>,
    /// Places in `rules`, by the reason.
    unassessed: BTreeMap<String, Vec<u32>>,
}

/// The verdict of one rule on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleVerdict<'a> {
    pub rule: &'a str,
    pub verdict: Outcome,
    pub severity: Severity,
}

/// One rule over the hosts that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStanding {
    pub rule: String,
    /// The worst of those it has on the hosts.
    pub severity: Severity,
    pub pass: u64,
    pub fail: u64,
    pub not_applicable: u64,
    pub not_assessed: u64,
    pub error: u64,
}

/// A rule that could not be assessed, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unassessed {
    pub rule: String,
    pub reason: String,
    /// By name.
    pub hosts: Vec<String>,
}

/// A rule that could not be assessed on some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnassessedRule {
    pub rule: String,
    pub hosts: u64,
    /// Why on most of them, and on how many of them.
    pub reason: String,
    pub alike: u64,
}

/// What waivers add to a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetWaived {
    /// Failures with a waiver beside them.
    pub waived: u64,
    /// The score of the fleet without those.
    pub score: Option<f64>,
}

impl Assessed {
    /// By rule id.
    pub fn verdicts(&self) -> impl Iterator<Item = RuleVerdict<'_>> {
        self.rules
            .iter()
            .zip(&self.verdicts)
            .map(|(rule, &(verdict, severity))| RuleVerdict {
                rule,
                verdict,
                severity,
            })
    }

    pub fn verdict(&self, rule: &str) -> Option<RuleVerdict<'_>> {
        let place = self
            .rules
            .binary_search_by(|found| found.as_str().cmp(rule))
            .ok()?;
        self.at(place)
    }

    /// What neither passed nor failed nor was found not to apply, and why.
    pub fn unassessed(&self) -> impl Iterator<Item = (RuleVerdict<'_>, &str)> {
        self.unassessed.iter().flat_map(|(reason, places)| {
            places.iter().filter_map(|&place| {
                let verdict = self.at(usize::try_from(place).ok()?)?;
                Some((verdict, reason.as_str()))
            })
        })
    }

    /// Roughly what this takes in memory, its list of rules aside.
    pub(super) fn bytes(&self) -> usize {
        let reasons = self.unassessed.iter();
        let reasons = reasons.map(|(reason, places)| 64 + reason.len() + 4 * places.len());
        2 * self.verdicts.len() + reasons.sum::<usize>()
    }

    /// Where its list of rules lies: the same for hosts that share it.
    #[cfg(test)]
    pub(super) fn list(&self) -> *const [String] {
        Arc::as_ptr(&self.rules)
    }

    fn at(&self, place: usize) -> Option<RuleVerdict<'_>> {
        let &(verdict, severity) = self.verdicts.get(place)?;
        Some(RuleVerdict {
            rule: self.rules.get(place)?,
            verdict,
            severity,
        })
    }
}

impl HostStanding {
    /// Whether a rule of critical severity fails.
    pub fn is_critical(&self) -> bool {
        self.assessed.as_ref().is_some_and(|assessed| {
            assessed
                .verdicts
                .contains(&(Outcome::Fail, Severity::Critical))
        })
    }

    pub fn state(&self, bands: &Bands) -> ComplianceState {
        match &self.assessed {
            None => ComplianceState::Unknown,
            Some(assessed) => state_of(assessed.summary.score, self.is_critical(), bands),
        }
    }
}

impl Fleet {
    /// Of a moment before anything was recorded.
    pub(super) fn of_nothing(at: Option<Timestamp>) -> Self {
        Self {
            as_of: at.unwrap_or_default(),
            hosts: Vec::new(),
        }
    }

    /// Hosts that were not retired by then.
    pub fn watched(&self) -> impl Iterator<Item = &HostStanding> {
        let hosts = self.hosts.iter().map(|standing| &**standing);
        hosts.filter(|standing| standing.host.retired.is_none())
    }

    /// Leaves out hosts that do not belong to what is asked.
    pub fn retain(&mut self, mut keep: impl FnMut(&HostStanding) -> bool) {
        self.hosts.retain(|standing| keep(standing));
    }

    /// All verdicts of the fleet, counted together.
    pub fn summary(&self) -> Summary {
        let mut sum = Summary::default();
        for assessed in self
            .watched()
            .filter_map(|standing| standing.assessed.as_ref())
        {
            sum.add(&assessed.summary);
        }
        sum
    }

    /// How many hosts are in each state; all states are there.
    pub fn states(&self, bands: &Bands) -> BTreeMap<ComplianceState, u64> {
        let mut states = ComplianceState::ALL.map(|state| (state, 0)).into();
        for standing in self.watched() {
            let count: &mut BTreeMap<_, u64> = &mut states;
            *count.entry(standing.state(bands)).or_default() += 1;
        }
        states
    }

    /// Every rule that was judged on a host that is watched, by id.
    pub fn rules(&self) -> Vec<RuleStanding> {
        // Hosts share lists of rules: counted by place, and put together by name once for each list.
        let mut of_lists: Vec<(&[String], Vec<Option<RuleStanding>>)> = Vec::new();
        let assessed = self
            .watched()
            .filter_map(|standing| standing.assessed.as_ref());
        for assessed in assessed {
            let list = &*assessed.rules;
            let known = of_lists
                .iter()
                .position(|(known, _)| std::ptr::eq(*known, list));
            let place = known.unwrap_or_else(|| {
                of_lists.push((list, vec![None; list.len()]));
                of_lists.len() - 1
            });
            for (counted, judged) in of_lists[place].1.iter_mut().zip(assessed.verdicts()) {
                let counted = counted.get_or_insert_with(|| RuleStanding::new(judged));
                counted.severity = counted.severity.min(judged.severity);
                *counted.count(judged.verdict) += 1;
            }
        }
        let mut found: BTreeMap<String, RuleStanding> = BTreeMap::new();
        for counted in of_lists.into_iter().flat_map(|(_, counted)| counted) {
            let Some(counted) = counted else { continue };
            match found.get_mut(&counted.rule) {
                Some(known) => known.add(&counted),
                None => drop(found.insert(counted.rule.clone(), counted)),
            }
        }
        found.into_values().collect()
    }

    /// The rules that fail on most hosts, those of higher severity first among equals.
    pub fn worst_rules(&self, count: usize) -> Vec<RuleStanding> {
        let mut rules = self.rules();
        rules.retain(|rule| rule.fail > 0);
        rules.sort_by_key(|rule| (Reverse(rule.fail), rule.severity));
        rules.truncate(count);
        rules
    }

    /// The hosts with the lowest scores, of which something failed.
    pub fn worst_hosts(&self, count: usize) -> Vec<&HostStanding> {
        let mut hosts: Vec<(&HostStanding, &Summary)> = self
            .watched()
            .filter_map(|standing| Some((standing, &standing.assessed.as_ref()?.summary)))
            .filter(|(_, summary)| summary.fail > 0)
            .collect();
        hosts.sort_by(|(_, one), (_, other)| {
            let by_score = one
                .score
                .unwrap_or_default()
                .total_cmp(&other.score.unwrap_or_default());
            by_score.then(other.fail.cmp(&one.fail))
        });
        hosts.truncate(count);
        hosts.into_iter().map(|(standing, _)| standing).collect()
    }

    /// What could not be assessed and why, what concerns most hosts first.
    pub fn unassessed(&self) -> Vec<Unassessed> {
        let mut found: HashMap<(&str, &str), Vec<String>> = HashMap::new();
        for standing in self.watched() {
            for (judged, reason) in standing.assessed.iter().flat_map(Assessed::unassessed) {
                found
                    .entry((judged.rule, reason))
                    .or_default()
                    .push(standing.host.name.clone());
            }
        }
        let mut found: Vec<Unassessed> = found
            .into_iter()
            .map(|((rule, reason), hosts)| Unassessed {
                rule: rule.to_owned(),
                reason: reason.to_owned(),
                hosts,
            })
            .collect();
        found.sort_unstable_by(|one, other| {
            let by_hosts = other.hosts.len().cmp(&one.hosts.len());
            let names = |it: &Unassessed| (it.rule.clone(), it.reason.clone());
            by_hosts.then_with(|| names(one).cmp(&names(other)))
        });
        found
    }

    /// As [`Fleet::unassessed`], by rule: that of most hosts first.
    pub fn unassessed_rules(&self) -> Vec<UnassessedRule> {
        let mut found: HashMap<&str, HashMap<&str, u64>> = HashMap::new();
        let standings = self.watched().flat_map(|standing| &standing.assessed);
        for (judged, reason) in standings.flat_map(Assessed::unassessed) {
            let reasons = found.entry(judged.rule).or_default();
            *reasons.entry(reason).or_default() += 1;
        }
        let told = |(rule, reasons): (&str, HashMap<&str, u64>)| {
            // Of reasons of as many hosts the first one: the same at each look.
            let most = reasons
                .iter()
                .max_by_key(|(reason, alike)| (**alike, Reverse(**reason)));
            let (reason, alike) = most.map_or(("", 0), |(reason, alike)| (reason, *alike));
            UnassessedRule {
                rule: rule.to_owned(),
                hosts: reasons.values().sum(),
                reason: reason.to_owned(),
                alike,
            }
        };
        let mut found: Vec<UnassessedRule> = found.into_iter().map(told).collect();
        found.sort_unstable_by(|one, other| {
            other.hosts.cmp(&one.hosts).then(one.rule.cmp(&other.rule))
        });
        found
    }

    /// One rule on every host that is watched and was judged by it.
    pub fn rule<'a>(&'a self, rule: &str) -> Vec<(&'a HostStanding, RuleVerdict<'a>)> {
        self.watched()
            .filter_map(|standing| Some((standing, standing.assessed.as_ref()?.verdict(rule)?)))
            .collect()
    }

    /// The failures that have a waiver beside them, counted as beside the verdicts of one host.
    /// `labels` are the hosts of the inventory by name, and `at` is the moment asked for.
    pub fn waived(
        &self,
        waivers: &[Waiver],
        labels: &BTreeMap<String, inventory::Host>,
        at: Timestamp,
    ) -> FleetWaived {
        let mut holding: HashMap<&str, Vec<&Waiver>> = HashMap::new();
        for waiver in waivers {
            if waiver.standing(at) == Some(waiver::Standing::Approved) {
                holding.entry(&waiver.rule).or_default().push(waiver);
            }
        }
        let mut waived = 0;
        for standing in self.watched() {
            let name = &standing.host.name;
            let labels = labels.get(name);
            let failed = standing
                .assessed
                .iter()
                .flat_map(Assessed::verdicts)
                .filter(|judged| judged.verdict == Outcome::Fail);
            waived += failed
                .filter(|judged| {
                    let of_rule = holding.get(judged.rule);
                    of_rule.is_some_and(|waivers| {
                        waivers
                            .iter()
                            .any(|waiver| waiver.is_for(judged.rule, name, labels))
                    })
                })
                .map(|_| 1)
                .sum::<u64>();
        }
        let mut counted = self.summary();
        counted.fail = counted.fail.saturating_sub(waived);
        FleetWaived {
            waived,
            score: counted.rescored().score,
        }
    }
}

impl RuleStanding {
    fn new(judged: RuleVerdict<'_>) -> Self {
        Self {
            rule: judged.rule.to_owned(),
            severity: judged.severity,
            pass: 0,
            fail: 0,
            not_applicable: 0,
            not_assessed: 0,
            error: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.severity = self.severity.min(other.severity);
        for verdict in Outcome::ALL {
            let more = *other.clone().count(verdict);
            *self.count(verdict) += more;
        }
    }

    fn count(&mut self, verdict: Outcome) -> &mut u64 {
        match verdict {
            Outcome::Pass => &mut self.pass,
            Outcome::Fail => &mut self.fail,
            Outcome::NotApplicable => &mut self.not_applicable,
            Outcome::NotAssessed => &mut self.not_assessed,
            Outcome::Error => &mut self.error,
        }
    }
}

/// `then` is the moment asked for; `latest` holds what is never rewritten. Of what `known` has decoded
/// already, nothing is decoded again.
pub(super) fn fleet(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
    known: &mut Rows,
) -> Result<Fleet, Error> {
    let found = standing_rows(tables, then, latest)?;
    known.make_room();
    let mut boards: Vec<Option<Board>> = Vec::with_capacity(found.len());
    for found in &found {
        let board = found.board.as_deref();
        let is_known = known.standing(&found.name, &found.host, board).is_some();
        let board = board.filter(|_| !is_known).map(decode);
        boards.push(board.transpose()?);
    }
    read_lists(tables, latest, &boards, known)?;
    let mut standings = Vec::with_capacity(found.len());
    for (found, decoded) in found.iter().zip(boards) {
        let board = found.board.as_ref();
        if let Some(standing) = known.standing(&found.name, &found.host, board.map(|it| &it[..])) {
            standings.push(standing);
            continue;
        }
        let host: Host = decode(&found.host)?;
        let assessed = match (decoded, &host.last_scan) {
            (_, None) => None,
            (Some(board), Some(_)) => {
                let rules = known
                    .list(&board.rules)
                    .ok_or_else(|| no_list(&board.rules))?;
                let rules = Arc::clone(rules);
                let read = board.read(rules.len())?;
                Some(assessed(&host, rules, read))
            }
            (None, Some(_)) => of_states(tables, then, latest, &host, known)?,
        };
        let standing = Arc::new(HostStanding { host, assessed });
        known.remember(&found.name, &found.host, board, &standing);
        standings.push(standing);
    }
    Ok(Fleet {
        as_of: then.time(),
        hosts: standings,
    })
}

/// The lists of rules of `boards` that are not known yet.
fn read_lists(
    tables: &Tables,
    latest: &Snapshot,
    boards: &[Option<Board>],
    known: &mut Rows,
) -> Result<(), Error> {
    let wanted: BTreeSet<&str> = boards
        .iter()
        .flatten()
        .map(|board| &*board.rules)
        .filter(|digest| known.list(digest).is_none())
        .collect();
    let keys: Vec<_> = wanted
        .iter()
        .map(|digest| (tables.rules, digest.as_bytes()))
        .collect();
    for (digest, list) in wanted.iter().zip(latest.get_many(&keys)?) {
        let list = list.ok_or_else(|| no_list(digest))?;
        known.remember_list(digest, decode::<Vec<String>>(&list)?.into());
    }
    Ok(())
}

fn no_list(digest: &str) -> Error {
    Error::new(Class::Storage, format!("list of rules {digest} is missing"))
}

/// All verdicts of the hosts that were watched then, counted together, as [`Fleet::summary`] has it:
/// of each host no more is decoded than what its last scan counted.
pub(super) fn summary(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
) -> Result<Summary, Error> {
    let mut sum = Summary::default();
    for found in standing_rows(tables, then, latest)? {
        let host: Scanned = decode(&found.host)?;
        if host.retired.is_none() {
            let counted = counted(tables, then, latest, &found, &host)?;
            counted.iter().for_each(|counted| sum.add(counted));
        }
    }
    Ok(sum)
}

/// What the last scan of a host by then counted.
pub(super) fn summary_of(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
    host: &str,
) -> Result<Option<Summary>, Error> {
    let found = found(tables, then, vec![host.as_bytes().to_vec()])?;
    let Some(found) = found.first() else {
        return Ok(None);
    };
    counted(tables, then, latest, found, &decode(&found.host)?)
}

/// Of a host's row, what says whether it is counted.
#[derive(serde::Deserialize)]
struct Scanned {
    retired: Option<u64>,
    last_scan: Option<serde::de::IgnoredAny>,
}

fn counted(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
    found: &Found,
    host: &Scanned,
) -> Result<Option<Summary>, Error> {
    match (&found.board, &host.last_scan) {
        (_, None) => Ok(None),
        (Some(board), Some(_)) => board::summary(board).map(Some),
        (None, Some(_)) => {
            let (host, mut alone) = (decode(&found.host)?, Rows::default());
            let assessed = of_states(tables, then, latest, &host, &mut alone)?;
            Ok(assessed.map(|assessed| assessed.summary))
        }
    }
}

/// Every host that was known then, by name.
pub(super) fn hosts(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
) -> Result<Vec<Host>, Error> {
    let found = standing_rows(tables, then, latest)?;
    found.iter().map(|found| decode(&found.host)).collect()
}

/// The rows of one host, as they were then.
struct Found {
    name: Vec<u8>,
    host: Bytes,
    board: Option<Bytes>,
}

/// By name where the names are known: a range over the hosts would step over every version that they
/// ever had, one for each scan.
fn standing_rows(tables: &Tables, then: &Snapshot, latest: &Snapshot) -> Result<Vec<Found>, Error> {
    let names = match index::names(tables, latest)? {
        Some(names) => names,
        None => rows(then, tables.hosts, &Keys::all())?
            .into_iter()
            .map(|(name, _)| name.to_vec())
            .collect(),
    };
    found(tables, then, names)
}

fn found(tables: &Tables, then: &Snapshot, names: Vec<Vec<u8>>) -> Result<Vec<Found>, Error> {
    let of_table = |table| names.iter().map(move |name| (table, &name[..]));
    let keys: Vec<_> = of_table(tables.hosts)
        .chain(of_table(tables.boards))
        .collect();
    let mut hosts = match then.get_many(&keys) {
        // Then there were no boards yet: their table was added later, and has no past.
        Err(error) if error.kind() == store::Kind::OutOfRange => {
            then.get_many(&keys[..names.len()])?
        }
        found => found?,
    };
    let boards = hosts.split_off(names.len()).into_iter();
    let boards = boards.chain(std::iter::repeat(None));
    let rows = names.into_iter().zip(hosts).zip(boards);
    Ok(rows
        // A host that is known by now and was not then.
        .filter_map(|((name, host), board)| {
            let host = host?;
            Some(Found { name, host, board })
        })
        .collect())
}

fn assessed(host: &Host, rules: Arc<[String]>, read: Read) -> Assessed {
    Assessed {
        scan_id: host.last_scan.clone().unwrap_or_default(),
        finished: Timestamp::from_nanos(host.last_finished.unwrap_or_default()),
        summary: read.summary,
        rules,
        verdicts: read.verdicts,
        unassessed: read.unassessed,
    }
}

/// Of a moment before there were boards. Hosts that were judged by the same rules share their list here too:
/// of each host its own would weigh ten times what else there is of it.
fn of_states(
    tables: &Tables,
    then: &Snapshot,
    latest: &Snapshot,
    host: &Host,
    known: &mut Rows,
) -> Result<Option<Assessed>, Error> {
    let Some(status) = history::status(tables, then, latest, &host.name)? else {
        return Ok(None);
    };
    let ScanRow { summary, .. } = status.scan;
    let states: Vec<Row<'_>> = status.states.iter().map(Row::of_state).collect();
    debug_assert!(states.is_sorted_by_key(|row| row.rule));
    let (board, list) = Board::of(summary, states);
    let rules = match known.list(&list.digest) {
        Some(rules) => Arc::clone(rules),
        None => {
            let rules = status.states.iter().map(|state| state.rule.clone());
            let rules: Arc<[String]> = rules.collect();
            known.remember_list(&list.digest, Arc::clone(&rules));
            rules
        }
    };
    let read = board.read(rules.len())?;
    Ok(Some(assessed(host, rules, read)))
}
