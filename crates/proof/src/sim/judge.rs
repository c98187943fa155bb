//! Watches a run from outside and says when a promise is broken. It sees all disks at once and every
//! step of every node; the nodes see nothing of it.

use std::collections::BTreeMap;

use replica::machine::{Body, EpochId, Message, Position, Record};
use wal::{Epoch, Lsn};

use super::{
    agenda::{Moment, SECOND},
    breach::{Breach, Checker, Verdict},
    disk::{Disk, Image},
    net::Host,
};

pub(crate) mod requests;
pub(crate) mod sequence;
pub(crate) mod sessions;
#[cfg(test)]
mod tests;

use requests::Requests;
use sequence::{Mark, Sequence};
use sessions::Sessions;

#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) sequence: Sequence,
    pub(crate) requests: Requests,
    pub(crate) sessions: Sessions,
    watched: BTreeMap<Host, Watched>,
    /// Who acknowledged under an epoch.
    acknowledgers: BTreeMap<Epoch, (Host, EpochId)>,
    /// An operator accepted a loss, and the nodes have not yet met again: what is told meanwhile counts
    /// for nothing.
    pub(crate) is_unsettled: bool,
    /// Under which all agreed again after the last loss: a disk from before may have what was lost.
    pub(crate) settled: Option<Epoch>,
}

/// An answer is under way no longer than this, and then it is of a session that is gone.
const UNDER_WAY: Moment = 10 * SECOND;

/// What a node showed.
#[derive(Debug, Default)]
struct Watched {
    /// What it took as committed in this life.
    committed: Lsn,
    /// How far its log was compared with what is committed.
    compared: Lsn,
    /// The highest position it ever reported as durable.
    reported: Position,
    promised: (Epoch, EpochId),
    granted: (Epoch, EpochId),
}

/// An acknowledged write, with what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) host: Host,
    pub(crate) epoch: Epoch,
    pub(crate) last: Lsn,
    /// Copies besides the primary's that the mode asks for.
    pub(crate) copies: usize,
    pub(crate) lease_ends: Option<Moment>,
    pub(crate) at: Moment,
}

impl Judge {
    fn watched(&mut self, host: Host) -> &mut Watched {
        self.watched.entry(host).or_default()
    }

    /// A node starts with what it knows to be committed.
    pub(crate) fn started(&mut self, host: Host, committed: Lsn) {
        let watched = self.watched(host);
        watched.committed = committed;
        watched.compared = committed;
    }

    /// Its disk is another one, or an older one: what it was before counts no more.
    pub(crate) fn replaced(&mut self, host: Host, is_known: bool) {
        let watched = self.watched(host);
        watched.promised = Default::default();
        watched.granted = Default::default();
        if !is_known {
            watched.reported = Position::default();
        }
    }

    pub(crate) fn committed(&mut self, host: Host, lsn: Lsn, disk: &Disk) -> Verdict {
        let is_forgiven = self.is_unsettled;
        let watched = self.watched(host);
        if lsn < watched.committed && !is_forgiven {
            let words = format!("node {host} went back from {} to {lsn}", watched.committed);
            return Err(Breach::new(Checker::Committed, words));
        }
        let end = disk.image.log.end();
        if lsn > end.lsn {
            let words = format!("node {host} goes to {lsn}, its disk to {end}");
            return Err(Breach::new(Checker::Committed, words));
        }
        watched.committed = lsn;
        Ok(())
    }

    pub(crate) fn committed_at(&self, host: Host) -> Lsn {
        let watched = self.watched.get(&host);
        watched.map_or(Lsn::ZERO, |it| it.committed)
    }

    /// Compares what a node has and takes as committed with what is.
    pub(crate) fn compare(&mut self, host: Host, image: &Image) -> Verdict {
        if self.is_unsettled {
            return Ok(());
        }
        let (log, watched) = (&image.log, self.watched.entry(host).or_default());
        // Below a base nothing can be compared record by record.
        let from = watched.compared.max(Lsn::new(log.first().get() - 1));
        let to = watched.committed.min(log.end().lsn);
        watched.compared = from.max(to);
        for lsn in from.get() + 1..=to.get() {
            let stored = log.at(Lsn::new(lsn)).expect("between first and end");
            self.sequence.commit(Mark::of(&stored.entry, stored.id))?;
        }
        Ok(())
    }

    /// Its log begins after a base: so does what it takes as committed, until it hears of more.
    pub(crate) fn begun(&mut self, host: Host, base: Position) {
        let watched = self.watched(host);
        watched.committed = watched.committed.min(base.lsn);
        watched.compared = watched.compared.min(base.lsn);
    }

    /// What was compared behind a cut is gone.
    pub(crate) fn cut(&mut self, host: Host, end: Position) {
        let is_forgiven = self.is_unsettled;
        let watched = self.watched(host);
        if is_forgiven {
            watched.committed = watched.committed.min(end.lsn);
        }
        watched.compared = watched.compared.min(end.lsn);
    }

    pub(crate) fn kept(&mut self, host: Host, image: &Image, was_damaged: bool) -> Verdict {
        let Some(record) = &image.record else {
            return Ok(());
        };
        let end = image.log.end();
        let watched = self.watched(host);
        watched.promised = risen(
            host,
            "promised",
            watched.promised,
            record.promised.0,
            record.promised.1,
        )?;
        watched.granted = risen(
            host,
            "granted",
            watched.granted,
            record.granted.0,
            record.granted.1,
        )?;
        if was_damaged && !record.is_amnesiac && end < watched.reported {
            let words = format!(
                "node {host} counts as sound at {end}, and had {}",
                watched.reported
            );
            return Err(Breach::new(Checker::Amnesia, words));
        }
        Ok(())
    }

    /// What a message says of its sender's disk.
    pub(crate) fn sent(&mut self, host: Host, message: &Message, disk: &Disk) -> Verdict {
        let image = &disk.image;
        let record = image.record.as_ref();
        shown(host, message.header.epoch, message.header.epoch_id, record)?;
        let reported = match &message.body {
            Body::Refused { highest, id, .. } => return shown(host, *highest, *id, record),
            Body::Flushed { position, .. } => *position,
            Body::Attached(attached) => attached.flushed,
            Body::Inquired(sealed) | Body::Sealed(sealed) => {
                if image.is_known_damaged() && !sealed.is_amnesiac {
                    let words = format!("node {host} answers a candidate with less than it had");
                    return Err(Breach::new(Checker::Amnesia, words));
                }
                sealed.flushed
            }
            _ => return Ok(()),
        };
        let log = &image.log;
        let found = log.position(reported.lsn);
        if reported.lsn > log.end().lsn || found.is_some_and(|it| it != reported) {
            let end = log.end();
            let words =
                format!("node {host} reports {reported}, its disk ends at {end} ({found:?})");
            return Err(Breach::new(Checker::Contiguous, words));
        }
        let watched = self.watched(host);
        watched.reported = watched.reported.max(reported);
        Ok(())
    }

    /// An acknowledgement at the moment it is given. `disks`: of the members.
    pub(crate) fn acknowledged(
        &mut self,
        ack: Acknowledged,
        disks: &BTreeMap<Host, &Disk>,
    ) -> Verdict {
        if self.is_unsettled {
            return Ok(());
        }
        if let Some(ends) = ack.lease_ends.filter(|ends| *ends < ack.at) {
            let words = format!(
                "node {} acknowledges at {}, its lease ended at {ends}",
                ack.host, ack.at
            );
            return Err(Breach::new(Checker::Lease, words));
        }
        let own = disks[&ack.host];
        let id = own.id_of(ack.epoch);
        let promised = own.image.promised();
        let first = *self
            .acknowledgers
            .entry(ack.epoch)
            .or_insert((ack.host, id));
        if promised > ack.epoch || first != (ack.host, id) {
            let words = format!("{ack:?}: promised {promised:?}, first under it {first:?}");
            return Err(Breach::new(Checker::Acknowledger, words));
        }
        let Some(stored) = own.image.log.at(ack.last) else {
            let words = format!("{ack:?}: not on its own disk");
            return Err(Breach::new(Checker::Durable, words));
        };
        let others = disks.iter().filter(|(host, _)| **host != ack.host);
        let having = others.filter(|(_, disk)| {
            let image = &disk.image;
            let has = ack.last < image.log.first()
                || image.log.at(ack.last).is_some_and(|it| {
                    it.entry.position == stored.entry.position
                        && it.id == stored.id
                        && it.under <= ack.epoch
                });
            // What was lost just before had been told of.
            let was_lost = disk.is_wounded && ack.at < disk.wounded_at + UNDER_WAY;
            let does_count = !image.is_amnesiac() || image.promised() > ack.epoch;
            was_lost || (has && does_count)
        });
        let having = having.count();
        if having < ack.copies {
            let words = format!("{ack:?}: {having} other nodes have it");
            return Err(Breach::new(Checker::Durable, words));
        }
        Ok(())
    }

    /// An operator accepts a loss: nothing that was told is owed any more.
    pub(crate) fn forgive(&mut self) {
        self.is_unsettled = true;
        self.requests.forgive();
        self.acknowledgers.clear();
    }

    /// The nodes agree again; what is committed is what the one that writes has.
    pub(crate) fn settle(&mut self, writer: Host, image: &Image) -> Verdict {
        self.is_unsettled = false;
        self.settled = Some(image.promised());
        let log = &image.log;
        self.sequence
            .begin_again(log.history(), Lsn::new(log.first().get() - 1));
        for watched in self.watched.values_mut() {
            watched.compared = Lsn::ZERO;
        }
        self.compare(writer, image)
    }
}

fn risen(
    host: Host,
    what: &str,
    before: (Epoch, EpochId),
    epoch: Epoch,
    id: EpochId,
) -> Result<(Epoch, EpochId), Breach> {
    if epoch < before.0 || (epoch == before.0 && id != before.1 && before.0 != Epoch(0)) {
        let words = format!("node {host} had {what} {before:?}, has {epoch:?} {id:?}");
        return Err(Breach::new(Checker::Epochs, words));
    }
    Ok((epoch, id))
}

/// What is shown to others is on disk.
fn shown(host: Host, epoch: Epoch, id: EpochId, record: Option<&Record>) -> Verdict {
    let promised = record.map(|it| (it.promised.0, it.promised.1));
    let promised = promised.unwrap_or_default();
    if epoch > promised.0 || (epoch == promised.0 && id != promised.1) {
        let words = format!("node {host} shows {epoch:?} {id:?}, {promised:?} is on its disk");
        return Err(Breach::new(Checker::Promise, words));
    }
    Ok(())
}
