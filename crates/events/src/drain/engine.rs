//! One drain: its own thread, which owns the schedule and every effect but the sends.
//!
//! Order of effects for a batch: the receiver answers, dead letters durable, cursor durable, next
//! batch. What fails on our own disk in between is tried again without sending again; what a crash
//! interrupts is sent again.
//!
//! A cursor also moves over the events of other classes, so that a class without events holds back no
//! retention: with the next move of any class, or after [`CURSOR_REST_MAX`].

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use wal::Lsn;

use super::{
    batch::Survey,
    dead_letter::Letter,
    handle::{Mode, Options, Shared, Summary},
    lane::{Lane, Lanes, Unsettled, begin, start_workers},
    receiver::SendError,
    schedule::{Action, Event, Fault, Outcome, Schedule},
    status::{ClassStatus, Status},
    worker::{Delivered, Done, Failure, Job, Worker},
};
use crate::{Class, Error, EventId, Kind, cursors::Move};

/// How long a cursor may stay behind what is known, when no batch moves it. What a crash then costs
/// is reading these records again, and what retention waits for is this.
const CURSOR_REST_MAX: Duration = Duration::from_secs(5);
/// How soon a request to stop is noticed while nothing happens.
const STOP_POLL: Duration = Duration::from_millis(200);
/// How soon new events are noticed while a send is in flight.
const BUSY_POLL: Duration = Duration::from_millis(50);
/// How long sends in flight are waited for when the drain ends. What they were sending is sent again
/// at the next start.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Attempts of a class in a row after which a drain that is to end gives the class up: some eight
/// seconds of a receiver that is not there.
const ATTEMPTS_ONCE_MAX: u32 = 5;

/// What the owner of an engine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Call again when something happened, or after this long.
    Wait(Duration),
    Ended,
}

pub(super) struct Engine {
    options: Options,
    shared: Arc<Shared>,
    schedule: Schedule,
    lanes: Lanes,
    survey: Survey,
    /// Where a drain that is to end, ends.
    until: Option<Lsn>,
    cursors_moved_at: Duration,
    done: Receiver<Done>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("name", &self.options.name)
            .field("schedule", &self.schedule)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, done) = channel();
        let mut lanes = begin(&options)?;
        start_workers(&options, &mut lanes, &stop, &sender)?;
        let status = Status {
            name: options.name.clone(),
            to: options.receivers.target.to_string(),
            classes: lanes
                .iter()
                .zip(Class::ALL)
                .filter(|(lane, _)| lane.is_wanted)
                .map(|(lane, class)| ClassStatus::new(class, lane.durable))
                .collect(),
            error: None,
            has_ended: false,
        };
        let lowest = lanes.iter().map(|lane| lane.position).min();
        Ok(Self {
            schedule: Schedule::new(),
            survey: Survey {
                upto: lowest.unwrap_or_default(),
            },
            until: (options.mode == Mode::Once).then(|| options.journal.safe_point()),
            cursors_moved_at: options.clock.monotonic(),
            lanes,
            done,
            shared: Arc::new(Shared {
                stop,
                status: Mutex::new(status),
            }),
            options,
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn run(&mut self) -> Summary {
        loop {
            let found = match self.turn() {
                Turn::Ended => break,
                Turn::Wait(wait) => self.wait(wait),
            };
            if let Some(done) = found {
                self.finish(done);
            }
        }
        self.end()
    }

    /// Everything that can be done without waiting.
    pub(super) fn turn(&mut self) -> Turn {
        while let Ok(done) = self.done.try_recv() {
            self.finish(done);
        }
        if self.shared.stop.load(Ordering::Relaxed) {
            return Turn::Ended;
        }
        let is_behind = self.look();
        self.drive(Event::Tick);
        self.rest_cursors();
        if self.is_done() || self.has_lost_a_worker() {
            return Turn::Ended;
        }
        if is_behind {
            return Turn::Wait(Duration::ZERO);
        }
        let now = self.now();
        let until_tick = self.schedule.wake_at(now).map(|at| at.saturating_sub(now));
        Turn::Wait(until_tick.unwrap_or(STOP_POLL).min(STOP_POLL))
    }

    /// Until a send ends, an event arrives or the time is over.
    fn wait(&self, wait: Duration) -> Option<Done> {
        if wait.is_zero() {
            return None;
        }
        if self.lanes.iter().any(|lane| lane.is_sending) {
            return self.done.recv_timeout(wait.min(BUSY_POLL)).ok();
        }
        let has_seen_all = self.survey.upto >= self.options.journal.safe_point();
        if has_seen_all && self.until.is_none() {
            self.options.journal.wait_above(self.survey.upto, wait);
        } else {
            self.options.clock.sleep(wait);
        }
        None
    }

    /// Counts what has arrived. True when there is more to count at once.
    fn look(&mut self) -> bool {
        let journal = Arc::clone(&self.options.journal);
        let until = self.until.unwrap_or_else(|| journal.safe_point());
        let mut arrived = [0_u64; Class::ALL.len()];
        let lanes = &self.lanes;
        let looked = self.survey.look(&*journal, until, |class, lsn| {
            let lane = &lanes[place(class)];
            if lane.is_wanted && lsn > lane.position {
                arrived[place(class)] += 1;
            }
        });
        for (class, arrived) in Class::ALL.into_iter().zip(arrived) {
            if arrived > 0 {
                self.with_status(class, |status| status.waiting += arrived);
                if !self.lanes[place(class)].has_given_up {
                    self.drive(Event::Waiting(class));
                }
            }
        }
        self.pass_over();
        match looked {
            Ok(()) => {
                self.tell_whole(None);
                self.survey.upto < until
            }
            Err(error) if error.kind() == Kind::OutOfRange => {
                self.skip_lost();
                true
            }
            Err(error) => {
                self.tell_whole(Some(error));
                false
            }
        }
    }

    /// A class of which nothing waits is done up to where was looked.
    fn pass_over(&mut self) {
        let upto = self.survey.upto;
        for class in Class::ALL {
            let waiting = self.status_of(class, |status| status.waiting).unwrap_or(0);
            let lane = &mut self.lanes[place(class)];
            if waiting == 0 && !lane.is_sending && lane.unsettled.is_none() {
                lane.position = lane.position.max(upto);
            }
        }
    }

    /// Retention took what was not delivered, which pins prevent unless an operator forced it: said
    /// loudly, counted as far as it can be, and gone on from what is left.
    fn skip_lost(&mut self) {
        let before = Lsn::new(self.options.journal.first_retained().get() - 1);
        let lost = before.get().saturating_sub(self.survey.upto.get());
        tracing::error!(
            drain = self.options.name,
            records = lost,
            "retention took events before they were delivered"
        );
        self.survey.upto = self.survey.upto.max(before);
        for class in Class::ALL {
            let lane = &mut self.lanes[place(class)];
            if lane.position < before && !lane.is_sending {
                lane.position = before;
                self.with_status(class, |status| status.lost += lost);
            }
        }
    }

    /// Feeds the schedule, and does what it says until it says nothing.
    fn drive(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let dice = self.options.random.number().unwrap_or_default();
            let now = self.now();
            if let Some(Action::Send { class, events_max }) = self.schedule.step(event, now, dice) {
                next = self.send(class, events_max);
            }
        }
    }

    /// Begins a send; or ends one that only our own disk kept from ending.
    fn send(&mut self, class: Class, events_max: usize) -> Option<Event> {
        if self.lanes[place(class)].unsettled.is_some() {
            let outcome = self.settle(class);
            return Some(Event::Ended(class, outcome));
        }
        let until = self.survey.upto;
        let lane = &mut self.lanes[place(class)];
        let job = Job {
            after: lane.position,
            until,
            events_max,
        };
        lane.is_sending = lane.worker.as_ref().is_some_and(|worker| worker.hand(job));
        let is_sending = lane.is_sending;
        self.with_status(class, |status| status.is_sending = is_sending);
        None
    }

    /// A send ended.
    fn finish(&mut self, done: Done) {
        let class = done.class;
        self.lanes[place(class)].is_sending = false;
        self.with_status(class, |status| status.is_sending = false);
        let outcome = match done.outcome {
            Ok(delivered) => {
                let unsettled = self.unsettled(delivered);
                self.lanes[place(class)].unsettled = Some(unsettled);
                self.settle(class)
            }
            Err(Failure::Send { count, error }) => self.not_sent(class, count, error),
            Err(Failure::Read(error)) => self.failed(class, &error.to_string(), Fault::Lasting),
        };
        self.drive(Event::Ended(class, outcome));
    }

    fn unsettled(&self, delivered: Delivered) -> Unsettled {
        let when = self.options.clock.now();
        let refused = delivered.refused.len();
        let letters = delivered.refused.into_iter().map(|(event, why)| Letter {
            event,
            drain: self.options.name.clone(),
            receiver: self.options.receivers.target.to_string(),
            why,
            when,
        });
        Unsettled {
            letters: letters.collect(),
            count: delivered.count,
            refused,
            upto: delivered.upto,
        }
    }

    /// Records an answer: dead letters first, then the cursor. The other order would lose an event
    /// that was refused, if the process died in between.
    fn settle(&mut self, class: Class) -> Outcome {
        let Some(mut unsettled) = self.lanes[place(class)].unsettled.take() else {
            return Outcome::Settled { more: false };
        };
        let kept = self.options.dead_letters.append(&unsettled.letters);
        if kept.is_ok() {
            unsettled.letters.clear();
        }
        let recorded = kept.and_then(|()| self.move_cursors(Some((class, unsettled.upto))));
        if let Err(error) = recorded {
            self.lanes[place(class)].unsettled = Some(unsettled);
            return self.failed(
                class,
                &error.to_string(),
                Fault::Passing { retry_after: None },
            );
        }
        let (count, refused) = (unsettled.count as u64, unsettled.refused as u64);
        if refused > 0 {
            tracing::warn!(
                drain = self.options.name,
                class = class.as_str(),
                refused,
                "receiver refused events; they are kept as dead letters"
            );
        }
        let mut more = false;
        let had_failed = self.status_of(class, |status| status.failures > 0);
        self.with_status(class, |status| {
            status.waiting = status.waiting.saturating_sub(count);
            status.accepted += count - refused;
            status.refused += refused;
            status.failures = 0;
            status.failing_since = None;
            more = status.waiting > 0;
        });
        if had_failed == Some(true) {
            tracing::info!(
                drain = self.options.name,
                class = class.as_str(),
                "drain goes on"
            );
        }
        Outcome::Settled { more }
    }

    fn not_sent(&mut self, class: Class, count: usize, error: SendError) -> Outcome {
        match error {
            SendError::Split { .. } | SendError::Refused { .. } => Outcome::Split { sent: count },
            SendError::Retry { after, why } => {
                self.failed(class, &why, Fault::Passing { retry_after: after })
            }
            SendError::Misconfigured { why } => self.failed(class, &why, Fault::Lasting),
        }
    }

    fn failed(&mut self, class: Class, why: &str, fault: Fault) -> Outcome {
        let now = self.options.clock.now();
        let mut failures = 0;
        self.with_status(class, |status| {
            status.failures += 1;
            failures = status.failures;
            status.failing_since.get_or_insert(now);
            status.last_error = Some(why.to_owned());
        });
        if failures == 1 {
            // Once a transition: the status has the rest.
            tracing::warn!(
                drain = self.options.name,
                class = class.as_str(),
                why,
                "drain failed and will try again; nothing is lost"
            );
        }
        let is_hopeless = fault == Fault::Lasting || failures >= ATTEMPTS_ONCE_MAX;
        if self.until.is_some() && is_hopeless {
            self.lanes[place(class)].has_given_up = true;
            return Outcome::GivenUp;
        }
        Outcome::Failed(fault)
    }

    /// Makes positions durable, all in one record: that of `settled`, and what the others passed over.
    fn move_cursors(&mut self, settled: Option<(Class, Lsn)>) -> Result<(), Error> {
        let identity = self.options.journal.identity();
        let mut moves = Vec::with_capacity(self.lanes.len());
        for (lane, class) in self.lanes.iter().zip(Class::ALL) {
            let to = match settled {
                Some((of, upto)) if of == class => upto,
                _ => lane.position,
            };
            if to > lane.durable {
                moves.push(Move {
                    drain: &self.options.name,
                    class,
                    to: EventId::new(identity, to),
                });
            }
        }
        if moves.is_empty() {
            return Ok(());
        }
        self.options.cursors.advance(&moves)?;
        let reached: Vec<(Class, Lsn)> = moves.iter().map(|to| (to.class, to.to.lsn)).collect();
        for (class, lsn) in reached {
            let lane = &mut self.lanes[place(class)];
            lane.position = lane.position.max(lsn);
            lane.durable = lsn;
            self.with_status(class, |status| status.cursor = lsn);
        }
        self.cursors_moved_at = self.now();
        Ok(())
    }

    /// Lets the cursors of idle classes catch up, now and then.
    fn rest_cursors(&mut self) {
        let now = self.now();
        if now < self.cursors_moved_at + CURSOR_REST_MAX {
            return;
        }
        self.cursors_moved_at = now;
        if let Err(error) = self.move_cursors(None) {
            self.tell_whole(Some(error));
        }
    }

    /// Whether a drain that is to end has nothing left that it can do.
    fn is_done(&self) -> bool {
        let Some(until) = self.until else {
            return false;
        };
        let is_idle = |(lane, class): (&Lane, Class)| {
            let waiting = self.status_of(class, |status| status.waiting).unwrap_or(0);
            !lane.is_sending && (waiting == 0 || lane.has_given_up)
        };
        let is_stuck = self.survey.upto < until && self.shared.status().error.is_some();
        (self.survey.upto >= until || is_stuck) && self.lanes.iter().zip(Class::ALL).all(is_idle)
    }

    fn has_lost_a_worker(&mut self) -> bool {
        let is_gone = |lane: &Lane| lane.worker.as_ref().is_some_and(Worker::is_gone);
        let lost = self.lanes.iter().any(is_gone);
        if lost {
            let why = "a sending thread of the drain panicked; restart to go on";
            self.tell_whole(Some(Error::new(Kind::Closed, why)));
        }
        lost
    }

    /// Waits a little for what is in flight, records what can be, and sums up.
    fn end(&mut self) -> Summary {
        self.shared.stop.store(true, Ordering::Relaxed);
        let give_up_at = self.now() + STOP_WAIT;
        while self.lanes.iter().any(|lane| lane.is_sending) {
            let left = give_up_at.saturating_sub(self.now());
            match self.done.recv_timeout(left) {
                Ok(done) if !left.is_zero() => self.finish_last(done),
                _ => break,
            }
        }
        if let Err(error) = self.move_cursors(None) {
            self.tell_whole(Some(error));
        }
        let mut status = self.shared.status();
        status.has_ended = true;
        let unsettled = self.lanes.iter().any(|lane| lane.unsettled.is_some());
        Summary {
            is_complete: status.waiting() == 0
                && status.error.is_none()
                && !unsettled
                && self.until.is_none_or(|until| self.survey.upto >= until),
            status: status.clone(),
        }
    }

    /// As `finish`, without beginning another send.
    fn finish_last(&mut self, done: Done) {
        self.lanes[place(done.class)].is_sending = false;
        if let Ok(delivered) = done.outcome {
            let unsettled = self.unsettled(delivered);
            self.lanes[place(done.class)].unsettled = Some(unsettled);
            self.settle(done.class);
        }
    }

    /// Shows what keeps the whole drain, and logs it once.
    fn tell_whole(&self, error: Option<Error>) {
        let mut status = self.shared.status();
        let text = error.map(|error| error.to_string());
        if let Some(error) = text
            .as_ref()
            .filter(|text| status.error.as_ref() != Some(text))
        {
            tracing::error!(drain = self.options.name, %error, "drain stands still");
        }
        status.error = text;
    }

    fn with_status(&self, class: Class, change: impl FnOnce(&mut ClassStatus)) {
        let mut status = self.shared.status();
        if let Some(status) = status.classes.iter_mut().find(|one| one.class == class) {
            change(status);
        }
    }

    fn status_of<T>(&self, class: Class, read: impl FnOnce(&ClassStatus) -> T) -> Option<T> {
        let status = self.shared.status();
        status
            .classes
            .iter()
            .find(|one| one.class == class)
            .map(read)
    }

    fn now(&self) -> Duration {
        self.options.clock.monotonic()
    }

    #[cfg(test)]
    pub(super) fn class_status(&self, class: Class) -> ClassStatus {
        self.status_of(class, Clone::clone)
            .expect("the class is drained")
    }
}

fn place(class: Class) -> usize {
    super::schedule::index(class)
}
