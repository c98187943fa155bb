//! What a run counts, and how long things took.

use std::{fmt, time::Duration};

use super::judge::Judged;

/// Durations of one kind.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u32,
    /// Of nodes that wrote, while clients wrote.
    pub(super) kills: u32,
    /// Of other nodes.
    pub(super) replica_kills: u32,
    pub(super) pauses: u32,
    /// Of all that copy.
    pub(super) replica_pauses: u32,
    pub(super) partitions: u32,
    /// Partitions in one direction.
    pub(super) one_way: u32,
    pub(super) slow_links: u32,
    /// Of the coordinator, for all nodes.
    pub(super) outages: u32,
    /// Of the coordinator, for the node that writes alone.
    pub(super) outages_for_one: u32,
    pub(super) switchovers: u32,
    pub(super) promotions: u32,
    pub(super) denials: u32,
    /// By nodes that nobody ordered to write.
    pub(super) takeovers: u32,
    pub(super) skipped: Vec<String>,
    pub(super) judged: Judged,
    /// From the kill to the first acknowledgement by another node, which was ordered to write at once, or has
    /// the coordinator's lease.
    pub(super) failover: Times,
    /// From the pause to the first acknowledgement by another node.
    pub(super) pause: Times,
    /// From the kill to the first acknowledgement by the same node, started again at once.
    pub(super) restart: Times,
    /// From the order to the first acknowledgement by the other node.
    pub(super) switchover: Times,
    /// The same where hardly anything was written.
    pub(super) idle_switchover: Times,
    /// From the end of an outage of the coordinator, longer than a lease, to the first acknowledgement.
    pub(super) outage: Times,
    /// Until every other node is in sync again.
    pub(super) rejoin: Times,
    pub(super) records_compared: u64,
}

impl Times {
    pub(super) fn note(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// The smallest that so many percent do not exceed.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |percent| {
            let found = self.percentile(percent);
            found.map_or_else(|| "-".to_owned(), |it| format!("{:.2}", it.as_secs_f64()))
        };
        let [p50, p99, max] = [50, 99, 100].map(seconds);
        write!(
            f,
            "{} times: p50 {p50}, p99 {p99}, max {max} s",
            self.0.len()
        )
    }
}

impl Tally {
    pub(super) fn add(&mut self, judged: Judged) {
        let all = &mut self.judged;
        all.acknowledged += judged.acknowledged;
        all.unknown += judged.unknown;
        all.registers += judged.registers;
        all.undecided += judged.undecided;
        all.transfers += judged.transfers;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64| writeln!(f, "{name:<46}{value:>12}");
        row("rounds", self.rounds.into())?;
        row("kills of the node that wrote", self.kills.into())?;
        row("kills of other nodes", self.replica_kills.into())?;
        row("pauses of the node that wrote", self.pauses.into())?;
        row("pauses of all other nodes", self.replica_pauses.into())?;
        row("partitions", self.partitions.into())?;
        row("partitions in one direction", self.one_way.into())?;
        row("slow links", self.slow_links.into())?;
        row("outages of the coordinator", self.outages.into())?;
        row(
            "  for the node that wrote alone",
            self.outages_for_one.into(),
        )?;
        row("switchovers", self.switchovers.into())?;
        row("promotions", self.promotions.into())?;
        row("promotions that were denied", self.denials.into())?;
        row("takeovers without an order", self.takeovers.into())?;
        row(
            "acknowledged writes, read from every node",
            self.judged.acknowledged,
        )?;
        row(
            "  of them transfers between accounts",
            self.judged.transfers,
        )?;
        row("writes with an unknown end", self.judged.unknown)?;
        row("histories of registers", self.judged.registers)?;
        row("  of them too long to be decided", self.judged.undecided)?;
        row("records of the nodes' logs compared", self.records_compared)?;
        for (name, times) in [
            ("kill to first write elsewhere", &self.failover),
            ("kill to first write there, started again", &self.restart),
            ("pause to first write elsewhere", &self.pause),
            ("switchover to first write", &self.switchover),
            ("switchover, idle, to first write", &self.idle_switchover),
            ("coordinator back to first write", &self.outage),
            ("until all were in sync again", &self.rejoin),
        ] {
            writeln!(f, "{name:<46}{times}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "SKIPPED {skipped}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_noted() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), None);
        for millis in (1..=200).rev() {
            times.note(Duration::from_millis(millis));
        }
        assert_eq!(times.percentile(50), Some(Duration::from_millis(100)));
        assert_eq!(times.percentile(99), Some(Duration::from_millis(198)));
        assert_eq!(times.percentile(100), Some(Duration::from_millis(200)));
    }
}
