//! The one that writes is cut off and another one takes over before it knows: clients of both go on.

use super::{Cluster, Looked, Next, Plot, SECOND, Stage};

impl Cluster {
    pub(super) fn outdate(&mut self, plot: Plot) -> Looked {
        let (before, after) = (plot.cast.writer, plot.cast.others[0]);
        match plot.stage {
            Stage::Begun if self.writer() == Some(after) => Ok(Next::To(Stage::Last, 4 * SECOND)),
            Stage::Begun => {
                self.urge(after)?;
                Ok(Next::Wait)
            }
            Stage::Last if self.now < plot.since + 3 * SECOND => {
                self.clients.part(before, after);
                Ok(Next::Wait)
            }
            _ => Ok(Next::End),
        }
    }
}
