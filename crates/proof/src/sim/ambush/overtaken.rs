//! The one that wrote is cut off with a record of its own, another one has the authority for as long as it
//! takes to begin, and the first one has it again: its first record gets to the third node and not to its
//! own disk. Then it is started again, and the other one takes over once more.

use super::{Cluster, Looked, MILLI, Next, Plot, SECOND, Stage};

impl Cluster {
    pub(super) fn overtake(&mut self, plot: Plot) -> Looked {
        let writer = plot.cast.writer;
        let [between, third, ..] = plot.cast.others;
        let end = |host: usize| self.sites[host].disk.image.log.end();
        let (own, other) = (end(writer), end(between));
        match plot.stage {
            Stage::Begun if own.lsn > other.lsn.max(end(third).lsn) => {
                self.urge(between)?;
                Ok(Next::To(Stage::Asked, 4 * SECOND))
            }
            Stage::Asked => {
                if self.sites[third].record().promised.2 != self.sites[between].id {
                    self.urge(between)?;
                    return Ok(Next::Wait);
                }
                self.net.block(between, third);
                let epoch = self.sites[between].primary;
                if self.writer() != Some(between) || epoch != Some(other.epoch) {
                    return Ok(Next::Wait);
                }
                if other.lsn < own.lsn {
                    // Each start is one record more.
                    self.restart(between)?;
                    return Ok(Next::Wait);
                }
                self.rejoin(writer);
                self.isolate(between);
                self.sites[writer].disk.log_slowness = 400;
                Ok(Next::To(Stage::Promised, 6 * SECOND))
            }
            Stage::Promised => {
                let epoch = self.sites[writer].primary;
                if self.writer() != Some(writer) {
                    self.urge(writer)?;
                    return Ok(Next::Wait);
                }
                if epoch != Some(end(third).epoch) {
                    return Ok(Next::Wait);
                }
                Ok(Next::To(Stage::Lost, SECOND))
            }
            // The third one has said so.
            Stage::Lost if self.now > plot.since + 60 * MILLI => {
                self.rejoin(between);
                self.isolate(third);
                self.restart(writer)?;
                Ok(Next::To(Stage::GoesOn, 6 * SECOND))
            }
            Stage::GoesOn if self.writer() == Some(between) => {
                self.repair(writer);
                Ok(Next::To(Stage::Last, 2 * SECOND))
            }
            Stage::GoesOn => {
                self.urge(between)?;
                Ok(Next::Wait)
            }
            Stage::Last if self.now > plot.since + SECOND => Ok(Next::End),
            _ => Ok(Next::Wait),
        }
    }
}
