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
    nodes::{Cluster, POLL},
    rounds::Round,
};

/// How long a node stays cut off, or its disk full. Half of the time longer than the silence after which
/// others give it up.
const APART_MAX: Duration = Duration::from_secs(6);

/// Connections that a stranger opens to each node at once: more than a node takes.
const STRANGERS: u64 = 80;

/// What strangers send at most.
const GARBAGE_LEN_MAX: u64 = 64 << 10;

/// Of a data directory, what makes it this node: its certificates and settings, and the keys of the site.
const IDENTITY: [&str; 2] = ["node", "keys"];

impl Round<'_, '_> {
    /// Of two sides one goes on: that of the node that writes, or the other one with a new one.
    pub(super) fn cut_off(&mut self, writes: usize, load: &Load) -> Result<(), Fault> {
        let network = |cluster: &Cluster<'_>, node, is_cut| match &cluster.network {
            Some(network) if is_cut => network.cut(node),
            Some(network) => network.mend(node),
            None => Ok(()),
        };
        self.tally.partitions += 1;
        let lasts = self.dice.between(Duration::ZERO, APART_MAX);
        let others_go_on = self.cluster.nodes.len() > 2;
        if self.dice.coin() {
            let other = self.other(writes);
            network(self.cluster, other, true)?;
            load.forget_firsts();
            if others_go_on {
                self.first_of(load, &[writes])?;
            }
            self.cluster.clock.sleep(lasts);
            return Ok(network(self.cluster, other, false)?);
        }
        network(self.cluster, writes, true)?;
        load.give_up_on(writes);
        load.forget_firsts();
        let promoted = self.promote(writes)?;
        if others_go_on {
            self.first_of(load, &[promoted])?;
        }
        self.cluster.clock.sleep(lasts);
        network(self.cluster, writes, false)?;
        self.first_of(load, &[promoted]).map(drop)
    }

    /// The last node's disk is full. It may give up its log, with a reason; the others go on.
    pub(super) fn fill_disk(&mut self, load: &Load) -> Result<(), Fault> {
        let node = self.cluster.nodes.len() - 1;
        if self.cluster.primary() == Some(node) {
            let other = self.other(node);
            self.switch_over_to(node, other, load)?;
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
        self.first_of(load, &[writes])?;
        let more = self.dice.between(Duration::ZERO, Duration::from_secs(1));
        self.cluster.clock.sleep(more);
        self.cluster.kill(other)?;
        self.tally.replica_kills += 1;
        RealDisk.remove_dir_all(&dir)?;
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
        self.first_of(load, &[writes])?;
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
