//! Carrying out what a machine wants done, and telling it what became of it.

use replica::machine::{BaseFound, Effect, Event, Role, SessionId};
use wal::Lsn;

use super::{
    agenda::{MILLI, Moment},
    breach::{Breach, Checker, Verdict},
    cluster::{Cluster, Happening, Work},
    disk::{Begin, Change, Changed, Lane},
    net::Host,
};

impl Cluster {
    pub(crate) fn carry_out(&mut self, host: Host, effect: Effect) -> Verdict {
        match effect {
            Effect::Send { to, message } => {
                self.send(host, self.hosts.get(&to).copied(), message)?
            }
            Effect::Append(entries) => {
                self.sites[host].disk.append(entries)?;
                self.begin_work(host, Lane::Log);
            }
            Effect::Truncate { keep } => {
                self.sites[host].disk.truncate(keep)?;
                self.begin_work(host, Lane::Log);
            }
            Effect::BeginBase {
                session,
                base,
                history,
                since,
                parts,
            } => {
                let begin = Begin {
                    session,
                    base,
                    history,
                    since,
                    parts,
                };
                let disk = &mut self.sites[host].disk;
                disk.log_lane.push_back(Change::Begin(begin));
                self.begin_work(host, Lane::Log);
            }
            Effect::Keep { number, record } => {
                let lane = &mut self.sites[host].disk.record_lane;
                lane.push_back((number, record));
                self.begin_work(host, Lane::Record);
            }
            Effect::StoreBase {
                session,
                index,
                bytes,
            } => {
                let lane = &mut self.sites[host].disk.base_lane;
                lane.push_back((session, index, bytes));
                self.begin_work(host, Lane::Base);
            }
            Effect::Reconnect { peer } => {
                if let Some(peer) = self.hosts.get(&peer) {
                    self.tally.count("reconnections asked for");
                    self.sites[host].links.remove(peer);
                }
            }
            Effect::Commit(lsn) => self.committed(host, lsn)?,
            Effect::Answer { number, outcome } => self.answered(host, number, outcome)?,
            Effect::Role(role) => self.role(host, role)?,
            Effect::Log(line) => {
                self.tally.line(line.name);
                self.judge.sessions.told(host, &line)?;
            }
            Effect::Pin { .. }
            | Effect::Unpin { .. }
            | Effect::Read { .. }
            | Effect::OpenBase { .. }
            | Effect::ReadBase { .. }
            | Effect::CloseBase { .. } => self.serve_session(host, effect)?,
        }
        Ok(())
    }

    fn committed(&mut self, host: Host, lsn: Lsn) -> Verdict {
        self.judge.committed(host, lsn, &self.sites[host].disk)?;
        self.judge.compare(host, &self.sites[host].disk.image)?;
        self.sites[host].is_readable = true;
        self.finish_reads(host);
        self.apply_soon(host);
        Ok(())
    }

    /// What a primary's sessions want of its log and its owner.
    fn serve_session(&mut self, host: Host, effect: Effect) -> Verdict {
        let (least, most) = self.swarm.sync;
        let after = self.dice.range(least, most) * self.sites[host].disk.slowness;
        let site = &mut self.sites[host];
        match effect {
            Effect::Pin { session, from } => {
                let is_held = site.disk.pin(session, from);
                if !is_held {
                    self.tally.count("pins that could not be taken");
                    let reason = "not retained".to_owned();
                    let lost = Event::PinLost { session, reason };
                    self.later(host, 0, Work::Event(Box::new(lost)));
                }
            }
            Effect::Unpin { session } => site.disk.unpin(session)?,
            Effect::Read {
                session,
                from,
                to,
                bytes,
            } => {
                let work = Work::Read {
                    session,
                    from,
                    to,
                    bytes,
                };
                self.later(host, after, work);
            }
            Effect::OpenBase { session, since } => {
                if !site.looking.insert(session) {
                    let words = format!("node {host} looks twice for a base for {session:?}");
                    return Err(Breach::new(Checker::Pins, words));
                }
                self.later(host, after, Work::OpenBase { session, since });
            }
            Effect::ReadBase { session, index } => {
                self.later(host, after, Work::ReadBase { session, index });
            }
            Effect::CloseBase { session } => {
                let was_open = site.looking.remove(&session) || site.disk.close_base(session);
                if !was_open {
                    let words =
                        format!("node {host} lets go of a base for {session:?}, and holds none");
                    return Err(Breach::new(Checker::Pins, words));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn send(
        &mut self,
        host: Host,
        to: Option<Host>,
        message: replica::machine::Message,
    ) -> Verdict {
        self.judge.sent(host, &message, &self.sites[host].disk)?;
        self.judge.sessions.sent(host, &message.body)?;
        let Some(to) = to else {
            return Ok(());
        };
        self.tally.messages += 1;
        let link = self.sites[host].links.get(&to);
        if link.is_some_and(|(endpoint, _)| *endpoint != self.sites[to].endpoint) {
            self.tally.count("messages to an earlier address");
            return Ok(());
        }
        let way = (host, to);
        let arrivals = self
            .net
            .send(self.now, way, &message, &mut self.dice, &mut self.tally);
        let mut message = Some(Box::new(message));
        for (index, at) in arrivals.iter().enumerate() {
            let is_last = index + 1 == arrivals.len();
            let copy = if is_last {
                message.take()
            } else {
                message.clone()
            };
            if let Some(copy) = copy {
                self.deliver(*at, to, copy);
            }
        }
        Ok(())
    }

    pub(crate) fn deliver(
        &mut self,
        at: Moment,
        to: Host,
        message: Box<replica::machine::Message>,
    ) {
        let work = Work::Received(message);
        let happening = Happening::Work {
            host: to,
            life: None,
            work,
        };
        self.agenda.enter(at, happening);
    }

    /// The disk turns to a lane, if it is not busy with it.
    fn begin_work(&mut self, host: Host, lane: Lane) {
        let site = &mut self.sites[host];
        let is_empty = match lane {
            Lane::Log => site.disk.log_lane.is_empty() || site.disk.is_failed,
            Lane::Record => site.disk.record_lane.is_empty(),
            Lane::Base => site.disk.base_lane.is_empty(),
        };
        if is_empty || !site.busy.insert(lane) {
            return;
        }
        let (least, most) = self.swarm.sync;
        let slowness = match lane {
            Lane::Log => site.disk.slowness * site.disk.log_slowness,
            Lane::Record | Lane::Base => site.disk.slowness,
        };
        let after = self.dice.range(least, most) * slowness;
        self.later(host, after, Work::Lane(lane));
    }

    /// The oldest thing of a lane is done.
    pub(crate) fn lane(&mut self, host: Host, lane: Lane) -> Verdict {
        self.sites[host].busy.remove(&lane);
        match lane {
            Lane::Log => self.log_done(host)?,
            Lane::Record => self.record_done(host)?,
            Lane::Base => self.part_done(host)?,
        }
        self.begin_work(host, lane);
        Ok(())
    }

    fn log_done(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        if std::mem::take(&mut site.will_fail) || site.disk.is_full {
            self.tally.count("appends and cuts that failed");
            return self.fail_log(host);
        }
        let mut flushed = None;
        // One sync covers what was written before it.
        while let Some(changed) = self.sites[host].disk.change() {
            match changed {
                Changed::Flushed(entries) => {
                    for entry in &entries {
                        let id = self.sites[host].disk.id_of(entry.position.epoch);
                        self.judge.sequence.stored(entry, id)?;
                    }
                    flushed = entries.last().map(|it| it.position).or(flushed);
                    let next = self.sites[host].disk.log_lane.front();
                    if matches!(next, Some(Change::Append(_))) && self.dice.coin() {
                        continue;
                    }
                    break;
                }
                Changed::Truncated { keep, cut } => {
                    self.tally.add("records put in quarantine", cut as u64);
                    self.judge.cut(host, keep);
                    return self.step(host, Event::Truncated { end: keep });
                }
                Changed::Begun(begin) => {
                    self.judge.begun(host, begin.base);
                    self.sites[host].is_readable = false;
                    self.base_stored(host, &begin, false)?;
                    let event = Event::BaseStored {
                        session: begin.session,
                        parts: 0,
                    };
                    return self.step(host, event);
                }
                Changed::NotBegun(session) => {
                    self.tally.count("bases that could not be begun");
                    let reason = "the owner cannot go back so far".to_owned();
                    let event = Event::BaseFailed {
                        session,
                        reason,
                        is_untouched: true,
                    };
                    return self.step(host, event);
                }
            }
        }
        if let Some(position) = flushed {
            self.step(host, Event::Flushed(position))?;
            self.judge.compare(host, &self.sites[host].disk.image)?;
            self.apply_soon(host);
        }
        Ok(())
    }

    fn fail_log(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        site.disk.is_failed = true;
        self.trace.note(self.now, host, "the log fails");
        // Whoever looks after it starts it again.
        let after = self.dice.range(200, 4000) * MILLI;
        self.agenda.enter(self.now + after, Happening::Start(host));
        self.operator.to_restart.insert(host);
        let reason = "input/output error".to_owned();
        self.step(host, Event::LogFailed { reason })
    }

    fn record_done(&mut self, host: Host) -> Verdict {
        let site = &mut self.sites[host];
        let does_fail = std::mem::take(&mut site.will_fail_record) || site.disk.is_full;
        if does_fail {
            self.tally.count("records that could not be kept");
            let Some((number, _)) = site.disk.record_lane.pop_front() else {
                return Ok(());
            };
            let event = Event::Kept {
                number,
                is_durable: false,
            };
            return self.step(host, event);
        }
        let was_damaged = site.disk.image.is_damaged;
        let Some(number) = site.disk.keep() else {
            return Ok(());
        };
        self.judge
            .kept(host, &self.sites[host].disk.image, was_damaged)?;
        let event = Event::Kept {
            number,
            is_durable: true,
        };
        self.step(host, event)
    }

    fn part_done(&mut self, host: Host) -> Verdict {
        let Some((session, parts, whole)) = self.sites[host].disk.store() else {
            return Ok(());
        };
        if let Some(begin) = whole {
            self.base_stored(host, &begin, true)?;
        }
        self.step(host, Event::BaseStored { session, parts })?;
        self.apply_soon(host);
        Ok(())
    }

    /// Derived state at a base is what the committed records up to it make.
    fn base_stored(&mut self, host: Host, begin: &Begin, is_whole: bool) -> Verdict {
        if !is_whole {
            return Ok(());
        }
        self.tally.count(match begin.since {
            Some(_) => "delta rebuilds stored",
            None => "whole bases stored",
        });
        let has = self.sites[host].disk.image.derived.at(begin.base.lsn);
        if !self.judge.is_unsettled && has != self.judge.sequence.state(begin.base.lsn) {
            let words = format!("node {host}: {begin:?} gives {has:?}");
            return Err(Breach::new(Checker::State, words));
        }
        Ok(())
    }

    fn role(&mut self, host: Host, role: Role) -> Verdict {
        self.judge.sessions.role(host, role)?;
        self.sites[host].primary = match role {
            Role::Primary { epoch } => Some(epoch),
            Role::Replica { .. } => None,
        };
        if let Role::Primary { epoch } = role {
            self.tally.count("times that a node began to write");
            self.operator.wrote(host, epoch);
        }
        Ok(())
    }

    pub(crate) fn open_base(
        &mut self,
        host: Host,
        session: SessionId,
        since: Option<Lsn>,
    ) -> Verdict {
        if !self.sites[host].looking.remove(&session) {
            return Ok(());
        }
        let can_make = self.dice.below(100) < self.swarm.bases || self.phase.is_calm();
        let is_made = self.dice.coin();
        let knows_changes = self.swarm.knows_changes;
        let committed = self.judge.committed_at(host);
        let site = &mut self.sites[host];
        if is_made && can_make {
            site.disk.image.derived.flush(committed);
        }
        let made = is_made.then(|| "no checkpoint is near enough".to_owned());
        let since = since.filter(|_| knows_changes);
        let base = site.disk.open_base(session, since, made, can_make);
        self.tally.count(match &base {
            None => "bases that could not be made",
            Some(BaseFound { since: Some(_), .. }) => "bases of changes opened",
            Some(_) => "whole bases opened",
        });
        self.step(host, Event::BaseOpened { session, base })
    }
}
