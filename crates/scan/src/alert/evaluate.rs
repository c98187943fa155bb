//! From what is recorded to alerts and to what receivers are told of them.
//!
//! Every step is one transaction: a scan is taken off the list of those that wait, its alerts are
//! written and its notices queued together. Two processes on one store look at the same list; whoever
//! commits first has the scan, and the other finds it gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use store::{Snapshot, Store, Transaction};
use world::{Random, Timestamp};

use super::{
    ACTOR, Alert, Error, ErrorKind, Event, HostLabels, Key, Kind, Outbox, Receiver, Severity,
    State, What,
    host::{self, Found},
    memory::{Memories, Memory},
    rows::{Raise, Rows, step},
};
use crate::{
    drift::{self, Drift, Grade},
    inventory::{self, Inventory},
    judge::Outcome,
    ledger::{ChangeKind, Ledger, Recent, RecentKey, Turn},
    policy::{Reason, Registry},
    rule,
    schedule::{self, Row},
    waiver::{self, Standing, Waiver, Waivers},
};

/// How often is looked. Nobody who is told by mail minds five seconds, and a look at a thousand hosts
/// takes milliseconds.
pub const EVERY: Duration = Duration::from_secs(5);
/// Scans of one look; those beyond it are the next one's.
const SCANS_MAX: usize = 256;
/// Attempts before a conflict is left to the next look.
const ATTEMPTS_MAX: u32 = 8;
/// A policy that ends within this is told of: over a weekend, for two people.
const POLICY_SOON: Duration = Duration::from_secs(7 * 86_400);
/// What is so still although somebody resolved it is back after this.
const INSIST: Duration = Duration::from_secs(3600);
/// Rules that a detail names; the others are counted.
const NAMED_MAX: usize = 5;

/// Something about the whole site that whoever looks has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub kind: Kind,
    pub subject: Option<String>,
    /// One line for people while it is so; `None`: it is not.
    pub detail: Option<String>,
}

/// What one look did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    pub scans: u64,
    /// What receivers were told of.
    pub events: u64,
    /// There is more that waits.
    pub is_more: bool,
}

/// Raises and ends alerts, on a store that has [`crate::tables`].
#[derive(Debug)]
pub struct Evaluator {
    store: Store,
    rows: Rows,
    memories: Memories,
    outbox: Outbox,
    ledger: Ledger,
    schedule: schedule::Rows,
    inventory: Inventory,
    waivers: Waivers,
    registry: Registry,
    receivers: Vec<Receiver>,
}

/// What is the same for a whole look.
struct Look {
    now: Timestamp,
    hosts: BTreeMap<String, inventory::Host>,
    waivers: Vec<Waiver>,
}

impl Look {
    fn labels(&self, host: &str) -> HostLabels {
        let found = self.hosts.get(host);
        HostLabels {
            name: host.to_owned(),
            site: found.map_or_else(String::new, |host| host.site.clone()),
            groups: found.map(|host| host.groups.clone()).unwrap_or_default(),
        }
    }

    fn waived(&self, host: &str, rule: &str) -> Option<(u32, u64)> {
        let labels = self.hosts.get(host);
        waiver::beside(&self.waivers, rule, host, labels, self.now)
            .map(|waiver| (waiver.id, waiver.expires))
    }
}

impl Evaluator {
    pub fn new(
        store: &Store,
        random: Arc<dyn Random>,
        receivers: Vec<Receiver>,
    ) -> Result<Self, Error> {
        Ok(Self {
            rows: Rows::of(store)?,
            memories: Memories::of(store)?,
            outbox: Outbox::new(store.clone(), random)?,
            ledger: Ledger::new(store.clone()).map_err(Error::storage)?,
            schedule: schedule::Rows::of(store).map_err(Error::storage)?,
            inventory: Inventory::new(store.clone()).map_err(Error::storage)?,
            waivers: Waivers::new(store.clone()).map_err(Error::storage)?,
            registry: Registry::new(store.clone()).map_err(Error::storage)?,
            store: store.clone(),
            receivers,
        })
    }

    /// One look at everything.
    pub fn look(&self, now: Timestamp, site: &[Condition]) -> Result<Evaluated, Error> {
        let hosts = self.inventory.list(None).map_err(Error::storage)?;
        let named = |host: inventory::Host| (host.name.clone(), host);
        let look = Look {
            now,
            hosts: hosts.into_iter().map(named).collect(),
            waivers: self.waivers.list().map_err(Error::storage)?,
        };
        let mut done = Evaluated::default();
        let waiting = self.ledger.waiting(SCANS_MAX).map_err(Error::storage)?;
        done.is_more = waiting.len() == SCANS_MAX;
        for key in &waiting {
            let concluded = self.transact(|transaction| self.scan_in(transaction, key, &look))?;
            if let Some(events) = concluded.flatten() {
                done.scans += 1;
                done.events += events;
            }
        }
        let snapshot = self.store.snapshot()?;
        let open = self.rows.open(&snapshot)?;
        done.events += self.hosts(&snapshot, &open, &look)?;
        done.events += self.site(site, &look)?;
        done.events += self.due(&open, &look)?;
        Ok(done)
    }

    /// `None`: others won every attempt, and the next look sees what they did.
    fn transact<T>(
        &self,
        mut change: impl FnMut(&mut Transaction) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let mut transaction = self.store.begin()?;
            let done =
                change(&mut transaction).and_then(|done| Ok(transaction.commit().map(|_| done)?));
            match done {
                Err(error) if error.kind == ErrorKind::Conflict => {}
                settled => return settled.map(Some),
            }
        }
        Ok(None)
    }

    fn put_in(
        &self,
        transaction: &mut Transaction,
        host: Option<&str>,
        events: &[Event],
        look: &Look,
    ) -> Result<u64, Error> {
        let labels = host.map(|host| look.labels(host));
        self.outbox.put_in(
            transaction,
            &self.receivers,
            labels.as_ref(),
            events,
            look.now,
        )?;
        Ok(events.len() as u64)
    }

    /// `None`: another has taken it.
    fn scan_in(
        &self,
        transaction: &mut Transaction,
        key: &RecentKey,
        look: &Look,
    ) -> Result<Option<u64>, Error> {
        let taken = self.ledger.take_in(transaction, key).map_err(of_ledger)?;
        let Some(scan) = taken else { return Ok(None) };
        let mut memory = self.memories.get_in(transaction, &scan.host)?;
        let mut events = Vec::new();
        if scan.number == 1 {
            events.extend(self.baseline_in(transaction, &scan, &mut memory, look)?);
        } else {
            self.turns_in(transaction, &scan, &mut memory, look, &mut events)?;
        }
        memory.last_finished = memory.last_finished.max(scan.finished);
        self.memories.put_in(transaction, &scan.host, &memory)?;
        self.put_in(transaction, Some(&scan.host), &events, look)
            .map(Some)
    }

    /// The first scan of a host is what later ones are compared with: no drift, and one alert for
    /// everything that is wrong.
    fn baseline_in(
        &self,
        transaction: &mut Transaction,
        scan: &Recent,
        memory: &mut Memory,
        look: &Look,
    ) -> Result<Option<Event>, Error> {
        let is_meant = |turn: &&Turn| {
            is_grave(turn.severity).is_some() && look.waived(&scan.host, &turn.rule).is_none()
        };
        let failing: Vec<&Turn> = scan.turns.iter().filter(is_meant).collect();
        if failing.is_empty() {
            return Ok(None);
        }
        let critical = failing
            .iter()
            .filter(|turn| turn.severity == rule::Severity::Critical)
            .count();
        let rules: BTreeSet<String> = failing.iter().map(|turn| turn.rule.clone()).collect();
        let detail = format!(
            "first scan: {critical} critical and {} high rules fail: {}",
            failing.len() - critical,
            named(rules.iter())
        );
        let kind = Kind::FindingsBaseline;
        let severity = if critical > 0 {
            Severity::Critical
        } else {
            kind.severity()
        };
        memory.until_mended.insert(kind, rules);
        let raise = Raise::new(severity, &detail, Timestamp::from_nanos(scan.finished));
        let key = Key::of_host(kind, &scan.host);
        self.rows.raise_in(transaction, &key, &raise, look.now)
    }

    fn turns_in(
        &self,
        transaction: &mut Transaction,
        scan: &Recent,
        memory: &mut Memory,
        look: &Look,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        for turn in &scan.turns {
            let was = memory.unseen.get(&turn.rule).copied().or(turn.from);
            match turn.to {
                Outcome::Fail => {
                    events.extend(self.failing_in(transaction, scan, turn, was, memory, look)?);
                }
                Outcome::Pass | Outcome::NotApplicable => {
                    self.mended_in(transaction, scan, &turn.rule, memory, look, events)?;
                }
                // Nothing was seen: what was wrong may be so still.
                Outcome::NotAssessed | Outcome::Error => {}
            }
        }
        for rule in &scan.gone {
            self.mended_in(transaction, scan, rule, memory, look, events)?;
        }
        let drift = drift::measure(&scan.summary, &scan.turns, &scan.gone, &mut memory.unseen);
        events.extend(self.drift_in(transaction, scan, &drift, memory, look)?);
        Ok(())
    }

    /// A rule that fails, and did not when it was last seen.
    fn failing_in(
        &self,
        transaction: &mut Transaction,
        scan: &Recent,
        turn: &Turn,
        was: Option<Outcome>,
        memory: &Memory,
        look: &Look,
    ) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        if turn.kind == ChangeKind::SeverityChanged
            && let Some(before) = turn.severity_before.and_then(is_grave)
        {
            let key = Key::of_rule(before, &scan.host, &turn.rule);
            let ended = self
                .rows
                .end_in(transaction, &key, "its severity is another", look.now)?;
            events.extend(ended);
        }
        let is_known = (was == Some(Outcome::Fail) && turn.kind != ChangeKind::SeverityChanged)
            || memory.is_awaited(Kind::FindingsBaseline, &turn.rule);
        let Some(kind) = is_grave(turn.severity).filter(|_| !is_known) else {
            return Ok(events);
        };
        let before = was.map_or("not judged before", Outcome::name);
        let detail = format!("rule {} fails, {before}", turn.rule);
        let at = Timestamp::from_nanos(scan.finished);
        let mut raise = Raise::new(kind.severity(), &detail, at);
        raise.waiver = look.waived(&scan.host, &turn.rule);
        let key = Key::of_rule(kind, &scan.host, &turn.rule);
        events.extend(self.rows.raise_in(transaction, &key, &raise, look.now)?);
        Ok(events)
    }

    fn mended_in(
        &self,
        transaction: &mut Transaction,
        scan: &Recent,
        rule: &str,
        memory: &mut Memory,
        look: &Look,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let findings = [Kind::FindingCritical, Kind::FindingHigh];
        let mut over: Vec<Key> = findings
            .map(|kind| Key::of_rule(kind, &scan.host, rule))
            .to_vec();
        let by_it = memory.mended(rule);
        over.extend(by_it.into_iter().map(|kind| Key::of_host(kind, &scan.host)));
        for key in over {
            let why = "what failed does not fail any more";
            events.extend(self.rows.end_in(transaction, &key, why, look.now)?);
        }
        Ok(())
    }

    fn drift_in(
        &self,
        transaction: &mut Transaction,
        scan: &Recent,
        drift: &Drift,
        memory: &mut Memory,
        look: &Look,
    ) -> Result<Option<Event>, Error> {
        let kind = match drift.grade() {
            Grade::Stable => return Ok(None),
            Grade::Major => Kind::DriftMajor,
            Grade::Minor => Kind::DriftMinor,
            Grade::Improvement => Kind::DriftImprovement,
        };
        let score =
            |score: Option<f64>| score.map_or_else(|| "none".to_owned(), |it| format!("{it:.1}"));
        let (before, after) = drift.scores();
        let mut detail = format!("score {} after {}", score(after), score(before));
        if !drift.failing.is_empty() {
            detail += &format!(": {} fail since", named(drift.failing.iter()));
        }
        if kind != Kind::DriftImprovement {
            let awaited = memory.until_mended.entry(kind).or_default();
            awaited.extend(drift.failing.iter().cloned());
            // Rules that passed and do not apply any more: nothing fails that could be mended.
            if awaited.is_empty() {
                memory.until_mended.remove(&kind);
            }
        }
        let at = Timestamp::from_nanos(scan.finished);
        let raise = Raise::new(kind.severity(), &detail, at);
        let key = Key::of_host(kind, &scan.host);
        self.rows.raise_in(transaction, &key, &raise, look.now)
    }

    /// Whether hosts answer, and what is over because they are retired.
    fn hosts(&self, snapshot: &Snapshot, open: &[Alert], look: &Look) -> Result<u64, Error> {
        let memories = self.memories.all(snapshot)?;
        let rows = self.schedule.all(snapshot).map_err(Error::storage)?;
        let by_key: BTreeMap<&Key, &Alert> = open.iter().map(|alert| (&alert.key, alert)).collect();
        let none = Memory::default();
        let is_news = |row: &Row| {
            let memory = memories.get(&row.host).unwrap_or(&none);
            host::KINDS.iter().any(|kind| {
                let alert = by_key.get(&Key::of_host(*kind, &row.host));
                let last = alert.map(|alert| alert.last);
                match host::look(*kind, row, memory, last) {
                    Found::Holds(raise) => last.is_none_or(|last| raise.at.nanos() > last),
                    Found::Over(_) => alert.is_some(),
                    Found::Unknown => false,
                }
            })
        };
        let mut events = 0;
        for row in rows.iter().filter(|row| is_news(row)) {
            let done = self.transact(|transaction| self.host_in(transaction, &row.host, look))?;
            events += done.unwrap_or(0);
        }
        let scheduled: BTreeSet<&str> = rows.iter().map(|row| row.host.as_str()).collect();
        for alert in open {
            let Some(host) = alert.key.host.as_deref() else {
                continue;
            };
            let found = look.hosts.get(host);
            let is_retired = found.is_some_and(|host| host.retired.is_some());
            let is_left = host::KINDS.contains(&alert.key.kind) && !scheduled.contains(host);
            if is_retired || is_left {
                let done = self.transact(|transaction| {
                    let why = "the host is not watched any more";
                    let event = self.rows.end_in(transaction, &alert.key, why, look.now)?;
                    self.put_in(transaction, Some(host), event.as_slice(), look)
                })?;
                events += done.unwrap_or(0);
            }
        }
        Ok(events)
    }

    /// As the snapshot showed it may be over already: looked at again, in the transaction.
    fn host_in(
        &self,
        transaction: &mut Transaction,
        host: &str,
        look: &Look,
    ) -> Result<u64, Error> {
        let row = self
            .schedule
            .get_in(transaction, host)
            .map_err(of_schedule)?;
        let Some(row) = row else { return Ok(0) };
        let memory = self.memories.get_in(transaction, host)?;
        let mut events = Vec::new();
        for kind in host::KINDS {
            let key = Key::of_host(kind, host);
            let newest = self.rows.newest_in(transaction, &key)?;
            let last = newest.map(|alert| alert.last);
            match host::look(kind, &row, &memory, last) {
                // One attempt is one occurrence, however often it is looked at.
                Found::Holds(raise) if last.is_none_or(|last| raise.at.nanos() > last) => {
                    events.extend(self.rows.raise_in(transaction, &key, &raise, look.now)?);
                }
                Found::Over(why) => {
                    events.extend(self.rows.end_in(transaction, &key, why, look.now)?);
                }
                Found::Holds(_) | Found::Unknown => {}
            }
        }
        self.put_in(transaction, Some(host), &events, look)
    }

    /// What is about the whole site.
    fn site(&self, told: &[Condition], look: &Look) -> Result<u64, Error> {
        let mut events = 0;
        let own = self.policy(look.now)?;
        let failing = self.receivers_failing()?;
        for condition in told.iter().chain(&own).chain(&failing) {
            let done = self.transact(|transaction| {
                let event = self.condition_in(transaction, condition, look)?;
                self.put_in(transaction, None, event.as_slice(), look)
            })?;
            events += done.unwrap_or(0);
        }
        Ok(events)
    }

    fn condition_in(
        &self,
        transaction: &mut Transaction,
        condition: &Condition,
        look: &Look,
    ) -> Result<Option<Event>, Error> {
        let key = Key {
            kind: condition.kind,
            host: None,
            subject: condition.subject.clone(),
        };
        let Some(detail) = &condition.detail else {
            return self
                .rows
                .end_in(transaction, &key, "it is not so any more", look.now);
        };
        let newest = self.rows.newest_in(transaction, &key)?;
        let is_told = newest.is_some_and(|alert| match (&alert.resolved, alert.state) {
            (Some(step), State::Resolved) => {
                step.by != ACTOR && Timestamp::from_nanos(step.at).plus(INSIST) > look.now
            }
            _ => true,
        });
        if is_told {
            return Ok(None);
        }
        let raise = Raise::new(condition.kind.severity(), detail, look.now);
        self.rows.raise_in(transaction, &key, &raise, look.now)
    }

    fn policy(&self, now: Timestamp) -> Result<[Condition; 2], Error> {
        let (refused, expiring) = match self.registry.in_force(now) {
            Ok(active) => {
                let ends = active.document.metadata.expires;
                let soon = ends.filter(|ends| *ends <= now.plus(POLICY_SOON));
                let soon = soon.and_then(|ends| {
                    let ends = jiff::Timestamp::from_nanosecond(i128::from(ends.nanos())).ok()?;
                    Some(format!(
                        "policy {} holds until {ends:.0}",
                        active.loaded.version
                    ))
                });
                (None, soon)
            }
            // A store that cannot be read says nothing of the policy.
            Err(refused) if refused.reason == Reason::Storage => {
                return Err(Error::storage(refused));
            }
            // Nothing was ever loaded: this is no site that schedules anything.
            Err(refused) if refused.reason == Reason::PolicyMissing => (None, None),
            Err(refused) => (Some(format!("nothing is dispatched: {refused}")), None),
        };
        let condition = |kind, detail| Condition {
            kind,
            subject: None,
            detail,
        };
        Ok([
            condition(Kind::PolicyRefused, refused),
            condition(Kind::PolicyExpiring, expiring),
        ])
    }

    fn receivers_failing(&self) -> Result<Vec<Condition>, Error> {
        let of = |receiver: &Receiver| {
            let row = self.outbox.receiver(&receiver.name)?;
            let error = row.last_error.unwrap_or_default();
            let is_failing = row.failures >= RECEIVER_FAILING_AFTER;
            Ok(Condition {
                kind: Kind::ReceiverFailing,
                subject: Some(receiver.name.clone()),
                detail: is_failing.then(|| {
                    let name = &receiver.name;
                    format!(
                        "receiver {name}: {} attempts in a row came to nothing: {error}",
                        row.failures
                    )
                }),
            })
        };
        self.receivers.iter().map(of).collect()
    }

    /// Silences that are over, and what came back and was kept quiet of.
    fn due(&self, open: &[Alert], look: &Look) -> Result<u64, Error> {
        let mut events = 0;
        for alert in open.iter().filter(|alert| is_due(alert, look).is_some()) {
            let done = self.transact(|transaction| {
                let Some(mut alert) = self.rows.get_in(transaction, alert.id)? else {
                    return Ok(0);
                };
                let Some(what) = is_due(&alert, look) else {
                    return Ok(0);
                };
                if what == What::SilenceEnded {
                    let by = step(look.now, ACTOR, "");
                    let action = "alert.silence_ended";
                    self.rows
                        .step_in(transaction, &mut alert, State::Open, &by, action)?;
                }
                let host = alert.key.host.clone();
                let event = self.rows.tell_in(transaction, alert, what, look.now)?;
                self.put_in(transaction, host.as_deref(), &[event], look)
            })?;
            events += done.unwrap_or(0);
        }
        Ok(events)
    }
}

/// Failed attempts in a row from which on a receiver is told of itself: five are more than a minute.
const RECEIVER_FAILING_AFTER: u32 = 5;

fn is_due(alert: &Alert, look: &Look) -> Option<What> {
    let now = look.now.nanos();
    let of_waiver = |id: u32| look.waivers.iter().find(|waiver| waiver.id == id);
    match (alert.state, &alert.silenced) {
        (State::Silenced, Some(silence)) => {
            let waiver = silence.waiver.and_then(of_waiver);
            let is_lifted =
                waiver.is_some_and(|waiver| waiver.standing(look.now) != Some(Standing::Approved));
            (silence.until <= now || is_lifted).then_some(What::SilenceEnded)
        }
        (State::Open, _) if alert.tell_at.is_some_and(|at| at <= now) => Some(What::Reopened),
        _ => None,
    }
}

/// What the alert of a rule of this severity is, if there is one.
fn is_grave(severity: rule::Severity) -> Option<Kind> {
    match severity {
        rule::Severity::Critical => Some(Kind::FindingCritical),
        rule::Severity::High => Some(Kind::FindingHigh),
        rule::Severity::Medium | rule::Severity::Low => None,
    }
}

fn named<'r>(rules: impl ExactSizeIterator<Item = &'r String>) -> String {
    let more = rules.len().saturating_sub(NAMED_MAX);
    let mut names = rules
        .take(NAMED_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        names += &format!(" and {more} more");
    }
    names
}

fn of_ledger(error: crate::ledger::Error) -> Error {
    match error.class() {
        crate::ledger::Class::Conflict => conflict(),
        _ => Error::storage(error),
    }
}

fn of_schedule(error: schedule::Error) -> Error {
    match error.kind() {
        schedule::Kind::Conflict => conflict(),
        _ => Error::storage(error),
    }
}

fn conflict() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another process changed the same rows",
        "try again",
    )
}
