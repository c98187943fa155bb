//! A replica without which nothing is acknowledged loses its disk when it had everything, and what it said of
//! that before comes while it is fed again.

use replica::machine::Body;

use super::{Cluster, Looked, Next, Plot, SECOND, Stage};

impl Cluster {
    pub(super) fn echo(&mut self, plot: Plot) -> Looked {
        let (writer, replica) = (plot.cast.writer, plot.cast.others[0]);
        if let Stage::Lost = plot.stage {
            if let Some(echo) = self.net.echo.clone().filter(|_| self.dice.one_in(3)) {
                self.deliver(self.now, writer, Box::new(echo));
            }
            let is_sound = !self.sites[replica].is_unsound();
            return Ok(if is_sound { Next::End } else { Next::Wait });
        }
        let Some(said) = self.net.said(replica, writer) else {
            return Ok(Next::Wait);
        };
        let Body::Flushed { position, .. } = said.body else {
            return Ok(Next::Wait);
        };
        let is_still = [writer, replica].iter().all(|host| {
            let disk = &self.sites[*host].disk;
            disk.log_lane.is_empty() && disk.image.log.end() == position
        });
        let is_current = self.sites[writer].primary == Some(said.header.epoch);
        if !is_still || !is_current || !self.may_wound(replica) {
            return Ok(Next::Wait);
        }
        self.net.echo = Some(said);
        self.restart_empty(replica, writer)?;
        self.sites[replica].disk.log_slowness = self.dice.range(5, 60);
        Ok(Next::To(Stage::Lost, 4 * SECOND))
    }
}
