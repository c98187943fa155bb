//! Faults in an order that does harm only where one rule is missing: by chance alone they do not come so
//! close together. Each is one that may happen, and a seed has one kind or none.
//!
//! A disk may lose what it had amid a promotion here, which [`super::nemesis`] spares it: one, and
//! another one has all that is committed.

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::{Breach, Verdict},
    cluster::{Cluster, Happening},
    net::Host,
};

mod echo;
mod forgotten;
mod loss;
mod overtaken;
mod stale;

/// How often it is looked whether the next fault is due: a round trip takes longer.
const STEP: Moment = MILLI / 2;

/// An order that was refused is given again after this.
const AGAIN: Moment = 100 * MILLI;

/// What this is about; the rules are those of docs/protocol/replication.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambush {
    /// Rule 3: one that has the authority again dies with its first record elsewhere only.
    Overtaken,
    /// Rule 7: what a node said before it lost its disk comes late.
    Echo,
    /// Rule 8: one that derived more than what is left after a loss comes back late.
    Loss,
    /// Rule 9: a promise is forgotten, and the candidate gets the others that it lacks later.
    Forgotten,
    /// Reads: one that was overtaken is asked before it knows.
    Stale,
}

pub(crate) const AMBUSHES: [Ambush; 5] = [
    Ambush::Overtaken,
    Ambush::Echo,
    Ambush::Loss,
    Ambush::Forgotten,
    Ambush::Stale,
];

/// One that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plot {
    cast: Cast,
    stage: Stage,
    since: Moment,
    until: Moment,
    asked: Moment,
}

/// The one that wrote when it began, and the others.
#[derive(Clone, Copy, Debug)]
struct Cast {
    writer: Host,
    /// As many as there are; the writer for those that there are not.
    others: [Host; 4],
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The first one of each.
    Begun,
    Asked,
    Promised,
    Lost,
    GoesOn,
    Last,
}

/// What a look at it came to.
enum Next {
    Wait,
    /// The next stage, and how long it may take.
    To(Stage, Moment),
    End,
}

impl Cluster {
    pub(crate) fn go_on_with_ambush(&mut self) -> Verdict {
        let Some(ambush) = self.swarm.ambush.filter(|_| !self.phase.is_calm()) else {
            self.plot = None;
            return Ok(());
        };
        let Some(plot) = self.plot else {
            let after = self.dice.range(200, 3000) * MILLI;
            self.begin_ambush(ambush);
            let after = self.plot.map_or(after, |_| STEP);
            self.agenda.enter(self.now + after, Happening::Ambush);
            return Ok(());
        };
        self.agenda.enter(self.now + STEP, Happening::Ambush);
        if self.now > plot.until {
            self.end_ambush();
            return Ok(());
        }
        let next = match ambush {
            Ambush::Overtaken => self.overtake(plot),
            Ambush::Echo => self.echo(plot),
            Ambush::Loss => self.lose(plot),
            Ambush::Forgotten => self.forget(plot),
            Ambush::Stale => self.outdate(plot),
        };
        match next? {
            Next::Wait => {}
            Next::End => self.end_ambush(),
            Next::To(stage, time) => {
                self.trace.text(format_args!("{ambush:?}: {stage:?}"));
                self.tally.count(&format!("{ambush:?}: {stage:?}"));
                self.plot = self.plot.map(|plot| Plot {
                    stage,
                    since: self.now,
                    until: self.now + time,
                    ..plot
                });
            }
        }
        Ok(())
    }

    /// From a cluster in which all is well.
    fn begin_ambush(&mut self, ambush: Ambush) {
        let Some(writer) = self.writer() else { return };
        let members = &self.sites[writer].record().config;
        let is_well = self.sites.iter().all(|site| {
            site.is_up()
                && site.disk.is_as_usual()
                && !site.is_unsound()
                && members.members.contains(&site.id)
        });
        let is_apart = !self.net.is_whole() || members.previous.is_some();
        if !is_well || is_apart || self.rivals.is_some() || self.judge.is_unsettled {
            return;
        }
        let all = self.sites.len();
        let first = self.dice.below(all as u64 - 1);
        let first = usize::try_from(first).expect("few nodes");
        let mut others = [writer; 4];
        for (index, other) in others.iter_mut().enumerate().take(all - 1) {
            *other = (writer + 1 + (first + index) % (all - 1)) % all;
        }
        self.tally.count("ambushes");
        self.trace
            .text(format_args!("{ambush:?}: {writer}, {others:?}"));
        self.plot = Some(Plot {
            cast: Cast { writer, others },
            stage: Stage::Begun,
            since: self.now,
            until: self.now + 6 * SECOND,
            asked: 0,
        });
        match ambush {
            Ambush::Overtaken | Ambush::Stale => self.isolate(writer),
            Ambush::Loss => self.isolate(others[0]),
            Ambush::Forgotten => self.sites[others[2]].disk.log_slowness = 1000,
            Ambush::Echo => {}
        }
    }

    fn end_ambush(&mut self) {
        self.plot = None;
        for host in 0..self.sites.len() {
            self.rejoin(host);
            self.repair(host);
        }
    }

    /// An order to write, again and again until it does.
    fn urge(&mut self, host: Host) -> Verdict {
        let is_due = self.plot.is_some_and(|plot| self.now > plot.asked + AGAIN);
        if !is_due || !self.may_promote() {
            return Ok(());
        }
        if let Some(plot) = &mut self.plot {
            plot.asked = self.now;
        }
        self.promote(host, None)
    }

    /// Both ways.
    fn part(&mut self, one: Host, other: Host) {
        self.net.block(one, other);
        self.net.block(other, one);
    }

    fn join(&mut self, one: Host, other: Host) {
        self.net.unblock(one, other);
        self.net.unblock(other, one);
    }

    /// A process ends and is started again at once: whoever was connected with it sees that.
    fn restart(&mut self, host: Host) -> Verdict {
        self.crash(host)?;
        let at = self.now + self.dice.range(5, 50) * MILLI;
        self.agenda.enter(at, Happening::Start(host));
        Ok(())
    }

    fn restart_empty(&mut self, host: Host, writer: Host) -> Verdict {
        self.restart(host)?;
        self.empty(host);
        self.tally.count("disks that lost something");
        let peer = self.sites[host].id;
        if self.sites[writer].links.remove(&host).is_some() {
            let event = replica::machine::Event::Disconnected { peer };
            self.step(writer, event)?;
        }
        Ok(())
    }
}

type Looked = Result<Next, Breach>;
