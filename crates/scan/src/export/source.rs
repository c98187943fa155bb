//! What an export reads: hosts of a request one by one, each with its verdicts and what stands beside
//! them, all as they were at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use sha2::{Digest, Sha256};
use store::Store;
use world::Timestamp;

use super::{Chosen, Error, Kind, Progress, Request, text};
use crate::{
    inventory::{self, Inventory},
    judge::{Outcome, Summary, hex},
    ledger::{Ledger, State, Status},
    rule::{Rule, Severity},
    schedule::{Backoff, Probe, Rows},
    waiver::{self, Waiver, Waivers},
};

/// Everything that an export is made of, but for the verdicts of hosts, which are read as they come.
pub(super) struct Source<'s> {
    ledger: Ledger,
    rules: BTreeMap<&'s str, &'s Rule>,
    waivers: Vec<Waiver>,
    labels: BTreeMap<String, inventory::Host>,
    /// Failed last attempts. Of a past moment they are not kept.
    failed: BTreeMap<String, Backoff>,
    hosts: Vec<String>,
    /// The moment that is read.
    read_at: Timestamp,
    /// The moment that is told, and that waivers and ages are measured at.
    pub(super) at: Timestamp,
    progress: Progress<'s>,
}

/// One host.
pub(super) struct HostReport {
    pub(super) name: String,
    pub(super) labels: Option<inventory::Host>,
    /// `None`: it is watched and was never scanned by then.
    pub(super) status: Option<Status>,
    /// The last attempt came to nothing: what is known is older than it should be.
    pub(super) failed: Option<Backoff>,
}

/// One verdict and what stands beside it.
pub(super) struct Finding<'f> {
    pub(super) state: &'f State,
    pub(super) rule: Option<&'f Rule>,
    /// Only beside a failure: nothing else is waived.
    pub(super) waiver: Option<&'f Waiver>,
}

/// What has to be known of all hosts before the first is written.
pub(super) struct Survey {
    /// Every rule that was judged, and the severity it has on some host.
    pub(super) rules: BTreeMap<String, Severity>,
    pub(super) hosts: Vec<HostLine>,
    pub(super) total: Summary,
    /// Names what the export is of: another state, another digest.
    pub(super) digest: String,
}

pub(super) struct HostLine {
    pub(super) name: String,
    pub(super) site: String,
    pub(super) summary: Option<Summary>,
    pub(super) scan: Option<(String, u64, u64)>,
    pub(super) failed: Option<Backoff>,
}

impl<'s> Source<'s> {
    pub(super) fn open(
        store: &Store,
        rules: &'s [Rule],
        request: &Request,
        at: Option<Timestamp>,
        progress: Progress<'s>,
    ) -> Result<Self, Error> {
        let ledger = Ledger::new(store.clone())?;
        // Pinned, so that a scan that is recorded while hosts are read is in none of them.
        let snapshot = store.snapshot().map_err(Error::storage)?;
        let read_at = at.unwrap_or_else(|| snapshot.time());
        let mut failed = BTreeMap::new();
        if at.is_none() {
            let rows = Rows::of(store).and_then(|rows| rows.all(&snapshot));
            for mut row in rows.map_err(Error::storage)? {
                if let Some(backoff) = row.backoff.remove(&Probe::Scan) {
                    failed.insert(row.host, backoff);
                }
            }
        }
        let labels = Inventory::new(store.clone())
            .and_then(|inventory| inventory.list(at))
            .map_err(Error::storage)?;
        let waivers = Waivers::new(store.clone()).and_then(|waivers| waivers.list());
        let mut source = Self {
            rules: rules.iter().map(|rule| (rule.id.as_str(), rule)).collect(),
            waivers: waivers.map_err(Error::storage)?,
            labels: labels
                .into_iter()
                .map(|host| (host.name.clone(), host))
                .collect(),
            failed,
            hosts: Vec::new(),
            read_at,
            at: at.unwrap_or(request.now),
            progress,
            ledger,
        };
        source.hosts = source.chosen(&request.chosen)?;
        Ok(source)
    }

    /// Names of the hosts that are asked for. Retired ones only where they are named themselves.
    fn chosen(&self, chosen: &Chosen) -> Result<Vec<String>, Error> {
        let recorded = self.ledger.hosts()?;
        let at = self.at.nanos();
        let is_retired = |retired: Option<u64>| retired.is_some_and(|retired| retired <= at);
        let known = recorded
            .iter()
            .map(|host| (host.name.as_str(), is_retired(host.retired)))
            .chain(
                self.labels
                    .values()
                    .map(|host| (host.name.as_str(), is_retired(host.retired))),
            )
            .collect::<BTreeMap<&str, bool>>();
        for name in &chosen.hosts {
            if !known.contains_key(name.as_str()) {
                return Err(Error::new(Kind::Missing, format!("no host `{name}`")));
            }
        }
        let has = |kind: &str, names: &BTreeSet<String>, is: fn(&inventory::Host, &str) -> bool| {
            let lacking = names
                .iter()
                .find(|name| !self.labels.values().any(|host| is(host, name)));
            lacking.map_or(Ok(()), |name| {
                let message = format!("no host is in {kind} `{name}`");
                Err(Error::new(Kind::Missing, message))
            })
        };
        has("group", &chosen.groups, |host, name| {
            host.groups.contains(name)
        })?;
        has("site", &chosen.sites, |host, name| host.site == name)?;
        let is_meant = |name: &str, is_retired: bool| {
            let labels = self.labels.get(name);
            chosen.hosts.contains(name)
                || !is_retired
                    && (chosen.is_all()
                        || labels.is_some_and(|host| {
                            chosen.sites.contains(&host.site)
                                || !chosen.groups.is_disjoint(&host.groups)
                        }))
        };
        Ok(known
            .into_iter()
            .filter(|&(name, is_retired)| is_meant(name, is_retired))
            .map(|(name, _)| name.to_owned())
            .collect())
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn rule(&self, id: &str) -> Option<&'s Rule> {
        self.rules.get(id).copied()
    }

    pub(super) fn title<'t>(&'t self, id: &'t str) -> &'t str {
        self.rule(id).map_or(id, |rule| rule.title.as_str())
    }

    pub(super) fn evidence(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.ledger.evidence(digest)?)
    }

    /// Calls `each` with every host that has a place in the export, by name.
    pub(super) fn each_host(
        &mut self,
        mut each: impl FnMut(&Self, &HostReport) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.each_name(|source, name| match source.report(name)? {
            Some(report) => each(source, &report),
            None => Ok(()),
        })
    }

    /// Calls `each` with every name that is asked for.
    pub(super) fn each_name(
        &mut self,
        mut each: impl FnMut(&Self, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let hosts = mem::take(&mut self.hosts);
        let mut outcome = Ok(());
        for (done, name) in hosts.iter().enumerate() {
            outcome = each(self, name);
            if outcome.is_ok() && !(self.progress)(done + 1, hosts.len()) {
                outcome = Err(Error::new(Kind::Stopped, "stopped before all was exported"));
            }
            if outcome.is_err() {
                break;
            }
        }
        self.hosts = hosts;
        outcome
    }

    /// `None`: nothing was known of the host by then.
    fn report(&self, name: &str) -> Result<Option<HostReport>, Error> {
        let status = self.ledger.status(name, Some(self.read_at))?;
        let labels = self.labels.get(name).cloned();
        if status.is_none() && labels.is_none() {
            return Ok(None);
        }
        Ok(Some(HostReport {
            name: name.to_owned(),
            labels,
            status,
            failed: self.failed.get(name).copied(),
        }))
    }

    pub(super) fn findings<'f>(&'f self, host: &'f HostReport) -> Vec<Finding<'f>> {
        let states = host.status.iter().flat_map(|status| &status.states);
        states
            .map(|state| Finding {
                state,
                rule: self.rule(&state.rule),
                waiver: (state.verdict == Outcome::Fail)
                    .then(|| {
                        let labels = host.labels.as_ref();
                        waiver::beside(&self.waivers, &state.rule, &host.name, labels, self.at)
                    })
                    .flatten(),
            })
            .collect()
    }

    pub(super) fn survey(&mut self) -> Result<Survey, Error> {
        let mut survey = Survey {
            rules: BTreeMap::new(),
            hosts: Vec::new(),
            total: Summary::default(),
            digest: String::new(),
        };
        let mut hash = Sha256::new();
        let mut outcomes = Vec::new();
        self.each_host(|_, host| {
            let scan = host.status.as_ref().map(|status| &status.scan);
            hash.update(host.name.as_bytes());
            hash.update([0]);
            hash.update(scan.map_or("", |scan| &scan.scan_id));
            hash.update([0]);
            for state in host.status.iter().flat_map(|status| &status.states) {
                outcomes.push(state.verdict);
                if !survey.rules.contains_key(&state.rule) {
                    survey.rules.insert(state.rule.clone(), state.severity);
                }
            }
            survey.hosts.push(HostLine {
                name: host.name.clone(),
                site: host
                    .labels
                    .as_ref()
                    .map_or_else(String::new, |labels| labels.site.clone()),
                summary: host.status.as_ref().map(HostReport::counted),
                scan: scan.map(|scan| (scan.scan_id.clone(), scan.started, scan.finished)),
                failed: host.failed,
            });
            Ok(())
        })?;
        survey.total = Summary::of(outcomes);
        hash.update(text::moment(self.at));
        survey.digest = hex(&hash.finalize());
        Ok(survey)
    }
}

impl HostReport {
    /// Counted from the verdicts that are written, so that the two cannot disagree.
    pub(super) fn counted(status: &Status) -> Summary {
        Summary::of(status.states.iter().map(|state| state.verdict))
    }

    pub(super) fn summary(&self) -> Summary {
        self.status
            .as_ref()
            .map_or_else(Summary::default, Self::counted)
    }

    pub(super) fn site(&self) -> &str {
        self.labels.as_ref().map_or("", |labels| &labels.site)
    }

    pub(super) fn groups(&self) -> Vec<&str> {
        let groups = self.labels.iter().flat_map(|labels| &labels.groups);
        groups.map(String::as_str).collect()
    }

    /// When the last attempt failed and why, in words.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.as_ref().map(failure)
    }
}

pub(super) fn failure(failed: &Backoff) -> String {
    let at = text::rfc3339(failed.last_failed);
    match failed.failures {
        1 => format!("the last scan failed at {at}: {}", failed.reason),
        times => format!(
            "the last {times} scans failed, at {at} with: {}",
            failed.reason
        ),
    }
}

impl Finding<'_> {
    pub(super) fn title(&self) -> &str {
        self.rule.map_or(&self.state.rule, |rule| &rule.title)
    }

    /// Framework and control, as the rule has them.
    pub(super) fn references(&self) -> impl Iterator<Item = (&str, &str)> {
        references(self.rule)
    }

    /// Whether the rule as it is known is the one that judged.
    pub(super) fn rule_is_current(&self) -> bool {
        self.rule.is_some_and(|rule| {
            rule.definition == self.state.rule_definition || rule.digest == self.state.rule_digest
        })
    }

    /// The waiver in words.
    pub(super) fn waived(&self) -> Option<String> {
        self.waiver.map(|waiver| {
            let until = text::rfc3339(waiver.expires);
            format!(
                "waived until {until} by {}: {}",
                waiver.owner, waiver.reason
            )
        })
    }
}

pub(super) fn references(rule: Option<&Rule>) -> impl Iterator<Item = (&str, &str)> {
    rule.into_iter().flat_map(|rule| {
        let frameworks = rule.references.iter();
        frameworks.flat_map(|(key, ids)| ids.iter().map(|id| (key.as_str(), id.as_str())))
    })
}
