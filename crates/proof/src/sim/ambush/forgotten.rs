//! A candidate is cut off with one promise, and the node that gave it loses its disk. Whoever promises later
//! has heard of nothing that was acknowledged with that node since.

use super::{Cluster, Looked, MILLI, Next, Plot, SECOND, Stage};

impl Cluster {
    pub(super) fn forget(&mut self, plot: Plot) -> Looked {
        let writer = plot.cast.writer;
        let [candidate, amnesiac, later, rest] = plot.cast.others;
        let id = self.sites[candidate].id;
        match plot.stage {
            Stage::Begun if self.now > plot.since + 100 * MILLI => {
                self.urge(candidate)?;
                let mut lane = self.sites[candidate].disk.record_lane.iter();
                if !lane.any(|(_, record)| record.promised.2 == id) {
                    return Ok(Next::Wait);
                }
                for other in [writer, later, rest] {
                    self.part(candidate, other);
                }
                self.part(amnesiac, writer);
                self.part(amnesiac, rest);
                Ok(Next::To(Stage::Asked, SECOND))
            }
            Stage::Asked if self.sites[amnesiac].record().promised.2 == id => {
                Ok(Next::To(Stage::Promised, SECOND))
            }
            // Its answer is there.
            Stage::Promised if self.now > plot.since + 40 * MILLI => {
                if !self.may_lose(amnesiac, writer) {
                    return Ok(Next::End);
                }
                self.part(amnesiac, candidate);
                self.join(amnesiac, writer);
                self.join(amnesiac, rest);
                self.restart_empty(amnesiac, writer)?;
                Ok(Next::To(Stage::Lost, 3 * SECOND))
            }
            Stage::Lost if !self.sites[amnesiac].disk.image.is_amnesiac() => {
                self.part(later, writer);
                Ok(Next::To(Stage::GoesOn, SECOND))
            }
            Stage::GoesOn
                if self.judge.sequence.end() > self.sites[candidate].disk.image.log.end().lsn =>
            {
                self.join(candidate, later);
                Ok(Next::To(Stage::Last, 3 * SECOND))
            }
            Stage::Last if self.writer() == Some(candidate) => {
                self.repair(later);
                self.join(candidate, amnesiac);
                Ok(Next::Wait)
            }
            _ => Ok(Next::Wait),
        }
    }
}
