//! What happened in runs, counted by name.

use std::{collections::BTreeMap, fmt};

use super::{
    agenda::{Moment, SECOND},
    swarm::Fault,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    counts: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    /// Lines of the recovery logs.
    lines: BTreeMap<String, u64>,
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) messages: u64,
    pub(crate) simulated: Moment,
    /// From the end of the faults until every replica was in sync.
    pub(crate) calm: Moment,
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, times: u64) {
    if let Some(count) = counts.get_mut(name) {
        *count += times;
    } else {
        counts.insert(name.to_owned(), times);
    }
}

impl Tally {
    pub(crate) fn count(&mut self, name: &str) {
        self.add(name, 1);
    }

    pub(crate) fn add(&mut self, name: &str, times: u64) {
        add(&mut self.counts, name, times);
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        add(&mut self.faults, &format!("{fault:?}"), 1);
    }

    pub(crate) fn line(&mut self, name: &str) {
        add(&mut self.lines, name, 1);
    }

    #[cfg(test)]
    pub(crate) fn of(&self, name: &str) -> u64 {
        let maps = [&self.counts, &self.faults, &self.lines];
        maps.iter().filter_map(|map| map.get(name)).sum()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.counts, &other.counts),
            (&mut self.faults, &other.faults),
            (&mut self.lines, &other.lines),
        ];
        for (own, others) in pairs {
            for (name, count) in others {
                add(own, name, *count);
            }
        }
        self.runs += other.runs;
        self.steps += other.steps;
        self.messages += other.messages;
        self.simulated += other.simulated;
        self.calm += other.calm;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: u64| {
            writeln!(f, "  {name:<48}{value:>12}")
        };
        for (title, counts) in [
            ("faults", &self.faults),
            ("recovery log", &self.lines),
            ("and", &self.counts),
        ] {
            writeln!(f, "{title}")?;
            for (name, value) in counts {
                row(f, name, *value)?;
            }
        }
        writeln!(f, "in all")?;
        row(f, "runs", self.runs)?;
        row(f, "steps", self.steps)?;
        row(f, "messages", self.messages)?;
        row(f, "simulated seconds", self.simulated / SECOND)
    }
}
