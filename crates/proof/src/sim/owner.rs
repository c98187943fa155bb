//! The owner of a node's journal: applies what is committed, makes checkpoints, lets retention work,
//! and answers confirmed reads.

use replica::machine::Event;
use wal::Lsn;

use super::{
    agenda::MILLI,
    breach::Verdict,
    cluster::{Cluster, Work},
    net::Host,
    payload::Payload,
};

/// Records applied at once.
const APPLIED_MAX: u64 = 16;

impl Cluster {
    pub(crate) fn apply_soon(&mut self, host: Host) {
        let site = &self.sites[host];
        let image = &site.disk.image;
        let committed = self.judge.committed_at(host).min(image.log.end().lsn);
        if site.is_applying || site.node.is_none() || image.derived.applied() >= committed {
            return;
        }
        self.sites[host].is_applying = true;
        let after = self.dice.range(0, 10) * MILLI;
        self.later(host, after, Work::Apply);
    }

    pub(crate) fn apply(&mut self, host: Host) -> Verdict {
        let committed = self.judge.committed_at(host);
        let checkpoint = self.swarm.checkpoint;
        let site = &mut self.sites[host];
        site.is_applying = false;
        let image = &mut site.disk.image;
        let to = committed.min(image.log.end().lsn).get();
        let from = image.derived.applied().get();
        for lsn in from + 1..=to.min(from + APPLIED_MAX) {
            let lsn = Lsn::new(lsn);
            let Some(stored) = image.log.at(lsn) else {
                break;
            };
            if stored.is_damaged {
                self.tally.count("owners that met a damaged record");
                self.operator.to_restart.insert(host);
                return self.crash_and_start(host);
            }
            image
                .derived
                .apply(stored.entry.position, Payload::of(&stored.entry));
        }
        let (applied, durable) = (image.derived.applied(), image.derived.durable());
        if applied.get() - durable.get().min(applied.get()) >= checkpoint {
            image.derived.flush(applied);
        }
        let derived = image.derived.durable();
        self.step(host, Event::Applied { applied, derived })?;
        self.retain(host)?;
        self.finish_reads(host);
        self.apply_soon(host);
        Ok(())
    }

    fn retain(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        let (first, wants) = site.disk.retention(self.swarm.retained);
        if site.retained == (first, wants) || !site.disk.log_lane.is_empty() {
            return Ok(());
        }
        site.retained = (first, wants);
        if site.disk.image.log.first() < first {
            self.tally.count("times that retention removed records");
        }
        site.disk.image.log.recycle(first);
        self.step(host, Event::Retained { first, wants })
    }
}
