//! The machine with what carries out its effects, and the threads that serve it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use wal::{Error, Journal as _, Kind, Lsn, Pin};
use world::Random;

use super::{
    Options, Shared,
    files::{self, Files},
    inbox::{Inbox, Notes},
    log::{self, Work},
    rebuild::{BaseWork, Begin, Rebuilder},
    telling,
};
use crate::{
    machine::{
        Body, Durable, Effect, Entry, EpochId, Event, Mode, Node, Outcome, Position, Record,
        Refusal, SessionId, Time,
    },
    transport::Heard,
};

fn number(random: &dyn Random) -> Result<u128, Error> {
    let mut bytes = [0; 16];
    random
        .fill(&mut bytes)
        .map_err(|error| Error::new(Kind::Io, format!("cannot draw a random number: {error}")))?;
    Ok(u128::from_le_bytes(bytes))
}

pub(super) fn epoch_id(random: &dyn Random) -> Result<EpochId, Error> {
    number(random).map(EpochId)
}

/// From the connections: waits while the machine has enough to do.
pub(super) fn hear(inbox: &Inbox, notes: &Notes, random: &dyn Random, heard: Heard) {
    let event = match heard {
        Heard::Up { peer, endpoint } => match number(random) {
            Ok(session) => Event::Connected {
                peer,
                endpoint,
                session: SessionId(session),
            },
            Err(error) => {
                tracing::error!(%error, "a session cannot begin");
                return;
            }
        },
        Heard::Down { peer } => Event::Disconnected { peer },
        Heard::Message(message) => Event::Received(*message),
        Heard::Note { peer, note } => return notes.push(peer, note),
    };
    inbox.push_from_outside(event);
}

type ThreadBody = Box<dyn FnOnce() + Send>;

struct ReadWork {
    session: SessionId,
    from: Lsn,
    to: Lsn,
    bytes: u64,
}

/// In the [`Inbox`], so that whoever brings an event can have it handled.
pub(super) struct Core {
    shared: Arc<Shared>,
    node: Node,
    files: Files,
    pins: BTreeMap<SessionId, Pin>,
    reads: mpsc::Sender<ReadWork>,
    /// `None` where no state is derived from this journal.
    bases: Option<mpsc::Sender<BaseWork>>,
    /// Gone with this, and then the thread that writes is.
    writer: telling::Writer,
    /// Answers to effects that were carried out at once.
    own: VecDeque<Event>,
    tick: Duration,
    next_tick: Duration,
    /// Not again before one was made.
    is_tick_postponed: bool,
}

pub(super) fn start(
    shared: &Arc<Shared>,
    files: Files,
    durable: Durable,
    options: &Options,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let (reads, read_work) = mpsc::channel();
    let (bases, base_work) = mpsc::channel();
    let (writer, unwritten) = telling::writer();
    let now = Time(shared.clock.monotonic());
    let (node, effects) = Node::start(
        now,
        options.me,
        options.cluster,
        options.identity,
        durable,
        options.limits,
    );
    let mut core = Core {
        shared: Arc::clone(shared),
        node,
        files,
        pins: BTreeMap::new(),
        reads,
        bases: options.derived.is_some().then_some(bases),
        writer,
        own: VecDeque::new(),
        tick: options.limits.heartbeat / 4,
        next_tick: Duration::ZERO,
        is_tick_postponed: false,
    };
    let (writing, reading) = (Arc::clone(shared), Arc::clone(shared));
    let rebuilder = options
        .derived
        .as_ref()
        .map(|derived| Rebuilder::new(shared, &derived.bases, &options.journal));
    let mut threads = Vec::new();
    let mut bodies: Vec<(&str, ThreadBody)> = vec![
        ("replica-log", Box::new(move || log::run(&writing))),
        (
            "replica-read",
            Box::new(move || read_loop(&reading, &read_work)),
        ),
        ("replica-tell", Box::new(move || telling::write(&unwritten))),
        (
            "replica-core",
            Box::new(move || {
                core.carry_out(effects);
                run(core);
            }),
        ),
    ];
    if let Some(rebuilder) = rebuilder {
        bodies.push(("replica-base", Box::new(move || rebuilder.run(&base_work))));
    }
    for (name, body) in bodies {
        match world::spawn_spine(name, body) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that run hold the log and its lock.
                shared.inbox.close();
                shared.log.close();
                return Err(Error::new(
                    Kind::Io,
                    format!("cannot start {name}: {error}"),
                ));
            }
        }
    }
    Ok(threads)
}

/// Time passes for the machine also while nobody brings an event; and what those who do leave is handled.
fn run(core: Core) {
    let (shared, tick) = (Arc::clone(&core.shared), core.tick);
    shared.inbox.seat(core);
    // What the start caused has waited, and so may what came meanwhile.
    shared.inbox.turn();
    while shared.inbox.wait(tick) {
        shared.inbox.turn();
    }
    shared.inbox.unseat();
    shared.log.close();
    shared.requests.close();
}

impl Core {
    /// Events in their order, whose effects share appends; and a tick where one is due.
    pub(super) fn handle(&mut self, events: Vec<Event>) {
        let mut effects = Vec::new();
        for event in events {
            self.step(event, &mut effects);
        }
        let now = self.shared.clock.monotonic();
        if now >= self.next_tick {
            self.next_tick = now + self.tick;
            self.is_tick_postponed = false;
            self.step(Event::Tick, &mut effects);
            *self.shared.status() = Some(self.node.status());
        }
        self.carry_out(effects);
        // What is kept takes long on a disk that is slow, and who carried it out may be the one who hears a peer:
        // that is listened to before it is asked whether it was silent.
        let ended = self.shared.clock.monotonic();
        if ended.saturating_sub(now) > self.tick && !self.is_tick_postponed {
            self.next_tick = ended + self.tick;
            self.is_tick_postponed = true;
        }
    }

    fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let now = Time(self.shared.clock.monotonic());
        effects.extend(self.node.step(now, event));
    }

    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        loop {
            for effect in std::mem::take(&mut effects) {
                self.act(effect);
            }
            let Some(event) = self.own.pop_front() else {
                return;
            };
            self.step(event, &mut effects);
        }
    }

    fn act(&mut self, effect: Effect) {
        let shared = Arc::clone(&self.shared);
        match effect {
            Effect::Send { to, message } => {
                let config = self.node.config();
                let is_awaited = config.mode != Mode::Async || config.previous.is_some();
                match message.body {
                    Body::Entries { .. } if !is_awaited => {
                        shared.transport.send_lingering(to, &message);
                    }
                    _ => shared.transport.send(to, &message),
                }
            }
            Effect::Append(entries) => self.shared.log.submit(Work::Append(entries)),
            Effect::Truncate { keep } => self.shared.log.submit(Work::Truncate {
                keep,
                reason: format!("the primary's log has nothing of it after {keep}"),
            }),
            Effect::Keep { number, record } => self.keep(number, &record),
            Effect::Reconnect { peer } => shared.transport.reconnect(peer),
            Effect::Read {
                session,
                from,
                to,
                bytes,
            } => {
                let work = ReadWork {
                    session,
                    from,
                    to,
                    bytes,
                };
                // Gone only with everything else.
                drop(self.reads.send(work));
            }
            Effect::Pin { session, from } => match shared.local().pin(from) {
                Ok(pin) => drop(self.pins.insert(session, pin)),
                Err(error) => {
                    self.pins.remove(&session);
                    let reason = error.to_string();
                    self.own.push_back(Event::PinLost { session, reason });
                }
            },
            Effect::Unpin { session } => drop(self.pins.remove(&session)),
            Effect::Commit(lsn) => shared.local().show(lsn),
            Effect::Answer { number, outcome } => {
                let outcome = self.still_true(outcome);
                if outcome == Outcome::Done {
                    // Whoever ordered it finds it done when it looks.
                    *shared.status() = Some(self.node.status());
                }
                shared.requests.answer(number, outcome);
            }
            Effect::Role(role) => {
                tracing::info!(?role, "the role of this node");
                *shared.role() = role;
            }
            Effect::Log(line) => {
                if line.name.starts_with("promotion.") {
                    shared.telling.judged(self.node.judgement());
                }
                shared.telling.tell(shared.clock.now(), line, &self.writer);
            }
            base => self.act_on_base(base),
        }
    }

    fn keep(&mut self, number: u64, record: &Record) {
        // A log that is begun for a base belongs to the record only once the base is whole: a start before
        // that finds another one.
        let birth = match record.is_amnesiac {
            true => self.files.authority.entry().birth,
            false => files::birth(&self.shared.local()),
        };
        let now = self.shared.clock.now();
        let kept = self.files.authority.keep(record, birth, now);
        let is_durable = kept.is_ok();
        self.own.push_back(Event::Kept { number, is_durable });
        if let Err(error) = kept {
            tracing::error!(%error, "the authority record was not kept");
            // The handle is dead until the node starts again, and a node that can put nothing on record takes
            // part in nothing: it says so, as of a log that failed.
            if error.kind() != crate::Kind::Invalid {
                let reason = error.to_string();
                self.own.push_back(Event::LogFailed { reason });
            }
        }
    }

    fn act_on_base(&mut self, effect: Effect) {
        let Some(bases) = &self.bases else {
            return self.refuse_base(effect);
        };
        let work = match effect {
            Effect::OpenBase { session, since } => BaseWork::Open { session, since },
            Effect::ReadBase { session, index } => BaseWork::Read { session, index },
            Effect::CloseBase { session } => BaseWork::Close { session },
            Effect::BeginBase {
                session,
                base,
                history,
                since,
                parts,
            } => {
                let own = self.node.status();
                let common = own.history.common(own.end, &history, base);
                BaseWork::Begin(Begin {
                    session,
                    base,
                    history,
                    since,
                    parts,
                    common,
                })
            }
            Effect::StoreBase {
                session,
                index,
                bytes,
            } => BaseWork::Store {
                session,
                index,
                bytes,
            },
            _ => return,
        };
        // Gone only with everything else.
        drop(bases.send(work));
    }

    /// A process that was stopped between a decision and what comes of it acknowledges nothing when its
    /// lease is over by then.
    fn still_true(&self, outcome: Outcome) -> Outcome {
        let now = Time(self.shared.clock.monotonic());
        match outcome {
            Outcome::Written { .. } if self.node.is_lease_over(now) => {
                Outcome::Unknown(Refusal::LeaseEnded)
            }
            Outcome::Confirmed { .. } if self.node.is_lease_over(now) => {
                Outcome::Refused(Refusal::LeaseEnded)
            }
            outcome => outcome,
        }
    }

    /// Nothing is derived from this journal that could be sent: a replica that needs more than the log
    /// stays as it is, and says why.
    fn refuse_base(&mut self, effect: Effect) {
        match effect {
            Effect::OpenBase { session, .. } => {
                self.own.push_back(Event::BaseOpened {
                    session,
                    base: None,
                });
            }
            Effect::ReadBase { session, index } => {
                self.own.push_back(Event::BaseRead {
                    session,
                    index,
                    bytes: None,
                });
            }
            Effect::BeginBase { session, .. } | Effect::StoreBase { session, .. } => {
                self.own.push_back(Event::BaseFailed {
                    session,
                    reason: "nothing here takes a base".to_owned(),
                    is_untouched: true,
                });
            }
            _ => {}
        }
    }
}

fn read_loop(shared: &Shared, work: &mpsc::Receiver<ReadWork>) {
    while let Ok(work) = work.recv() {
        let bytes = usize::try_from(work.bytes).unwrap_or(usize::MAX);
        let read = shared.local().read_range(work.from, work.to, bytes);
        let entries = match read {
            Ok(records) => Ok(records
                .into_iter()
                .map(|record| Entry {
                    position: Position {
                        epoch: record.epoch,
                        lsn: record.lsn,
                    },
                    kind: record.kind,
                    bytes: record.bytes.into(),
                })
                .collect()),
            Err(error) if error.kind() == Kind::OutOfRange => Err(Outcome::Recycled {
                first: shared.local().first_retained(),
            }),
            Err(error) => {
                tracing::error!(%error, "a record could not be read for a replica");
                Err(Outcome::Corrupt { lsn: work.from })
            }
        };
        shared.inbox.push(Event::ReadBack {
            session: work.session,
            entries,
        });
    }
}
