//! What a receiver is told: one notice for everything that one look at one host brought.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Alert, Kind, Severity, State};

/// Alerts that a notice names; the others are counted. A page of a mail.
pub const EVENTS_MAX: usize = 20;

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Opened,
    /// It was over, and is so again.
    Reopened,
    /// It is open still, and the time for which nobody was told is over.
    SilenceEnded,
    Resolved,
    /// Somebody tries whether the receiver works.
    Test,
}

impl What {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::SilenceEnded => "silence_ended",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// One alert and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub event: What,
    pub alert: u64,
    pub kind: Kind,
    pub severity: Severity,
    pub state: State,
    /// The rule, or the receiver that fails.
    pub subject: Option<String>,
    pub detail: String,
    /// Nanoseconds since the epoch, as all times of rows.
    pub first: u64,
    pub last: u64,
    pub count: u64,
}

impl Event {
    pub fn of(event: What, alert: &Alert) -> Self {
        Self {
            event,
            alert: alert.id,
            kind: alert.key.kind,
            severity: alert.severity,
            state: alert.state,
            subject: alert.key.subject.clone(),
            detail: alert.detail.clone(),
            first: alert.first,
            last: alert.last,
            count: alert.count,
        }
    }
}

/// A host as filters and readers know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLabels {
    pub name: String,
    pub site: String,
    pub groups: BTreeSet<String>,
}

/// What a full queue could not take, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub events: u64,
    pub by_severity: BTreeMap<Severity, u64>,
    pub first: u64,
    pub last: u64,
}

/// What is sent at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same each time that this is tried: a receiver that had it already drops it by this.
    pub id: String,
    pub at: u64,
    /// None: about the whole site.
    pub host: Option<HostLabels>,
    /// Worst first, at most [`EVENTS_MAX`].
    pub events: Vec<Event>,
    /// How many there are, those that are not named included.
    pub total: u64,
    pub by_severity: BTreeMap<Severity, u64>,
    /// This tells of no alerts of its own, but of those that the queue had no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

impl Notice {
    /// `events` is not empty.
    pub fn new(id: String, at: u64, host: Option<HostLabels>, mut events: Vec<Event>) -> Self {
        let total = events.len() as u64;
        let by_severity = count(&events);
        // What is over last, whatever it was.
        events.sort_by_key(|event| {
            (
                event.event == What::Resolved,
                std::cmp::Reverse(event.severity),
                event.alert,
            )
        });
        events.truncate(EVENTS_MAX);
        Self {
            id,
            at,
            host,
            events,
            total,
            by_severity,
            left_out: None,
        }
    }

    pub fn of_left_out(id: String, at: u64, left_out: LeftOut) -> Self {
        Self {
            id,
            at,
            host: None,
            events: Vec::new(),
            total: left_out.events,
            by_severity: left_out.by_severity.clone(),
            left_out: Some(left_out),
        }
    }

    /// Of what is not over the worst; where everything is over, of that.
    pub fn severity(&self) -> Severity {
        let first = self.events.first().map(|event| event.severity);
        let counted = self.by_severity.keys().max().copied();
        first.or(counted).unwrap_or(Severity::Info)
    }
}

fn count(events: &[Event]) -> BTreeMap<Severity, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event.severity).or_default() += 1;
    }
    counts
}

/// Who is told of what. Empty sets let everything through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pub name: String,
    pub minimum: Severity,
    pub kinds: BTreeSet<Kind>,
    pub hosts: BTreeSet<String>,
    pub groups: BTreeSet<String>,
    /// Told too when something is over.
    pub resolved: bool,
}

impl Receiver {
    /// Those of `events` that it is told of.
    pub fn wanted(&self, host: Option<&HostLabels>, events: &[Event]) -> Vec<Event> {
        let is_wanted = |event: &&Event| {
            event.severity >= self.minimum
                && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
                && (self.resolved || event.event != What::Resolved)
                // Whoever fails is not told that it does.
                && !(event.kind == Kind::ReceiverFailing
                    && event.subject.as_ref() == Some(&self.name))
        };
        if !self.is_for(host) {
            return Vec::new();
        }
        events.iter().filter(is_wanted).cloned().collect()
    }

    /// What is about the whole site is for everybody.
    fn is_for(&self, host: Option<&HostLabels>) -> bool {
        let Some(host) = host else { return true };
        (self.hosts.is_empty() && self.groups.is_empty())
            || self.hosts.contains(&host.name)
            || !self.groups.is_disjoint(&host.groups)
    }
}

impl LeftOut {
    pub(super) fn add(&mut self, notice: &Notice) {
        if self.events == 0 {
            self.first = notice.at;
        }
        self.last = notice.at;
        self.events += notice.total;
        for (severity, count) in &notice.by_severity {
            *self.by_severity.entry(*severity).or_default() += count;
        }
    }
}
