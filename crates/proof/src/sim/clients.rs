//! Clients: each asks one thing at a time of the node it takes for the primary, or reads at any other:
//! what is applied there, not before it has what this client was told of.

use replica::machine::{Event, NodeId, Outcome, Refusal};
use wal::Lsn;

use super::{
    agenda::{MILLI, Moment, SECOND},
    breach::{Breach, Checker, Verdict},
    cluster::{Cluster, Happening, copies},
    judge::{Acknowledged, requests::Told},
    net::Host,
    payload::{KIND, Payload},
    swarm::Swarm,
};

/// A client that has no answer by then asks another.
const PATIENCE: Moment = 8 * SECOND;

/// Between two attempts of a client that is refused.
const REST: Moment = 200 * MILLI;

#[derive(Debug)]
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// Confirmed reads that wait for the owner to apply.
    reads: Vec<Read>,
    pub(crate) last_acknowledged: Moment,
    pub(crate) are_done: bool,
}

#[derive(Debug, Default)]
struct Client {
    target: Host,
    asked: Option<Asked>,
    was_refused: bool,
    /// The highest position that it was told of.
    told: Lsn,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    host: Host,
    at: Moment,
    key: u8,
    is_read: bool,
}

#[derive(Debug)]
struct Read {
    client: usize,
    asked: Asked,
    /// Not before that is applied.
    applied: Lsn,
    /// The primary said that everything acknowledged is in it.
    is_confirmed: bool,
}

impl Clients {
    pub(crate) fn new(swarm: &Swarm) -> Self {
        Self {
            clients: (0..swarm.clients).map(|_| Client::default()).collect(),
            reads: Vec::new(),
            last_acknowledged: 0,
            are_done: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.clients.iter().any(|client| client.asked.is_some())
    }

    /// An operator accepted a loss: nothing that was told is owed.
    pub(crate) fn forgive(&mut self) {
        for client in &mut self.clients {
            client.told = Lsn::ZERO;
        }
    }

    /// The first one asks at a node, all others at another one.
    pub(crate) fn part(&mut self, first: Host, others: Host) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.target = if index == 0 { first } else { others };
        }
    }

    /// A process is gone with what it was asked.
    pub(crate) fn lost(&mut self, host: Host) {
        self.reads.retain(|read| read.asked.host != host);
        for client in &mut self.clients {
            if client.asked.is_some_and(|asked| asked.host == host) {
                client.asked = None;
            }
        }
    }
}

impl Cluster {
    /// A client's turn.
    pub(crate) fn client(&mut self, index: usize) -> Verdict {
        let mut idle = self.dice.range(1, self.swarm.idle.max(2));
        if std::mem::take(&mut self.clients.clients[index].was_refused) {
            // Whoever is refused asks less often.
            idle += REST;
        }
        self.agenda.enter(self.now + idle, Happening::Client(index));
        let client = &mut self.clients.clients[index];
        if let Some(asked) = client.asked {
            if self.now < asked.at + PATIENCE {
                return Ok(());
            }
            self.tally.count("requests given up by clients");
            client.asked = None;
            client.target = (client.target + 1) % self.sites.len();
            self.clients
                .reads
                .retain(|read| read.asked.number != asked.number);
        }
        if self.clients.are_done {
            return Ok(());
        }
        self.ask(index)
    }

    fn ask(&mut self, index: usize) -> Verdict {
        let number = self.next_number();
        let key = u8::try_from(self.dice.below(self.swarm.keys)).expect("few keys");
        let is_read = self.dice.one_in(4);
        if is_read && self.dice.one_in(3) {
            return self.read_anywhere(index, number, key);
        }
        let client = &mut self.clients.clients[index];
        if self.sites[client.target].node.is_none() || self.dice.one_in(40) {
            let other = self.dice.below(self.sites.len() as u64);
            client.target = usize::try_from(other).expect("few nodes");
        }
        let host = client.target;
        if !self.sites[host].is_up() {
            return Ok(());
        }
        client.asked = Some(Asked {
            number,
            host,
            at: self.now,
            key,
            is_read,
        });
        if is_read {
            self.judge.requests.ask_to_read(number);
            return self.step(host, Event::Confirm { number });
        }
        let count = self.dice.range(1, self.swarm.records_per_write);
        let mut record = |index: u64| {
            let payload = Payload {
                number,
                index: u8::try_from(index).expect("few records"),
                key,
            };
            let padding = usize::try_from(self.dice.below(100)).expect("short");
            (KIND, payload.bytes(padding).into())
        };
        let records = (0..count).map(&mut record).collect();
        self.judge.requests.ask(number, self.now, count);
        self.step(
            host,
            Event::Write {
                number,
                records,
                under: None,
            },
        )
    }

    /// At what is applied somewhere, or once there is what the client was told of (REP-17).
    fn read_anywhere(&mut self, index: usize, number: u64, key: u8) -> Verdict {
        let host = self.dice.below(self.sites.len() as u64);
        let host = usize::try_from(host).expect("few nodes");
        if !self.sites[host].is_up() {
            return Ok(());
        }
        let does_wait = self.dice.coin();
        let client = &mut self.clients.clients[index];
        let asked = Asked {
            number,
            host,
            at: self.now,
            key,
            is_read: true,
        };
        client.asked = Some(asked);
        let applied = if does_wait { client.told } else { Lsn::ZERO };
        self.clients.reads.push(Read {
            client: index,
            asked,
            applied,
            is_confirmed: false,
        });
        self.finish_reads(host);
        Ok(())
    }

    pub(crate) fn answered(&mut self, host: Host, number: u64, outcome: Outcome) -> Verdict {
        if self.operator.is_asked(number) {
            return self.order_ended(host, number, &outcome);
        }
        let asked_by = self
            .clients
            .clients
            .iter()
            .position(|it| it.asked.is_some_and(|asked| asked.number == number));
        let asked = asked_by.and_then(|index| self.clients.clients[index].asked);
        if let Some(index) = asked_by {
            let is_waiting = matches!(outcome, Outcome::Confirmed { .. });
            if !is_waiting {
                self.clients.clients[index].asked = None;
            }
            self.retarget(index, &outcome);
        }
        match (asked, outcome) {
            (Some(asked), Outcome::Confirmed { applied }) if asked.is_read => {
                self.judge.requests.tell(number, Told::Confirmed, false)?;
                let client = asked_by.expect("it asked");
                let read = Read {
                    client,
                    asked,
                    applied,
                    is_confirmed: true,
                };
                self.clients.reads.push(read);
                self.finish_reads(host);
                Ok(())
            }
            (_, Outcome::Written { first, last }) => {
                if let Some(index) = asked_by {
                    let told = &mut self.clients.clients[index].told;
                    *told = last.max(*told);
                }
                self.written(host, number, first, last)
            }
            (_, Outcome::Refused(_)) => {
                self.tally.count("writes refused");
                self.judge.requests.tell(number, Told::Refused, false)
            }
            (_, Outcome::Unknown(_)) => {
                self.tally.count("writes of unknown end");
                self.judge.requests.tell(number, Told::Unknown, false)
            }
            (_, Outcome::Confirmed { .. }) => {
                self.judge.requests.tell(number, Told::Confirmed, false)
            }
            (_, outcome) => {
                let words = format!("{number} ends with {outcome:?}");
                Err(Breach::new(Checker::Answers, words))
            }
        }
    }

    fn retarget(&mut self, index: usize, outcome: &Outcome) {
        let (Outcome::Refused(refusal) | Outcome::Unknown(refusal)) = outcome else {
            return;
        };
        self.clients.clients[index].was_refused = true;
        let random = self.dice.below(self.sites.len() as u64);
        let holder: Option<NodeId> = match refusal {
            Refusal::NotPrimary { holder } => *holder,
            _ => None,
        };
        let target = holder.and_then(|id| self.hosts.get(&id).copied());
        let target = target.unwrap_or(usize::try_from(random).expect("few nodes"));
        self.clients.clients[index].target = target;
    }

    fn written(&mut self, host: Host, number: u64, first: Lsn, last: Lsn) -> Verdict {
        self.tally.count("writes acknowledged");
        self.clients.last_acknowledged = self.now;
        let site = &self.sites[host];
        let epoch = site.primary.unwrap_or_default();
        let ack = Acknowledged {
            host,
            epoch,
            last,
            copies: copies(&site.record().config),
            lease_ends: site.lease_ends,
            at: self.now,
        };
        let disks = self
            .sites
            .iter()
            .map(|site| &site.disk)
            .enumerate()
            .collect();
        self.judge.acknowledged(ack, &disks)?;
        let told = Told::Written {
            first,
            last,
            at: self.now,
        };
        let is_forgiven = self.judge.is_unsettled;
        self.judge.requests.tell(number, told, is_forgiven)
    }

    /// Reads whose position is applied.
    pub(crate) fn finish_reads(&mut self, host: Host) {
        let site = &self.sites[host];
        let derived = &site.disk.image.derived;
        let applied = derived.applied();
        if !site.is_readable {
            return;
        }
        let reads = std::mem::take(&mut self.clients.reads);
        for read in reads {
            let asked = read.asked;
            if asked.host != host || applied < read.applied {
                self.clients.reads.push(read);
                continue;
            }
            let number = derived.map().get(&asked.key).map_or(0, |it| it.number);
            if !self.judge.is_unsettled && !site.disk.is_before_a_loss {
                let seen = (asked.key, applied, number);
                let at = (asked.at, self.now);
                self.judge.requests.read(at, seen, read.is_confirmed);
            }
            self.tally.count(match (read.is_confirmed, site.primary) {
                (true, _) => "confirmed reads",
                (false, Some(_)) => "reads of what is applied at a primary",
                (false, None) => "reads of what is applied at a replica",
            });
            let client = &mut self.clients.clients[read.client];
            client.told = client.told.max(applied);
            if client.asked.is_some_and(|it| it.number == asked.number) {
                client.asked = None;
            }
        }
    }
}
