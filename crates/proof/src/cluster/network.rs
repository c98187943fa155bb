//! A network of the proof's own: namespaces with a bridge in the middle, of which nothing is seen outside.
//!
//! A node's end is taken off the bridge to cut it off, both ways. Needs root; the clients reach their nodes
//! over socket files, which no network touches.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

/// Where every node listens in its namespace.
const PORT: u16 = 7400;

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

    /// What starts a program in a node's namespace.
    pub(super) fn prefix(&self, node: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.ends[node]]
    }

    pub(super) fn cut(&self, node: usize) -> io::Result<()> {
        run(&["-n", &self.middle, "link", "set", &port(node), "down"])
    }

    pub(super) fn mend(&self, node: usize) -> io::Result<()> {
        run(&["-n", &self.middle, "link", "set", &port(node), "up"])
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

#[allow(
    clippy::disallowed_methods,
    reason = "this program exists to run others"
)]
fn run(words: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let words = words.join(" ");
    Err(io::Error::other(format!("ip {words}: {}", told.trim())))
}
