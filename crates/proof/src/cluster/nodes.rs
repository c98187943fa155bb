//! The nodes of a cluster as processes of this machine, each with its own data directory and ports.

use std::{
    cell::Cell,
    ffi::OsString,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use store::{Store, socket::Remote};
use world::{Clock, Disk, RealClock, RealDisk};

use super::{
    super::crash::{
        breach::{Breach, Fault},
        process::{Ended, Product, Running},
    },
    clients::STORE_SOCKET,
    disks,
    etcd::Etcd,
    network::{End, Network},
    rows,
};

/// How long a node may take for what it does by itself: to start, to follow, to write after it was promoted.
/// Arbitrary; longer than a debug binary needs for it on a machine that is busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

pub(super) const POLL: Duration = Duration::from_millis(10);

/// How long a node may take to answer how it stands.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long one that writes may have less than was acknowledged, while its tables take up what its log has.
const LACKS_MAX: Duration = Duration::from_secs(15);

/// Of journals and tables where a disk is small: segments that a second of load fills, and nothing recycled
/// within a run.
const SMALL_SIZES: &str = "262144,4194304,268435456,268435456";

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug)]
pub(super) struct Node<'p> {
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    pub(super) up: Option<Running<'p>>,
}

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'p> {
    pub(super) nodes: usize,
    /// The etcd to be their coordinator.
    pub(super) coordinator: Option<&'p Product>,
    pub(super) network: bool,
    pub(super) small_disk: bool,
}

#[derive(Debug)]
pub(super) struct Cluster<'p> {
    product: &'p Product,
    /// Where the nodes have one of their own.
    pub(super) network: Option<Network>,
    /// Who takes over by itself needs its lease; without it all wait for orders.
    pub(super) coordinator: Option<Etcd<'p>>,
    /// The last node's directory is a small disk.
    pub(super) has_small_disk: bool,
    pub(super) clock: Arc<RealClock>,
    pub(super) nodes: Vec<Node<'p>>,
}

/// A port that was free a moment ago, at a loopback address that only this run uses and only once: while its owner
/// is down no connection that goes out from 127.0.0.1 can be given the port.
pub(super) fn address() -> io::Result<SocketAddr> {
    static MADE: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = MADE.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    TcpListener::bind((Ipv4Addr::new(127, high, low, last), 0))?.local_addr()
}

pub(super) fn succeeds(ended: Ended) -> Result<Ended, Fault> {
    match ended.code() {
        Some(0) => Ok(ended),
        _ => Err(ended.breach("is carried out").into()),
    }
}

impl<'p> Cluster<'p> {
    /// A site on so many nodes, all running and in sync, under sync:1.
    pub(super) fn make(
        product: &'p Product,
        dir: &Path,
        wanted: Wanted<'p>,
    ) -> Result<Self, Fault> {
        let nodes = NAMES.iter().take(wanted.nodes).map(|name| Node {
            name,
            dir: dir.join(name),
            up: None,
        });
        let mut cluster = Self {
            product,
            network: match wanted.network {
                true => Some(Network::make(wanted.nodes)?),
                false => None,
            },
            coordinator: None,
            has_small_disk: wanted.small_disk,
            clock: Arc::new(RealClock::new()),
            nodes: nodes.collect(),
        };
        RealDisk.create_dir_all_synced(dir)?;
        if let Some(node) = cluster.nodes.last().filter(|_| wanted.small_disk) {
            disks::mount(&node.dir)?;
        }
        cluster.found(dir)?;
        if let Some(program) = wanted.coordinator {
            let network = cluster.network.as_ref();
            cluster.coordinator = Some(Etcd::make(program, dir.join("etcd"), network)?);
        }
        for index in 0..cluster.nodes.len() {
            cluster.start(index)?;
        }
        let others: Vec<&str> = cluster.nodes[1..].iter().map(|node| node.name).collect();
        cluster.wait_for("the first node writes", |cluster| {
            Ok(cluster.primary() == Some(0))
        })?;
        for other in others {
            cluster.run(0, &["group", "add", other])?;
        }
        cluster.wait_in_sync()?;
        // Only the first one knows all others, until it has told them: whoever goes on without it has to.
        cluster.wait_for("every node is connected with every other", |cluster| {
            Ok(cluster.are_connected())
        })?;
        cluster.run(0, &["group", "mode", "sync:1"])?;
        Ok(cluster)
    }

    /// A site with a record, and its nodes as strangers know each other: by invitation.
    fn found(&mut self, dir: &Path) -> Result<(), Fault> {
        self.start(0)?;
        self.wait_for("the site is there", |cluster| {
            Ok(cluster.nodes[0].says("Watching"))
        })?;
        // What this machine is like is nothing to the proof, and scanning it would take long.
        let listed = self.run(0, &["host", "list", "--output", "json"])?;
        let listed: Value = serde_json::from_slice(&listed.stdout).map_err(io::Error::from)?;
        let hosts = listed.as_array().or_else(|| listed["hosts"].as_array());
        for host in hosts.into_iter().flatten() {
            if let Some(name) = host["name"].as_str() {
                self.run(0, &["host", "retire", name])?;
            }
        }
        self.stop(0)?;
        let own = self.address(0)?.to_string();
        self.run(0, &["node", "init", self.nodes[0].name, "--listen", &own])?;
        for index in 1..self.nodes.len() {
            let (name, at) = (self.nodes[index].name, self.address(index)?.to_string());
            let file = path(&dir.join(format!("{name}.invitation")))?;
            let invited = self.run(0, &["node", "invite", name, &at, "--to", &file])?;
            let code = dir.join(format!("{name}.code"));
            RealDisk.replace(&code, &invited.stdout)?;
            self.run(
                index,
                &["node", "join", &file, "--code-file", &path(&code)?],
            )?;
        }
        Ok(())
    }

    pub(super) fn etcd(&mut self) -> &mut Etcd<'p> {
        let etcd = self.coordinator.as_mut();
        etcd.expect("its faults are refused without one")
    }

    pub(super) fn network(&self) -> &Network {
        let network = self.network.as_ref();
        network.expect("faults that need one have it made")
    }

    fn address(&self, node: usize) -> io::Result<SocketAddr> {
        match &self.network {
            Some(_) => Ok(Network::address(node)),
            None => address(),
        }
    }

    /// A command on a node's directory, beside what runs there.
    pub(super) fn run(&self, node: usize, words: &[&str]) -> Result<Ended, Fault> {
        succeeds(self.try_run(node, words)?)
    }

    pub(super) fn try_run(&self, node: usize, words: &[&str]) -> Result<Ended, Fault> {
        self.product.run(&self.nodes[node].dir, words)
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), Fault> {
        let mut environment = vec![("HOLDFAST_LOG", OsString::from("info"))];
        if self.has_small_disk {
            environment.push(("HOLDFAST_PROOF_SIZES", OsString::from(SMALL_SIZES)));
        }
        let prefix = self.network.as_ref().map(|it| it.prefix(End::Node(node)));
        let prefix: Vec<&str> = prefix.iter().flatten().map(String::as_str).collect();
        let coordinator = self.coordinator.as_ref().map(Etcd::address);
        let mut words = vec!["up", "--no-walk"];
        if let Some(address) = &coordinator {
            words.extend(["--coordinator", address]);
        }
        let dir = &self.nodes[node].dir;
        let up = self
            .product
            .start_behind(&prefix, dir, &words, &environment, None)?;
        self.nodes[node].up = Some(up);
        Ok(())
    }

    /// Asks it to stop, which it has to do in order.
    pub(super) fn stop(&mut self, node: usize) -> Result<(), Fault> {
        if let Some(up) = self.nodes[node].up.take() {
            succeeds(up.stop_after(Duration::ZERO)?)?;
        }
        Ok(())
    }

    /// SIGKILL. When it was sent.
    pub(super) fn kill(&mut self, node: usize) -> Result<Duration, Fault> {
        let at = self.clock.monotonic();
        if let Some(up) = self.nodes[node].up.take() {
            let ended = up.kill_after(Duration::ZERO)?;
            if !ended.was_killed() {
                return Err(ended.breach("goes on until it is stopped").into());
            }
        }
        Ok(at)
    }

    pub(super) fn signal(&mut self, node: usize, signal: Signal) -> Result<(), Fault> {
        match &mut self.nodes[node].up {
            Some(up) => up.signal(signal),
            None => Ok(()),
        }
    }

    /// How a node stands by its own account, asked as `holdfast group status` asks.
    pub(super) fn status(&self, node: usize) -> Option<Value> {
        self.nodes[node].up.as_ref()?;
        let ask = || -> io::Result<Value> {
            let stream = UnixStream::connect(self.nodes[node].dir.join("node/socket"))?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            (&stream).write_all(b"{\"order\":\"status\"}\n")?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        let answer = ask().ok()?;
        Some(answer["result"].clone())
    }

    /// Who writes by their own account; of two the one under the higher epoch.
    pub(super) fn primary(&self) -> Option<usize> {
        self.primary_but(None)
    }

    /// The same without one that is not asked: it would be waited for.
    pub(super) fn primary_but(&self, unasked: Option<usize>) -> Option<usize> {
        let asked = (0..self.nodes.len()).filter(|node| Some(*node) != unasked);
        let writes = asked.filter_map(|node| {
            let status = self.status(node)?;
            let epoch = status["epoch"].as_u64()?;
            (status["role"] == "primary").then_some((epoch, node))
        });
        writes.max().map(|(_, node)| node)
    }

    fn are_connected(&self) -> bool {
        (0..self.nodes.len()).all(|node| {
            let status = self.status(node).unwrap_or_default();
            let links = status["nodes"].as_array().cloned().unwrap_or_default();
            let connected = links.iter().filter(|it| it["is_connected"] == true);
            connected.count() == self.nodes.len() - 1
        })
    }

    /// How many copies the node that writes counts.
    pub(super) fn in_sync(&self) -> usize {
        let status = self.primary().and_then(|node| self.status(node));
        let Some(status) = status else { return 0 };
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        replicas.iter().filter(|it| it["in_sync"] == true).count()
    }

    pub(super) fn wait_in_sync(&mut self) -> Result<Duration, Fault> {
        let others = self.nodes.len() - 1;
        self.wait_for("every other node is in sync", |cluster| {
            Ok(cluster.in_sync() == others)
        })
    }

    /// Waits for what nodes do by themselves. None of them may end meanwhile.
    pub(super) fn wait_for(
        &mut self,
        what: &str,
        is: impl Fn(&Self) -> Result<bool, Fault>,
    ) -> Result<Duration, Fault> {
        let begun = self.clock.monotonic();
        while !is(self)? {
            self.all_live()?;
            if self.product.stop.load(Ordering::Relaxed) {
                return Err(Fault::Stopped);
            }
            let waited = self.clock.monotonic() - begun;
            if waited > PATIENCE {
                let limit = format!("within {} s", PATIENCE.as_secs());
                return Err(Breach::new(what, limit, self.words()).into());
            }
            self.clock.sleep(POLL);
        }
        Ok(self.clock.monotonic() - begun)
    }

    /// What was started and neither killed nor stopped runs.
    pub(super) fn all_live(&mut self) -> Result<(), Fault> {
        if let Some(etcd) = &mut self.coordinator {
            etcd.lives()?;
        }
        for node in &mut self.nodes {
            let Some(up) = &mut node.up else { continue };
            if up.has_ended()? {
                let up = node.up.take().expect("it was there");
                let told = tail(&up.told());
                let ended = up.end()?;
                let promise = format!("node {} runs until it is stopped", node.name);
                let found = format!("{}; it said: {told}", ended.status);
                return Err(Breach::new(promise, "-", found).into());
            }
        }
        Ok(())
    }

    /// The store of a node, as commands beside it have it.
    pub(super) fn store(&self, node: usize) -> Result<Store, store::Error> {
        let socket = self.nodes[node].dir.join(STORE_SOCKET);
        let dial = Box::new(move || UnixStream::connect(&socket));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Ok(Store::on(Arc::new(Remote::open("the node", dial, clock)?)))
    }

    /// Waits until what was committed up to `lsn` can be read on `node`, and reads what it has of `round`. One that
    /// writes, and has less, gets no more: what it lacks is for the judge.
    pub(super) fn read(&mut self, node: usize, round: u32, lsn: u64) -> Result<rows::Held, Fault> {
        let what = format!("node {} can be asked for lsn {lsn}", self.nodes[node].name);
        let lacks_since = Cell::new(None);
        let read = |cluster: &Self| -> Result<Option<rows::Held>, store::Error> {
            let store = cluster.store(node)?;
            let snapshot = store.snapshot()?;
            if snapshot.lsn().get() < lsn {
                let now = cluster.clock.monotonic();
                let writes = cluster.primary() == Some(node);
                let since = lacks_since.get().filter(|_| writes).unwrap_or(now);
                lacks_since.set(Some(since));
                if now - since < LACKS_MAX {
                    return Ok(None);
                }
            }
            let table = store.table(rows::TABLE)?;
            rows::Held::read(&snapshot, table, round).map(Some)
        };
        let begun = self.clock.monotonic();
        loop {
            // A node that changes its role is not there for a moment.
            if let Ok(Some(held)) = read(self) {
                return Ok(held);
            }
            self.all_live()?;
            if self.clock.monotonic() - begun > PATIENCE {
                let limit = format!("within {} s", PATIENCE.as_secs());
                return Err(Breach::new(what, limit, self.words()).into());
            }
            self.clock.sleep(POLL);
        }
    }

    /// Where the nodes listen for each other.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        let listed = self.run(0, &["node", "list", "--output", "json"])?;
        let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).map_err(io::Error::from)?;
        let address = |node: &Node<'_>| {
            let found = listed.iter().find(|it| it["name"] == node.name);
            found.and_then(|it| it["address"].as_str()?.parse().ok())
        };
        let addresses: Option<Vec<SocketAddr>> = self.nodes.iter().map(address).collect();
        addresses.ok_or_else(|| io::Error::other("a node has no address").into())
    }

    /// A node of another cluster, which was told that one of its own is at `address`. It is let run until it
    /// has been refused.
    pub(super) fn stranger(&self, address: SocketAddr) -> Result<(), Fault> {
        let dir = self.nodes[0].dir.with_extension("stranger");
        let node = Node {
            name: "stranger",
            dir: dir.clone(),
            up: None,
        };
        let mut other = Self {
            product: self.product,
            network: None,
            coordinator: None,
            has_small_disk: false,
            clock: Arc::clone(&self.clock),
            nodes: vec![node],
        };
        other.found(&dir)?;
        let (at, file) = (
            address.to_string(),
            path(&dir.with_extension("invitation"))?,
        );
        other.run(0, &["node", "invite", "victim", &at, "--to", &file])?;
        other.start(0)?;
        other.wait_for("a node of another cluster is refused", |other| {
            Ok(other.nodes[0].says("no connection to a node"))
        })?;
        other.stop(0)?;
        RealDisk.remove_dir_all(&dir)?;
        Ok(())
    }

    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let dirs = self.nodes.iter().map(|node| &node.dir);
        dirs.map(|dir| dir.join(STORE_SOCKET)).collect()
    }

    /// How all of them stand, for a breach.
    pub(super) fn words(&self) -> String {
        let mut words = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let told = node.up.as_ref().map(|up| tail(&up.told()));
            let status = self.status(index).unwrap_or_default();
            words.push_str(&format!(
                "\n  node {}: {status}\n    {}",
                node.name,
                told.unwrap_or_else(|| "does not run".to_owned())
            ));
        }
        words
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            drop(node.up.take());
        }
        if let Some(node) = self.nodes.last().filter(|_| self.has_small_disk) {
            // Where it fails the mount ends with this process.
            drop(disks::unmount(&node.dir));
        }
    }
}

impl Node<'_> {
    pub(super) fn says(&self, text: &str) -> bool {
        self.up.as_ref().is_some_and(|up| up.has_said(text))
    }
}

pub(super) fn path(path: &Path) -> Result<String, Fault> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::other(format!("{} is not text", path.display())).into())
}

/// The last of what a process told.
pub(super) fn tail(told: &str) -> String {
    let lines: Vec<&str> = told.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n    ")
}
