//! A network of the proof's own: namespaces with a bridge in the middle, of which nothing is seen outside.
//!
//! A node's end is taken off the bridge to cut it off, both ways. What it sends to one address is lost when it
//! is told that a machine which is not there has it. Needs root; the clients reach their nodes over socket
//! files, which no network touches.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

/// Where every node listens in its namespace.
const PORT: u16 = 7400;

/// Of whatever is to be reached by all nodes: it is on the bridge itself.
const MIDDLE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);

/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:00:00";

/// What a slow link takes at once, and how long it lets wait what it could not send yet, before it loses it.
const BURST: &str = "16kb";
const QUEUE: &str = "1s";

/// Where what a node sends can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Node(usize),
    Middle,
}

/// The namespaces, gone when this is.
#[derive(Debug)]
pub(super) struct Network {
    middle: String,
    ends: Vec<String>,
}

impl Network {
    /// Whether this process may make one.
    pub(super) fn is_possible() -> bool {
        rustix::process::geteuid().is_root() && run(&["netns", "list"]).is_ok()
    }

    pub(super) fn make(nodes: usize) -> io::Result<Self> {
        // The id keeps apart what two runs make at once.
        let id = std::process::id();
        let network = Self {
            middle: format!("hf{id}m"),
            ends: (0..nodes).map(|node| format!("hf{id}n{node}")).collect(),
        };
        let middle = network.middle.as_str();
        run(&["netns", "add", middle])?;
        run(&["-n", middle, "link", "add", "lan", "type", "bridge"])?;
        run(&["-n", middle, "link", "set", "lan", "up"])?;
        run(&["-n", middle, "link", "set", "lo", "up"])?;
        let address = format!("{MIDDLE}/24");
        run(&["-n", middle, "address", "add", &address, "dev", "lan"])?;
        for (node, end) in network.ends.iter().enumerate() {
            let port = port(node);
            run(&["netns", "add", end])?;
            run(&["-n", end, "link", "set", "lo", "up"])?;
            let pair = ["-n", middle, "link", "add", &port, "type", "veth"];
            let pair = [&pair[..], &["peer", "name", "eth0", "netns", end]].concat();
            run(&pair)?;
            run(&["-n", middle, "link", "set", &port, "master", "lan", "up"])?;
            let address = format!("{}/24", ip(node));
            run(&["-n", end, "address", "add", &address, "dev", "eth0"])?;
            run(&["-n", end, "link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    pub(super) fn address(node: usize) -> SocketAddr {
        (ip(node), PORT).into()
    }

    /// For what is on no node, and to be reached by all.
    pub(super) fn address_in_the_middle(port: u16) -> SocketAddr {
        (MIDDLE, port).into()
    }

    /// What starts a program in a namespace.
    pub(super) fn prefix(&self, end: End) -> Vec<String> {
        let namespace = match end {
            End::Node(node) => &self.ends[node],
            End::Middle => &self.middle,
        };
        ["ip", "netns", "exec", namespace].map(str::to_owned).into()
    }

    pub(super) fn cut(&self, node: usize) -> io::Result<()> {
        run(&["-n", &self.middle, "link", "set", &port(node), "down"])
    }

    pub(super) fn mend(&self, node: usize) -> io::Result<()> {
        run(&["-n", &self.middle, "link", "set", &port(node), "up"])
    }

    /// What `from` sends to `to` is lost from here on, without a word, and what comes from there arrives.
    pub(super) fn lose(&self, from: usize, to: End) -> io::Result<()> {
        let (end, to) = (&self.ends[from], ip_of(to));
        let entry = ["-n", end, "neighbour", "replace", &to, "dev", "eth0"];
        run(&[&entry[..], &["lladdr", NOBODY, "nud", "permanent"]].concat())
    }

    pub(super) fn deliver(&self, from: usize, to: End) -> io::Result<()> {
        let (end, to) = (&self.ends[from], ip_of(to));
        run(&["-n", end, "neighbour", "delete", &to, "dev", "eth0"])
    }

    /// Whether this kernel has what a slow link takes.
    pub(super) fn may_be_slow() -> bool {
        Self::make(1).is_ok_and(|network| network.slow_down(0, 1 << 20).is_ok())
    }

    /// So many bits a second go either way.
    pub(super) fn slow_down(&self, node: usize, rate: u64) -> io::Result<()> {
        let rate = format!("{rate}bit");
        for (namespace, device) in self.sides(node) {
            let device = ["-n", namespace, "qdisc", "add", "dev", &device, "root"];
            let limits = ["tbf", "rate", &rate, "burst", BURST, "latency", QUEUE];
            run_of("tc", &[&device[..], &limits].concat())?;
        }
        Ok(())
    }

    pub(super) fn speed_up(&self, node: usize) -> io::Result<()> {
        for (namespace, device) in self.sides(node) {
            run_of(
                "tc",
                &["-n", namespace, "qdisc", "delete", "dev", &device, "root"],
            )?;
        }
        Ok(())
    }

    /// Of a node's link, by which something is sent.
    fn sides(&self, node: usize) -> [(&str, String); 2] {
        [
            (&self.ends[node], "eth0".to_owned()),
            (&self.middle, port(node)),
        ]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.ends.iter().chain([&self.middle]) {
            // Its links go with it. Fails for one that was never made.
            drop(run(&["netns", "delete", name]));
        }
    }
}

fn port(node: usize) -> String {
    format!("port{node}")
}

fn ip(node: usize) -> Ipv4Addr {
    let last = u8::try_from(node + 1).expect("there are a few nodes");
    Ipv4Addr::new(192, 168, 77, last)
}

fn ip_of(end: End) -> String {
    match end {
        End::Node(node) => ip(node).to_string(),
        End::Middle => MIDDLE.to_string(),
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    run_of("ip", words)
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
fn run_of(program: &str, words: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let words = words.join(" ");
    Err(io::Error::other(format!(
        "{program} {words}: {}",
        told.trim()
    )))
}
