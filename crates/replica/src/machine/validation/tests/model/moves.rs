//! The steps of a group, one by one, as docs/protocol has them.

use std::collections::{BTreeMap, BTreeSet};

use wal::{Epoch, Lsn};

use super::{
    super::super::{Evidence, Verdict, judge},
    Answer, Ballot, EPOCHS, Group, Log, NODES, Next, Node, State, Step, bit, byte, slot,
};
use crate::machine::{Config, EpochId, NodeId, Position, Sealed};

impl Group {
    pub(super) fn ask(&self, state: &State, index: usize, next: &mut Next) {
        let node = &state.nodes[index];
        if node.is_amnesiac {
            return;
        }
        let least = node.promised.epoch.max(state.burnt[index]) + 1;
        for epoch in least..=self.epochs {
            let to = Ballot {
                epoch,
                node: byte(index),
            };
            let mut state = state.clone();
            let (slot, own) = slot(to);
            state.answers[slot][own][index] = state.answer_of(index);
            let node = &mut state.nodes[index];
            node.promised = to;
            node.holders |= bit(index);
            node.in_force_at = None;
            let candidate = index;
            next.push((Step::Ask { candidate, epoch }, Ok(state)));
        }
    }

    pub(super) fn promise(&self, state: &State, index: usize, next: &mut Next) {
        for epoch in 2..=self.epochs {
            for candidate in (0..self.members).filter(|other| *other != index) {
                let to = Ballot {
                    epoch,
                    node: byte(candidate),
                };
                let (at, of) = slot(to);
                let was_asked = state.answers[at][of][candidate].is_there;
                let node = &state.nodes[index];
                let is_new = !state.answers[at][of][index].is_there;
                if !was_asked || !is_new || epoch <= node.promised.epoch {
                    continue;
                }
                let mut state = state.clone();
                state.answers[at][of][index] = state.answer_of(index);
                let node = &mut state.nodes[index];
                if !node.is_amnesiac {
                    node.promised = to;
                    node.holders |= bit(candidate);
                    node.in_force_at = None;
                }
                next.push((Step::Promise { node: index, to }, Ok(state)));
            }
        }
    }

    pub(super) fn approve(&mut self, state: &State, index: usize, next: &mut Next) {
        let Ballot { epoch, node } = state.nodes[index].promised;
        if usize::from(node) != index || epoch <= state.nodes[index].granted.epoch {
            return;
        }
        let said = &state.answers[usize::from(epoch) - 1][index];
        let there = (0..self.members).filter(|node| said[*node].is_there);
        let there: u8 = there.map(bit).sum();
        for answers in 1..1 << self.members {
            let is_own = answers & bit(index) != 0;
            if answers & !there != 0 || !is_own {
                continue;
            }
            let heard = (0..self.members).filter(|node| answers & bit(*node) != 0);
            let heard: Vec<(u8, Answer)> = heard.map(|node| (byte(node), said[node])).collect();
            if !self.is_approved(epoch, byte(index), heard) {
                continue;
            }
            let mut state = state.clone();
            let node = &mut state.nodes[index];
            node.granted = node.promised;
            node.holders = bit(index);
            let highest = (0..self.members).filter(|node| answers & bit(*node) != 0);
            let configs = highest.map(|node| said[node].config);
            node.config = configs.max().unwrap_or(node.config).max(node.config);
            let step = Step::Approve {
                candidate: index,
                answers,
            };
            // What a later epoch had acknowledged is not its concern: it is fenced by that.
            let log = &state.nodes[index].log;
            let below = &state.acked[..usize::from(epoch) - 1];
            let result = match below.iter().find(|acked| !log.has(acked)) {
                Some(acked) => Err(format!("node {index} is made primary without {acked:?}")),
                None => Ok(state),
            };
            next.push((step, result));
        }
    }

    fn is_approved(&mut self, epoch: u8, candidate: u8, heard: Vec<(u8, Answer)>) -> bool {
        let key = (epoch, candidate, heard);
        if let Some(judged) = self.judged.get(&key) {
            return *judged;
        }
        let answers: BTreeMap<NodeId, Sealed> = key
            .2
            .iter()
            .map(|(node, answer)| (NodeId(u128::from(*node)), self.sealed(answer)))
            .collect();
        let evidence = Evidence {
            candidate: NodeId(u128::from(candidate)),
            epoch: Epoch(epoch.into()),
            answers,
            heard: Epoch(0),
            force: None,
        };
        let judged = matches!(judge(&evidence).verdict, Verdict::Approved(_));
        self.judged.insert(key, judged);
        judged
    }

    fn sealed(&self, answer: &Answer) -> Sealed {
        let holders = (0..NODES).filter(|node| answer.holders & bit(*node) != 0);
        Sealed {
            flushed: Position {
                epoch: Epoch(answer.end.epoch.into()),
                lsn: Lsn::new(answer.len.into()),
            },
            flushed_id: EpochId(u128::from(answer.end.epoch) << 8 | u128::from(answer.end.node)),
            committed: Lsn::ZERO,
            config: self.configs[usize::from(answer.config)].clone(),
            holders: holders.map(|node| NodeId(node as u128)).collect(),
            is_amnesiac: answer.is_amnesiac,
        }
    }

    /// The announcement, then records.
    pub(super) fn write(&self, state: &State, index: usize, next: &mut Next) {
        let Some(ballot) = state.holds(index) else {
            return;
        };
        let is_announced = state.nodes[index].log.begins(ballot).is_some();
        if is_announced && state.writes == self.writes {
            return;
        }
        let mut state = state.clone();
        state.writes += u8::from(is_announced);
        state.nodes[index].log.push(ballot);
        self.offer(&mut state, index);
        let step = if is_announced {
            Step::Write { holder: index }
        } else {
            Step::Announce { holder: index }
        };
        next.push((step, Ok(state)));
    }

    fn offer(&self, state: &mut State, index: usize) {
        let node = state.nodes[index];
        let (at, of) = slot(node.granted);
        if node.log.begins(node.granted).is_some() {
            state.offers[at][of] = (node.log, node.config);
        }
    }

    pub(super) fn receive(&self, state: &State, index: usize, next: &mut Next) {
        for epoch in 1..=self.epochs {
            for holder in (0..self.members).filter(|holder| *holder != index) {
                let from = Ballot {
                    epoch,
                    node: byte(holder),
                };
                let (at, of) = slot(from);
                let (offered, config) = state.offers[at][of];
                let node = &state.nodes[index];
                let is_taken = node.promised == from || epoch > node.promised.epoch;
                let Some(begins) = offered.begins(from).filter(|_| is_taken) else {
                    continue;
                };
                for len in begins + 1..=offered.len {
                    let mut new = state.clone();
                    receive_into(&mut new, index, from, offered.up_to(len), config);
                    if new != *state {
                        let step = Step::Receive {
                            node: index,
                            from,
                            len,
                        };
                        next.push((step, Ok(new)));
                    }
                }
            }
        }
    }

    /// As much as any acknowledgements that were sent allow.
    pub(super) fn acknowledge(&self, state: &State, index: usize, next: &mut Next) {
        let Some(ballot) = state.holds(index) else {
            return;
        };
        let node = &state.nodes[index];
        let Some(begins) = node.log.begins(ballot) else {
            return;
        };
        let enough = |len: &u8| self.is_committed(state, index, ballot, *len);
        let Some(len) = (begins + 1..=node.log.len).rev().find(enough) else {
            return;
        };
        let told = node.log.up_to(len);
        let (at, _) = slot(ballot);
        let mut new = state.clone();
        new.acked[at] = told;
        let twin = new.acked_by[at].replace(ballot.node);
        let holders = (0..self.members).filter(|other| {
            let held = state.holds(*other);
            held.is_some_and(|held| held.epoch > ballot.epoch)
        });
        let mut laters = holders.filter(|holder| !state.nodes[*holder].log.has(&told));
        let parts = |acked: &&Log| !acked.has(&told) && !told.has(acked);
        let result = if twin.is_some_and(|twin| twin != ballot.node) {
            Err(format!(
                "two nodes acknowledge under epoch {}",
                ballot.epoch
            ))
        } else if let Some(acked) = state.acked.iter().find(parts) {
            Err(format!(
                "node {index} acknowledges {told:?} after {acked:?}"
            ))
        } else if let Some(later) = laters.next() {
            Err(format!("node {index} acknowledges what node {later} lacks"))
        } else {
            Ok(new)
        };
        if result.as_ref() != Ok(state) {
            next.push((Step::Acknowledge { holder: index }, result));
        }
    }

    fn is_committed(&self, state: &State, index: usize, ballot: Ballot, len: u8) -> bool {
        let node = &state.nodes[index];
        let config = &self.configs[usize::from(node.config)];
        match &config.previous {
            None => self.has_copies(state, index, ballot, len, config),
            Some(replaced) if node.in_force_at.is_none() => {
                let old = Config {
                    members: replaced.members.clone(),
                    mode: replaced.mode,
                    ..config.clone()
                };
                self.has_copies(state, index, ballot, len, &old)
            }
            Some(_) => self.has_copies(state, index, ballot, len, config),
        }
    }

    fn has_copies(
        &self,
        state: &State,
        index: usize,
        ballot: Ballot,
        len: u8,
        config: &Config,
    ) -> bool {
        let (at, of) = slot(ballot);
        let others = config
            .members
            .iter()
            .filter_map(|node| usize::try_from(node.0).ok());
        let copies = others
            .filter(|other| *other != index && state.acks[at][of][*other].0 >= len)
            .count();
        copies >= config.mode.copies(config.members.len())
    }

    pub(super) fn lose(&self, state: &State, index: usize, next: &mut Next) {
        let node = &state.nodes[index];
        if node.in_force_at.is_some() {
            let mut state = state.clone();
            state.nodes[index].in_force_at = None;
            next.push((Step::Crash { node: index }, Ok(state)));
        }
        if state.losses < self.losses {
            let mut state = state.clone();
            state.losses += 1;
            state.burnt[index] = state.asked_by(index);
            // A connection ends with its node: nothing of an earlier life is heard in a later one.
            for epoch in 0..EPOCHS {
                state.offers[epoch][index] = Default::default();
                state.answers[epoch][index] = Default::default();
            }
            state.nodes[index] = Node {
                is_amnesiac: true,
                config: node.config,
                ..Node::default()
            };
            next.push((Step::LoseDisk { node: index }, Ok(state)));
        }
    }

    pub(super) fn rebuild(&self, state: &State, index: usize, next: &mut Next) {
        let amnesiac = (0..self.members).find(|node| state.nodes[*node].is_amnesiac);
        let Some(amnesiac) = amnesiac else { return };
        let from = state.nodes[amnesiac].granted;
        if from.epoch == 0 {
            return;
        }
        let holder = usize::from(from.node);
        let node = &state.nodes[index];
        let is_other = index != amnesiac && index != holder;
        if is_other && node.promised == from && state.confirmed & bit(index) == 0 {
            let mut state = state.clone();
            state.confirmed |= bit(index);
            next.push((Step::Confirm { node: index }, Ok(state)));
        }
        let others = (0..self.members).filter(|other| *other != amnesiac && *other != holder);
        let wanted: u8 = others.map(bit).sum();
        let has_all = state.nodes[amnesiac].log == node.log;
        if index == holder
            && state.holds(index) == Some(from)
            && state.confirmed == wanted
            && has_all
            && state.rebuilt != from
        {
            let mut state = state.clone();
            state.rebuilt = from;
            next.push((Step::SayRebuilt { holder: index }, Ok(state)));
        }
        if index == amnesiac && state.rebuilt == from && node.promised == from {
            let mut state = state.clone();
            state.nodes[index].is_amnesiac = false;
            next.push((Step::HearRebuilt { node: index }, Ok(state)));
        }
    }

    pub(super) fn configure(&self, state: &State, index: usize, next: &mut Next) {
        let Some(ballot) = state.holds(index) else {
            return;
        };
        let node = &state.nodes[index];
        let config = &self.configs[usize::from(node.config)];
        let is_announced = node.log.begins(ballot).is_some();
        if self.configs.len() == 1 || !is_announced || usize::from(node.config) == 2 {
            return;
        }
        let mut new = state.clone();
        let Some(replaced) = &config.previous else {
            new.nodes[index].config = 1;
            self.offer(&mut new, index);
            next.push((Step::Replace { holder: index }, Ok(new)));
            return;
        };
        let (at, of) = slot(ballot);
        let has = |node: &NodeId| {
            let other = usize::try_from(node.0).unwrap();
            other == index || state.acks[at][of][other].1 >= 1
        };
        let is_majority = |members: &BTreeSet<NodeId>| {
            members.iter().filter(|node| has(node)).count() > members.len() / 2
        };
        match node.in_force_at {
            None if is_majority(&config.members) && is_majority(&replaced.members) => {
                new.nodes[index].in_force_at = Some(node.log.len);
                next.push((Step::LearnInForce { holder: index }, Ok(new)));
            }
            Some(end) if self.has_copies(state, index, ballot, end, config) => {
                new.nodes[index].config = 2;
                new.nodes[index].in_force_at = None;
                self.offer(&mut new, index);
                next.push((Step::Settle { holder: index }, Ok(new)));
            }
            None | Some(_) => {}
        }
    }
}

/// Takes what a holder sent. Within one ballot logs only grow, so an older message cuts nothing; the
/// first of a ballot takes the place of what lies there.
fn receive_into(state: &mut State, index: usize, from: Ballot, offered: Log, config: u8) {
    let node = &mut state.nodes[index];
    if node.promised != from {
        node.in_force_at = None;
    }
    node.promised = from;
    node.granted = from;
    node.holders = bit(usize::from(from.node));
    node.config = node.config.max(config);
    let is_behind = node.log.begins(from).is_none() || offered.len > node.log.len;
    if is_behind {
        node.log = offered;
    }
    let (len, config, is_amnesiac) = (node.log.len, node.config, node.is_amnesiac);
    if !is_amnesiac {
        let (at, of) = slot(from);
        let ack = &mut state.acks[at][of][index];
        *ack = (ack.0.max(len), ack.1.max(config));
    }
}
