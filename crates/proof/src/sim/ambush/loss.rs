//! By force one is made primary that lacks what the others have, one of which comes back when it is behind
//! all of what it derived.

use super::{Cluster, Looked, Next, Plot, SECOND, Stage};

impl Cluster {
    pub(super) fn lose(&mut self, plot: Plot) -> Looked {
        let (forced, late) = (plot.cast.others[0], plot.cast.others[1]);
        let derived = self.sites[late].disk.image.derived.durable();
        let image = &self.sites[forced].disk.image;
        match plot.stage {
            Stage::Begun if derived > image.log.end().lsn && self.may_promote() => {
                for host in 0..self.sites.len() {
                    self.isolate(host);
                }
                self.promote(forced, Some("the others are unplugged".to_owned()))?;
                Ok(Next::To(Stage::Promised, 6 * SECOND))
            }
            Stage::Promised if self.writer() == Some(forced) => {
                self.rejoin(forced);
                self.isolate(late);
                Ok(Next::To(Stage::GoesOn, 12 * SECOND))
            }
            Stage::GoesOn if image.derived.durable() > derived => {
                self.rejoin(late);
                Ok(Next::To(Stage::Last, 3 * SECOND))
            }
            Stage::Last if self.now > plot.since + 2 * SECOND => Ok(Next::End),
            _ => Ok(Next::Wait),
        }
    }
}
