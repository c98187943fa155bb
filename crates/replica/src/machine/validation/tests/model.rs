//! A small group as a set of states: who promised what, which records lie where, which messages are
//! under way. What decides a promotion is [`judge`](super::super::judge) itself; everything else is as in
//! docs/protocol, without sessions, rebuilds by base, and time.
//!
//! A message, once sent, may arrive at any time, again, or never: so answers, offers and
//! acknowledgements are kept as what was said at most, and a step may use any part of it. So a crash,
//! which loses what was heard, is a step only where something else is lost by it.

mod moves;

use std::collections::HashMap;

use wal::Epoch;

use crate::machine::{Config, Mode, NodeId};

pub(super) const NODES: usize = 3;
/// Epochs 1 (which node 0 holds at first) to 3: two promotions above it, and as many denied ones.
const EPOCHS: usize = 3;

/// Number of an epoch and its node; 0 is none. Of a record: under which it was written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ballot {
    pub(super) epoch: u8,
    pub(super) node: u8,
}

impl std::fmt::Debug for Ballot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}of{}", self.epoch, self.node)
    }
}

/// Records by the ballot that they were written under: a holder writes a place once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// A byte each, the first one lowest; what lies behind the end is zero.
    records: u64,
    len: u8,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries((0..self.len).map(|at| self.at(at)))
            .finish()
    }
}

impl Log {
    fn at(&self, index: u8) -> Ballot {
        let packed = (self.records >> (8 * index)) & 0xFF;
        Ballot {
            epoch: byte(usize::try_from(packed >> 4).unwrap()),
            node: byte(usize::try_from(packed & 15).unwrap()),
        }
    }

    fn push(&mut self, ballot: Ballot) {
        let packed = u64::from(ballot.epoch << 4 | ballot.node);
        self.records |= packed << (8 * self.len);
        self.len += 1;
        assert!(self.len < 8, "no search writes as much");
    }

    fn up_to(&self, len: u8) -> Self {
        let records = self.records & ((1 << (8 * len)) - 1);
        Self { records, len }
    }

    fn has(&self, prefix: &Self) -> bool {
        prefix.len <= self.len && self.up_to(prefix.len) == *prefix
    }

    fn end(&self) -> Ballot {
        self.len
            .checked_sub(1)
            .map_or(Ballot::default(), |last| self.at(last))
    }

    /// Where this ballot's records begin.
    fn begins(&self, ballot: Ballot) -> Option<u8> {
        (0..self.len).find(|at| self.at(*at) == ballot)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    promised: Ballot,
    granted: Ballot,
    /// Bits of nodes.
    holders: u8,
    log: Log,
    /// Index of [`Group::configs`].
    config: u8,
    is_amnesiac: bool,
    /// Lost by a crash: the end of the log when it learned that its configuration is in force.
    in_force_at: Option<u8>,
}

/// What a node said with its promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    is_there: bool,
    end: Ballot,
    len: u8,
    holders: u8,
    config: u8,
    is_amnesiac: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    nodes: [Node; NODES],
    /// By epoch and candidate, then by node.
    answers: [[[Answer; NODES]; NODES]; EPOCHS],
    /// The longest log that was sent under a ballot, and the highest configuration.
    offers: [[(Log, u8); NODES]; EPOCHS],
    /// The highest position, and configuration, that a node acknowledged under a ballot.
    acks: [[[(u8, u8); NODES]; NODES]; EPOCHS],
    /// What clients were told to be written, by the number of the epoch that told them. No node knows it.
    acked: [Log; EPOCHS],
    /// Which ballot of each number had a write acknowledged.
    acked_by: [Option<u8>; EPOCHS],
    /// Who answered the primary since it began to rebuild the amnesiac; and that it told it so.
    confirmed: u8,
    rebuilt: Ballot,
    /// The highest epoch that a node asked for before it lost its disk. It would mint other ids; here a
    /// ballot has none, so it asks for none of these again.
    burnt: [u8; NODES],
    writes: u8,
    losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ask { candidate: usize, epoch: u8 },
    Promise { node: usize, to: Ballot },
    Approve { candidate: usize, answers: u8 },
    Announce { holder: usize },
    Write { holder: usize },
    Receive { node: usize, from: Ballot, len: u8 },
    Acknowledge { holder: usize },
    Crash { node: usize },
    LoseDisk { node: usize },
    Confirm { node: usize },
    SayRebuilt { holder: usize },
    HearRebuilt { node: usize },
    Replace { holder: usize },
    LearnInForce { holder: usize },
    Settle { holder: usize },
}

/// What is the same in all states.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: usize,
    /// The first one; and, when there is a change, the one that names what it replaces, and the last.
    pub(super) configs: Vec<Config>,
    pub(super) epochs: u8,
    pub(super) writes: u8,
    /// Disks that may be lost.
    pub(super) losses: u8,
    judged: HashMap<Asked, bool>,
}

/// Epoch, candidate, and who answered what.
type Asked = (u8, u8, Vec<(u8, Answer)>);

type Next = Vec<(Step, Result<State, String>)>;

fn slot(ballot: Ballot) -> (usize, usize) {
    (usize::from(ballot.epoch) - 1, usize::from(ballot.node))
}

fn byte(index: usize) -> u8 {
    u8::try_from(index).unwrap()
}

fn bit(index: usize) -> u8 {
    1 << index
}

impl State {
    pub(super) fn first(group: &Group) -> Self {
        let ballot = Ballot { epoch: 1, node: 0 };
        let mut log = Log::default();
        log.push(ballot);
        let mut state = Self {
            nodes: [Node::default(); NODES],
            answers: Default::default(),
            offers: Default::default(),
            acks: Default::default(),
            acked: Default::default(),
            acked_by: [None; EPOCHS],
            confirmed: 0,
            rebuilt: Ballot::default(),
            burnt: [0; NODES],
            writes: 0,
            losses: 0,
        };
        for (index, node) in state.nodes.iter_mut().enumerate() {
            if group.configs[0].members.contains(&NodeId(index as u128)) {
                *node = Node {
                    promised: ballot,
                    granted: ballot,
                    holders: bit(0),
                    log,
                    ..Node::default()
                };
            }
        }
        state.offers[0][0] = (log, 0);
        state
    }

    fn holds(&self, index: usize) -> Option<Ballot> {
        let node = &self.nodes[index];
        let is_holder = node.granted.epoch > 0
            && usize::from(node.granted.node) == index
            && node.promised == node.granted
            && !node.is_amnesiac;
        is_holder.then_some(node.granted)
    }

    /// What can make no difference any more, so that states that differ in it only are one.
    fn forget(&mut self, members: usize) {
        let least = self.nodes[..members].iter().map(|node| node.promised.epoch);
        let least = least.min().unwrap_or(0);
        for epoch in 1..=byte(EPOCHS) {
            for of in 0..members {
                let ballot = Ballot {
                    epoch,
                    node: byte(of),
                };
                let (at, of) = slot(ballot);
                if self.nodes[of].promised != ballot {
                    self.acks[at][of] = Default::default();
                    for answer in &mut self.answers[at][of] {
                        *answer = Answer {
                            is_there: answer.is_there && least < epoch,
                            ..Answer::default()
                        };
                    }
                }
                if least > epoch {
                    self.offers[at][of] = Default::default();
                }
            }
        }
        if !self.nodes.iter().any(|node| node.is_amnesiac) {
            self.confirmed = 0;
            self.rebuilt = Ballot::default();
        }
    }

    /// The highest epoch that a node asked for.
    fn asked_by(&self, index: usize) -> u8 {
        let epochs = (1..=byte(EPOCHS)).rev();
        let mut asked = epochs.filter(|epoch| {
            let ballot = Ballot {
                epoch: *epoch,
                node: byte(index),
            };
            let knows = |node: &Node| node.promised == ballot || node.granted == ballot;
            self.nodes.iter().any(knows) || self.answers[slot(ballot).0][index][index].is_there
        });
        asked.next().unwrap_or(0)
    }

    fn answer_of(&self, index: usize) -> Answer {
        let node = &self.nodes[index];
        Answer {
            is_there: true,
            end: node.log.end(),
            len: node.log.len,
            holders: node.holders,
            config: node.config,
            is_amnesiac: node.is_amnesiac,
        }
    }
}

impl Group {
    pub(super) fn new(members: usize, configs: Vec<Config>, bounds: (u8, u8, u8)) -> Self {
        let (epochs, writes, losses) = bounds;
        assert!(members <= NODES && usize::from(epochs) <= EPOCHS);
        Self {
            members,
            configs,
            epochs,
            writes,
            losses,
            judged: HashMap::new(),
        }
    }

    /// Every step that can come next. An error is a promise of the contract that is broken.
    pub(super) fn next(&mut self, state: &State) -> Next {
        let mut next = Vec::new();
        for index in 0..self.members {
            self.ask(state, index, &mut next);
            self.promise(state, index, &mut next);
            self.approve(state, index, &mut next);
            self.write(state, index, &mut next);
            self.receive(state, index, &mut next);
            self.acknowledge(state, index, &mut next);
            self.lose(state, index, &mut next);
            self.rebuild(state, index, &mut next);
            self.configure(state, index, &mut next);
        }
        for (_, result) in &mut next {
            if let Ok(state) = result {
                state.forget(self.members);
            }
        }
        next
    }
}

/// A change of a group of sync or async members, in its three steps.
pub(super) fn change(old: (&[u128], Mode), new: (&[u128], Mode)) -> Vec<Config> {
    use crate::machine::{Policy, Replaced, Version};
    let members = |ids: &[u128]| ids.iter().copied().map(NodeId).collect();
    let config = |number, (ids, mode): (&[u128], Mode), previous| Config {
        version: Version {
            epoch: Epoch(1),
            number,
        },
        members: members(ids),
        mode,
        policy: Policy::Refuse,
        previous,
    };
    let replaced = Replaced {
        members: members(old.0),
        mode: old.1,
    };
    vec![
        config(0, old, None),
        config(1, new, Some(replaced)),
        config(2, new, None),
    ]
}
