//! An etcd of the proof's own, as the coordinator of a cluster: who writes has its lease.
//!
//! Whatever the run does to it, it is ended with the cluster, and its data lie in the sandbox.

use std::{env, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustix::process::Signal;
use world::{Clock, RealClock};

use super::{
    super::crash::{
        breach::Fault,
        process::{Product, Running},
    },
    network::{End, Network},
    nodes::{self, POLL},
};

/// Of the leases: the shortest that etcd grants, as it is usually set.
pub(super) const LIFE: Duration = Duration::from_secs(2);

const PROGRAM: &str = "etcd";

/// Where it listens in a namespace of its own.
const PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// What it says when it serves clients: up to version 3.4, and from 3.5 on.
const READY: [&str; 2] = [
    "serving insecure client requests",
    "serving client traffic insecurely",
];

/// How long it may take to serve, first or again. Arbitrary; it takes a second, and longer on a busy disk.
const START_MAX: Duration = Duration::from_secs(60);

/// One member, which is all of its cluster.
#[derive(Debug)]
pub(super) struct Etcd<'p> {
    program: &'p Product,
    prefix: Vec<String>,
    dir: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    up: Option<Running<'p>>,
}

/// The etcd of this machine, to be run as the product is.
pub(super) fn program(product: &Product) -> io::Result<Product> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|dir| dir.join(PROGRAM));
    let binary = places.find(|place| place.is_file()).ok_or_else(|| {
        let why = "there is no `etcd` on PATH: install it (`apt-get install etcd-server`, or the binaries of etcd.io, \
                   version 3.4 or later), or leave --coordinator out";
        io::Error::new(io::ErrorKind::NotFound, why)
    })?;
    Ok(Product {
        binary,
        sandbox: product.sandbox.clone(),
        clock: RealClock::new(),
        answer_wait_max: product.answer_wait_max,
        stop: Arc::clone(&product.stop),
    })
}

impl<'p> Etcd<'p> {
    /// Serves when this returns. Where nodes have a network of their own it is in the middle of it.
    pub(super) fn make(
        program: &'p Product,
        dir: PathBuf,
        network: Option<&Network>,
    ) -> Result<Self, Fault> {
        let (prefix, client, peer) = match network {
            Some(network) => (
                network.prefix(End::Middle),
                Network::address_in_the_middle(PORT),
                Network::address_in_the_middle(PEER_PORT),
            ),
            None => (Vec::new(), nodes::address()?, nodes::address()?),
        };
        let mut etcd = Self {
            program,
            prefix,
            dir,
            client,
            peer,
            up: None,
        };
        etcd.start()?;
        Ok(etcd)
    }

    /// As nodes are told of it.
    pub(super) fn address(&self) -> String {
        format!("etcd://{}/proof?ttl={}s", self.client, LIFE.as_secs())
    }

    /// Also after a kill: at the same address, with what it kept.
    pub(super) fn start(&mut self) -> Result<(), Fault> {
        let (client, peer) = (
            format!("http://{}", self.client),
            format!("http://{}", self.peer),
        );
        let dir = nodes::path(&self.dir)?;
        let cluster = format!("default={peer}");
        let words = [
            ["--data-dir", &dir],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster],
        ];
        let prefix: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        let up = self
            .program
            .start_behind(&prefix, &self.dir, words.as_flattened(), &[], None)?;
        let clock = &self.program.clock;
        let begun = clock.monotonic();
        let up = self.up.insert(up);
        while !READY.iter().any(|text| up.has_said(text)) {
            if up.has_ended()? || clock.monotonic() - begun > START_MAX {
                let told = nodes::tail(&up.told());
                return Err(io::Error::other(format!("etcd does not serve: {told}")).into());
            }
            clock.sleep(POLL);
        }
        Ok(())
    }

    /// SIGKILL. It is gone when this returns.
    pub(super) fn kill(&mut self) -> Result<(), Fault> {
        if let Some(up) = self.up.take() {
            up.kill_after(Duration::ZERO)?;
        }
        Ok(())
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        match &mut self.up {
            Some(up) => up.signal(signal),
            None => Ok(()),
        }
    }

    /// That it does not end by itself is nothing that the product could be blamed for.
    pub(super) fn lives(&mut self) -> Result<(), Fault> {
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        if !up.has_ended()? {
            return Ok(());
        }
        let told = nodes::tail(&up.told());
        Err(io::Error::other(format!("etcd ended by itself: {told}")).into())
    }
}
