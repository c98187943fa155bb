//! The network between the nodes: what becomes of a message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replica::machine::{Body, Message};

use super::{
    agenda::{MILLI, Moment, SECOND},
    swarm::Network,
    tally::Tally,
};
use crate::crash::dice::Dice;

/// A node by its place in the cluster; what it calls itself is its own affair.
pub(crate) type Host = usize;

/// Messages kept to be delivered again long after. Enough to reach back over some sessions.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Net {
    network: Network,
    /// From, to: nothing passes.
    blocked: BTreeSet<(Host, Host)>,
    /// When the last message in one direction arrives, for a network that keeps the order.
    last: BTreeMap<(Host, Host), Moment>,
    remembered: VecDeque<(Host, Message)>,
    /// From, to: the last that was said to be durable.
    said: BTreeMap<(Host, Host), Message>,
    /// What comes again and again, for a while.
    pub(crate) echo: Option<Message>,
    is_calm: bool,
}

impl Net {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            blocked: BTreeSet::new(),
            last: BTreeMap::new(),
            remembered: VecDeque::new(),
            said: BTreeMap::new(),
            echo: None,
            is_calm: false,
        }
    }

    pub(crate) fn block(&mut self, from: Host, to: Host) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn unblock(&mut self, from: Host, to: Host) {
        self.blocked.remove(&(from, to));
    }

    pub(crate) fn passes(&self, from: Host, to: Host) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// A connection is made where both directions pass.
    pub(crate) fn connects(&self, a: Host, b: Host) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.blocked.is_empty()
    }

    pub(crate) fn said(&self, from: Host, to: Host) -> Option<Message> {
        self.said.get(&(from, to)).cloned()
    }

    /// No more faults.
    pub(crate) fn calm(&mut self) {
        self.blocked.clear();
        self.is_calm = true;
    }

    /// When a message arrives: never, once or more often.
    pub(crate) fn send(
        &mut self,
        now: Moment,
        (from, to): (Host, Host),
        message: &Message,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Vec<Moment> {
        if !self.passes(from, to) {
            tally.count("messages into a partition");
            return Vec::new();
        }
        if self.is_calm {
            return vec![self.arrival(now, (from, to), dice)];
        }
        if matches!(message.body, Body::Flushed { .. }) {
            self.said.insert((from, to), message.clone());
        }
        self.remember(to, message, dice);
        if dice.below(1000) < self.network.lost {
            tally.count("messages lost");
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(now, (from, to), dice)];
        if dice.below(1000) < self.network.doubled {
            tally.count("messages doubled");
            arrivals.push(self.arrival(now, (from, to), dice));
        }
        if dice.below(1000) < self.network.late {
            tally.count("messages late");
            arrivals[0] += dice.range(20 * MILLI, 3 * SECOND);
        }
        arrivals
    }

    fn arrival(&mut self, now: Moment, way: (Host, Host), dice: &mut Dice) -> Moment {
        let (least, most) = self.network.delay;
        let at = now + dice.range(least, most);
        if !self.network.is_ordered {
            return at;
        }
        let last = self.last.entry(way).or_default();
        *last = at.max(*last);
        *last
    }

    fn remember(&mut self, to: Host, message: &Message, dice: &mut Dice) {
        if !dice.one_in(8) {
            return;
        }
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((to, message.clone()));
    }

    /// Some message of the past.
    pub(crate) fn old(&self, dice: &mut Dice) -> Option<(Host, Message)> {
        let index = dice.below(self.remembered.len() as u64);
        let index = usize::try_from(index).expect("less than a length");
        self.remembered.get(index).cloned()
    }
}
