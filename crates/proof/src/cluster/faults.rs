//! What goes wrong beside kills: networks, disks, and strangers.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use world::{Clock, Disk, RealDisk};

use super::{
    super::crash::breach::{Breach, Fault},
    clients::Load,
    disks,
    judge::{Bar, Barred},
    network::End,
    nodes::POLL,
    rounds::Round,
};

/// How long a node stays cut off, or its disk full. Half of the time longer than the silence after which
/// others give it up.
const APART_MAX: Duration = Duration::from_secs(6);

/// Of a slow link, in bits a second: from less than the clients write to more.
const RATE_MIN: u64 = 256 << 10;
const RATE_MAX: u64 = 16 << 20;

/// Connections that a stranger opens to each node at once: more than a node takes.
const STRANGERS: u64 = 80;

/// What strangers send at most.
const GARBAGE_LEN_MAX: u64 = 64 << 10;

/// Of a data directory, what makes it this node: its certificates and settings, and the keys of the site.
const IDENTITY: [&str; 2] = ["node", "keys"];

impl Round<'_, '_> {
    /// Of two sides one goes on: that of the node that writes, or the other one with a new one. A coordinator is
    /// on the others' side.
    pub(super) fn cut_off(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.tally.partitions += 1;
        let lasts = self.dice.between(Duration::ZERO, APART_MAX);
        let others_go_on = self.cluster.nodes.len() > 2;
        if self.dice.coin() {
            let other = self.other(writes);
            self.cluster.network().cut(other)?;
            load.forget_firsts();
            if others_go_on {
                self.first_of(load, &self.those_who_may(writes))?;
            }
            self.cluster.clock.sleep(lasts);
            return Ok(self.cluster.network().mend(other)?);
        }
        self.cluster.network().cut(writes)?;
        let from = self.cluster.clock.monotonic();
        load.give_up_on(writes);
        load.forget_firsts();
        let promoted = self.succeed(writes)?;
        if others_go_on {
            self.first_of(load, &self.those_who_may(promoted))?;
        }
        self.cluster.clock.sleep(lasts);
        self.barred.push(Barred {
            node: Some(writes),
            from,
            until: self.cluster.clock.monotonic(),
            why: Bar::Copies,
        });
        self.cluster.network().mend(writes)?;
        self.first_of(load, &self.those_who_may(promoted)).map(drop)
    }

    /// What a node sends is lost, and what it is sent arrives. It hears all others and they do not hear it, or
    /// one of them does not.
    pub(super) fn mute(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.tally.one_way += 1;
        let lasts = self.dice.between(Duration::ZERO, APART_MAX);
        let other = self.other(writes);
        let (from, to) = match self.dice.below(3) {
            0 => (writes, self.others(writes)),
            1 => (other, self.others(other)),
            _ => (writes, vec![other]),
        };
        let is_cut_off = to.len() == self.cluster.nodes.len() - 1 && from == writes;
        let mut to: Vec<End> = to.into_iter().map(End::Node).collect();
        if is_cut_off && self.cluster.coordinator.is_some() {
            // With its lease it would stay the one that is to write.
            to.push(End::Middle);
        }
        for end in &to {
            self.cluster.network().lose(from, *end)?;
        }
        let begun = self.cluster.clock.monotonic();
        load.forget_firsts();
        if is_cut_off {
            load.give_up_on(writes);
            self.succeed(writes)?;
        } else if self.cluster.nodes.len() > 2 {
            self.first_of(load, &self.those_who_may(writes))?;
        }
        self.cluster.clock.sleep(lasts);
        let is_pair = self.cluster.nodes.len() == 2;
        if is_cut_off || is_pair {
            self.barred.push(Barred {
                node: (!is_pair).then_some(writes),
                from: begun,
                until: self.cluster.clock.monotonic(),
                why: Bar::Copies,
            });
        }
        for end in &to {
            self.cluster.network().deliver(from, *end)?;
        }
        self.somebody_writes(load)
    }

    /// Everything to and from a node comes late, and some of it never.
    pub(super) fn slow_down(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        self.tally.slow_links += 1;
        let lasts = self.dice.between(Duration::ZERO, APART_MAX);
        let rate = self.dice.range(RATE_MIN, RATE_MAX);
        let slow = match self.dice.coin() {
            true => writes,
            false => self.other(writes),
        };
        self.cluster.network().slow_down(slow, rate)?;
        self.cluster.clock.sleep(lasts);
        self.cluster.network().speed_up(slow)?;
        self.somebody_writes(load)
    }

    /// The last node's disk is full. It may give up its log, with a reason; the others go on.
    pub(super) fn fill_disk(&mut self, load: &Load) -> Result<(), Fault> {
        let node = self.cluster.nodes.len() - 1;
        if self.cluster.primary() == Some(node) {
            let other = self.other(node);
            self.switch_over_to(node, other, load).map(drop)?;
        }
        let dir = self.cluster.nodes[node].dir.clone();
        disks::fill(&dir)?;
        load.forget_firsts();
        if self.cluster.nodes.len() > 2 {
            let others: Vec<usize> = (0..node).collect();
            self.first_of(load, &others)?;
        }
        // A round in which the disk was large enough after all would show nothing.
        let others = self.cluster.nodes.len() - 1;
        self.cluster
            .wait_for("the full disk is noticed", |cluster| {
                Ok(cluster.in_sync() < others)
            })?;
        let lasts = self.dice.between(Duration::ZERO, APART_MAX);
        self.cluster.clock.sleep(lasts);
        disks::give_back(&dir)?;
        // By its own account; then it is started again, as it says.
        let status = self.cluster.status(node).unwrap_or_default();
        if status["log_failed"].is_string() {
            self.cluster.stop(node)?;
            self.cluster.start(node)?;
        }
        Ok(())
    }

    /// A replica comes back with less than it had promised and acknowledged: an earlier copy of its disk, or
    /// nothing but its name.
    pub(super) fn put_back(
        &mut self,
        writes: usize,
        is_wiped: bool,
        load: &Load,
    ) -> Result<(), Fault> {
        let other = self.other(writes);
        let dir = self.cluster.nodes[other].dir.clone();
        let earlier = disks::beside(&dir);
        if is_wiped {
            for part in IDENTITY {
                disks::copy(&dir.join(part), &earlier.join(part))?;
            }
        } else {
            self.cluster.kill(other)?;
            disks::copy(&dir, &earlier)?;
            self.cluster.start(other)?;
            self.cluster.wait_in_sync()?;
        }
        load.forget_firsts();
        self.first_of(load, &self.those_who_may(writes))?;
        let more = self.dice.between(Duration::ZERO, Duration::from_secs(1));
        self.cluster.clock.sleep(more);
        self.cluster.kill(other)?;
        self.tally.replica_kills += 1;
        disks::empty(&dir)?;
        disks::copy(&earlier, &dir)?;
        RealDisk.remove_dir_all(&earlier)?;
        self.cluster.start(other)
    }

    /// Whoever is no node of this cluster harms nothing, whatever it sends.
    pub(super) fn let_strangers_in(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let addresses = self.cluster.addresses()?;
        let mut held = Vec::new();
        for address in &addresses {
            for _ in 0..STRANGERS {
                held.extend(self.garbage(*address));
            }
        }
        self.cluster.stranger(addresses[writes])?;
        load.forget_firsts();
        self.first_of(load, &self.those_who_may(writes))?;
        drop(held);
        if self.cluster.primary() == Some(writes) {
            return Ok(());
        }
        let words = self.cluster.words();
        Err(Breach::new("strangers change nothing", "-", words).into())
    }

    /// Bytes at random, a long frame announced, the beginning of a handshake, or nothing; and it stays.
    fn garbage(&mut self, address: SocketAddr) -> Option<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let len = usize::try_from(self.dice.below(GARBAGE_LEN_MAX)).ok()?;
        let mut bytes: Vec<u8> = (0..len)
            .map(|_| self.dice.next().to_le_bytes()[0])
            .collect();
        match self.dice.below(4) {
            0 => bytes = [0xFF; 8].to_vec(),
            // A record of a handshake of 16 KiB, and of it one byte.
            1 => bytes = vec![0x16, 3, 1, 0x40, 0, 1],
            2 => bytes.clear(),
            _ => {}
        }
        // Fails where the node has hung up, as it may.
        drop(stream.set_write_timeout(Some(POLL)));
        drop(stream.write_all(&bytes));
        Some(stream)
    }
}
