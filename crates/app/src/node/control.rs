//! Orders to the running `up`: a socket file in `node/`, one line of JSON each way.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use replica::{
    group::Group,
    machine::{Config as Members, Mode, NodeId, Order, Outcome, Policy, Role},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use world::{Clock, RealClock};

use super::{
    Bound, Settings, Statement, book,
    change::{
        Fenced, add, alone_config, configure, copies, fence, lacks_copies, order_back, others,
        present, takes_back,
    },
    clocks::Clocks,
    coordinator::Leasing,
    dir, explained, force,
    keys::Keys,
    settings::REMOVED_MAX,
    shown,
};
use crate::{
    cli,
    exit::Refusal,
    http::sockets::{self, SocketFile},
};

const SOCKET: &str = "socket";
const LINE_LEN_MAX: u64 = 1 << 20;
/// An order waits for other nodes: for their silence, for their promises, for what they still have to take. A few
/// times [`ORDER_MAX`]: it is told there what an order waits for.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// An order that takes longer waits for nodes that are off, and whoever gave it is told so.
const ORDER_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// A few notes each way, on machines that are busy.
const CARRY_MAX: Duration = Duration::from_secs(10);
/// Whoever gives an order that is about copies sees how they stand after so long.
const COPY_MAX: Duration = Duration::from_secs(10);
/// Orders at once: people give them.
const AT_ONCE_MAX: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub(crate) enum Request {
    Status,
    /// Waits until every member has the keys of this node.
    CarryKeys,
    Promote {
        /// Without copies afterwards: how the other members were stopped.
        alone: Option<String>,
    },
    /// What a forced promotion of this node may lose.
    Bound,
    Force {
        said: Statement,
        /// What was shown.
        accepted: Bound,
    },
    ExplainReplication,
    ExplainPromotion,
    Switchover {
        to: String,
    },
    Add {
        name: String,
    },
    Remove {
        name: String,
        fenced: Option<String>,
    },
    /// Of the cluster, for ever.
    Forget {
        name: String,
    },
    Policy {
        policy: cli::node::Policy,
    },
    Mode {
        mode: String,
        fenced: Option<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refused: Option<String>,
    result: Value,
}

/// The socket of a running node.
#[derive(Debug)]
pub(crate) struct Control {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _file: SocketFile,
}

impl Control {
    pub(crate) fn start(
        data: &Path,
        group: &Arc<Group>,
        keys: &Arc<Keys>,
        clocks: &Arc<Clocks>,
        leasing: Option<Arc<Mutex<Leasing>>>,
    ) -> Result<Self, Refusal> {
        let (listener, file) = sockets::unix(&dir(data).join(SOCKET))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, group, data) = (Arc::clone(&stop), Arc::clone(group), data.to_owned());
        let (keys, clocks) = (Arc::clone(keys), Arc::clone(clocks));
        let thread = thread::Builder::new()
            .name("node-control".to_owned())
            .spawn(move || {
                let clock = RealClock::new();
                let mut asked: Vec<JoinHandle<()>> = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        clock.sleep(POLL);
                        continue;
                    };
                    asked.retain(|thread| !thread.is_finished());
                    if asked.len() >= AT_ONCE_MAX {
                        continue;
                    }
                    let (group, data) = (Arc::clone(&group), data.clone());
                    let (keys, clocks) = (Arc::clone(&keys), Arc::clone(&clocks));
                    let leasing = leasing.clone();
                    let spawned =
                        thread::Builder::new()
                            .name("node-order".to_owned())
                            .spawn(move || {
                                let node = Serving {
                                    group: &group,
                                    data: &data,
                                    keys: &keys,
                                    clocks: &clocks,
                                    leasing: leasing.as_deref(),
                                };
                                serve(stream, &node);
                            });
                    asked.extend(spawned);
                }
            })
            .map_err(|error| Refusal::new("the node's socket gets no thread").source(error))?;
        Ok(Self {
            stop,
            thread: Some(thread),
            _file: file,
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within its poll; orders under way end with the group.
            drop(thread.join());
        }
    }
}

/// What orders are carried out on.
struct Serving<'a> {
    group: &'a Group,
    data: &'a Path,
    keys: &'a Keys,
    clocks: &'a Clocks,
    leasing: Option<&'a Mutex<Leasing>>,
}

impl Serving<'_> {
    fn promote(&self, alone: Option<&String>, settings: &Settings) -> Result<Value, String> {
        let order = Order::Promote {
            node: settings.node,
            config: None,
            force: None,
        };
        // Before the promotion: a statement that is about nobody changes nothing.
        let others = others(self.group, settings.node)?;
        let fenced = fence(self.group, settings, alone, &others)?;
        // The first half may have been done before, and the second refused.
        let is_done = alone.is_some() && matches!(self.group.role(), Role::Primary { .. });
        if !is_done {
            self.order(order, settings)?;
        }
        if alone.is_some() {
            // A change of its own, with the statement: those that are stopped cannot be told of it.
            self.change(fenced, settings, |config| {
                config.mode = Mode::Async;
                Ok(())
            })
            .map_err(|refused| {
                format!("this node writes, and its mode is not changed yet: {refused}. Then give the order again")
            })?;
        }
        Ok(self.document(settings))
    }

    /// Orders a change. One that is under way comes first, with what is said of who was stopped.
    fn change(
        &self,
        fenced: Fenced,
        settings: &Settings,
        change: impl Fn(&mut Members) -> Result<(), String>,
    ) -> Result<Value, String> {
        let before = present(self.group)?;
        if takes_back(&before, &change) {
            return self.order(configure(self.group, fenced, change)?, settings);
        }
        if before.previous.is_some() && !fenced.is_empty() {
            let stopped = Order::Configure {
                config: before,
                fenced: fenced.clone(),
            };
            self.order(stopped, settings)?;
            self.wait_for_change(settings)?;
        }
        let is_under_way = present(self.group)?.previous.is_some();
        let order = configure(self.group, fenced, change)?;
        // Elsewhere, and amid another change, it is refused by itself.
        let is_primary = matches!(self.group.role(), Role::Primary { .. });
        if let Order::Configure { config, .. } = &order
            && is_primary
            && !is_under_way
        {
            self.wait_for_copies(config)?;
        }
        self.order(order, settings)
    }

    /// Members that were heard a moment ago are in sync within another one, and are waited for.
    fn wait_for_copies(&self, wanted: &Members) -> Result<(), String> {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        loop {
            let there = self.group.status().map(|status| copies(&status));
            let Some(why) = lacks_copies(wanted, &there.unwrap_or_default()) else {
                return Ok(());
            };
            if clock.monotonic() - begun > COPY_MAX {
                return Err(why);
            }
            clock.sleep(POLL);
        }
    }

    fn wait_for_change(&self, settings: &Settings) -> Result<(), String> {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        while present(self.group)?.previous.is_some() {
            if clock.monotonic() - begun > ORDER_MAX {
                return Err(self.under_way(settings));
            }
            clock.sleep(POLL);
        }
        Ok(())
    }

    /// A member that has no copy yet makes no majority, and until it has one the loss of another member cannot
    /// be made up for. Most have it within a moment, and are waited for; a large site takes its time.
    fn wait_for_copy(&self, member: NodeId) {
        let clock = RealClock::new();
        let begun = clock.monotonic();
        let is_there = || {
            let status = self.group.status();
            let mut replicas = status.into_iter().flat_map(|status| status.replicas);
            replicas.any(|it| it.replica == member && it.is_in_sync)
        };
        while !is_there() && clock.monotonic() - begun < COPY_MAX {
            clock.sleep(POLL);
        }
    }

    fn order(&self, order: Order, settings: &Settings) -> Result<Value, String> {
        let ended = self.group.order_within(order, ORDER_MAX);
        match ended.map_err(|error| error.to_string())? {
            Some(ended) => self.ended(ended, settings),
            None => Err(self.under_way(settings)),
        }
    }

    /// What an order that did not end in time waits for.
    fn under_way(&self, settings: &Settings) -> String {
        let awaits = self.group.status().map(|status| status.awaits);
        let names: Vec<String> = awaits
            .into_iter()
            .flatten()
            .map(|node| settings.name_of(node))
            .collect();
        let waits = match names.is_empty() {
            true => "for copies".to_owned(),
            false => format!(
                "for {}, which has to have it: start it, or give an order with --fenced and how it was stopped",
                names.join(", ")
            ),
        };
        let config = self.group.status().map(|status| status.record.config);
        let back = config
            .and_then(|config| order_back(&config, |node| settings.name_of(node)))
            .map_or_else(String::new, |order| {
                // Nor does that go on without those that this waits for.
                let fenced = match names.is_empty() {
                    true => "",
                    false => " --fenced STATEMENT",
                };
                format!("; `holdfast group {order}{fenced}` takes it back")
            });
        format!(
            "the order is on record and waits {waits}. It is done as soon as enough copies count: `holdfast explain replication` \
             tells of each why it does not{back}"
        )
    }

    /// How it stands after an order.
    fn ended(&self, outcome: Outcome, settings: &Settings) -> Result<Value, String> {
        match outcome {
            Outcome::Done => Ok(self.document(settings)),
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            Outcome::Unknown(refusal) => {
                Err(format!("{refusal}; look with `holdfast group status`"))
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn document(&self, settings: &Settings) -> Value {
        let leasing = self.leasing.map(|leasing| {
            let leasing = leasing.lock();
            leasing
                .expect("never poisoned: holds no code that panics")
                .clone()
        });
        shown::document(
            self.group,
            self.keys,
            self.clocks,
            settings,
            leasing.as_ref(),
        )
    }
}

fn serve(stream: UnixStream, node: &Serving<'_>) {
    let served = || -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?.take(LINE_LEN_MAX)).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => match carry_out(&request, node) {
                Ok(result) => Answer {
                    refused: None,
                    result,
                },
                Err(refused) => Answer {
                    refused: Some(refused),
                    result: Value::Null,
                },
            },
            Err(error) => Answer {
                refused: Some(format!("the order is not understood: {error}")),
                result: Value::Null,
            },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        (&stream).write_all(&text)
    };
    if let Err(error) = served() {
        tracing::debug!(%error, "an order got no answer");
    }
}

fn carry_out(request: &Request, node: &Serving<'_>) -> Result<Value, String> {
    let group = node.group;
    let settings = Settings::load(node.data)
        .map_err(|refusal| refusal.to_string())?
        .ok_or("this directory is not a node's any more")?;
    let order = match request {
        Request::Status => return Ok(node.document(&settings)),
        Request::CarryKeys => {
            let members = present(group)?.members;
            return carry_keys(node.keys, &settings, &members);
        }
        Request::Forget { name } => return forget(name, &settings, node),
        Request::Promote { alone } => return node.promote(alone.as_ref(), &settings),
        Request::Bound => return bound(group, &settings),
        Request::Force { said, accepted } => {
            let config = said.alone.then(|| alone_config(group)).transpose()?;
            let ended = force::order(group, &settings, node.data, said, accepted, config)?;
            return node.ended(ended, &settings);
        }
        Request::ExplainReplication => return explained::replication(group, &settings),
        Request::ExplainPromotion => return explained::promotion(group, &settings),
        Request::Switchover { to } => {
            let to = named(&settings, to)?;
            carry_keys(node.keys, &settings, &[to].into())?;
            Order::Switchover { to }
        }
        Request::Add { name } => {
            let member = settings
                .named(name)
                .map_err(|refusal| refusal.to_string())?;
            group
                .set_peer(member.node, member.address, member.number)
                .map_err(|error| error.to_string())?;
            node.change(Fenced::new(), &settings, |config| {
                add(group, &settings, member.node, config)
            })?;
            node.wait_for_copy(member.node);
            return Ok(node.document(&settings));
        }
        Request::Remove { name, fenced } => {
            let member = named(&settings, name)?;
            let fenced = fence(group, &settings, fenced.as_ref(), &[member].into())?;
            return node.change(fenced, &settings, |config| {
                match config.members.remove(&member) {
                    true => Ok(()),
                    false => Err(format!("`{name}` is no member")),
                }
            });
        }
        Request::Policy { policy } => configure(group, Fenced::new(), |config| {
            config.policy = match policy {
                cli::node::Policy::Wait => Policy::Wait,
                cli::node::Policy::Refuse => Policy::Refuse,
            };
            Ok(())
        })?,
        Request::Mode { mode, fenced } => {
            let mode = parse_mode(mode)?;
            let others = others(group, settings.node)?;
            let fenced = fence(group, &settings, fenced.as_ref(), &others)?;
            return node.change(fenced, &settings, |config| {
                config.mode = mode;
                Ok(())
            });
        }
    };
    node.order(order, &settings)
}

fn bound(group: &Group, settings: &Settings) -> Result<Value, String> {
    let status = group.status().ok_or("the node has just begun; try again")?;
    serde_json::to_value(Bound::of(&status, settings)).map_err(|error| error.to_string())
}

/// Also the next keys of a rotation: whoever asks uses them only then.
fn carry_keys(keys: &Keys, settings: &Settings, to: &BTreeSet<NodeId>) -> Result<Value, String> {
    let clock = RealClock::new();
    let begun = clock.monotonic();
    keys.look();
    loop {
        let others = to.iter().filter(|it| **it != settings.node);
        let lacks: Vec<String> = others
            .filter(|node| !keys.are_carried(**node))
            .map(|node| settings.name_of(*node))
            .collect();
        if lacks.is_empty() {
            return Ok(Value::Null);
        }
        if clock.monotonic() - begun >= CARRY_MAX {
            return Err(format!(
                "{} has not told that it has all keys of this node. Start it if it is off, or `holdfast group remove` it, then try again",
                lacks.join(", ")
            ));
        }
        clock.sleep(POLL);
    }
}

/// At the node that writes: it alone knows for certain who is a member.
fn forget(name: &str, settings: &Settings, serving: &Serving<'_>) -> Result<Value, String> {
    let group = serving.group;
    let node = named(settings, name)?;
    if node == settings.node {
        return Err(format!(
            "`{name}` is this node: hand over with `holdfast switchover`, and remove it there"
        ));
    }
    if !matches!(group.role(), Role::Primary { .. }) {
        return Err("nodes are removed where the site is written; this node follows".to_owned());
    }
    let config = present(group)?;
    let before = config.previous.as_ref().map(|before| &before.members);
    if config.members.contains(&node) || before.is_some_and(|members| members.contains(&node)) {
        return Err(format!(
            "`{name}` is a member of the group: `holdfast group remove {name}` first"
        ));
    }
    let changed = Settings::change(serving.data, |settings| {
        match settings.removed.len() < REMOVED_MAX {
            true => {
                book::remove(settings, node, name);
                Ok(())
            }
            false => Err(Refusal::new(format!(
                "{REMOVED_MAX} nodes were removed, and no more can be remembered"
            ))),
        }
    });
    let ((), changed) = changed.map_err(|refusal| refusal.to_string())?;
    group.shut_out(node);
    Ok(serving.document(&changed))
}

fn named(settings: &Settings, name: &str) -> Result<NodeId, String> {
    let member = settings
        .named(name)
        .map_err(|refusal| refusal.to_string())?;
    Ok(member.node)
}

pub(crate) fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "async" => Ok(Mode::Async),
        "all" => Ok(Mode::All),
        other => other
            .strip_prefix("sync:")
            .and_then(|copies| copies.parse().ok())
            .filter(|copies| *copies > 0)
            .map(Mode::Sync)
            .ok_or_else(|| format!("`{text}` is no mode: write async, sync:1 (or more), or all")),
    }
}

/// On a node of several: every member has what lies in `keys/` when this returns, or it is said who has
/// not.
pub(crate) fn carry(data: &Path) -> Result<(), String> {
    let is_node = Settings::load(data).map_err(|refusal| refusal.to_string())?;
    match is_node {
        None => Ok(()),
        Some(_) => ask(data, &Request::CarryKeys)
            .map(drop)
            .map_err(|refusal| refusal.to_string()),
    }
}

/// An `up` runs on this directory of a node, whatever its role.
pub(crate) fn is_running(data: &Path) -> bool {
    sockets::connect(&dir(data).join(SOCKET)).is_ok()
}

/// Hands an order to the `up` that runs on this directory.
pub(crate) fn ask(data: &Path, request: &Request) -> Result<Value, Refusal> {
    let path = dir(data).join(SOCKET);
    let stream = sockets::connect(&path).map_err(|error| {
        Refusal::new(format!(
            "the node in {} does not answer: {error}",
            data.display()
        ))
        .next("start it with `holdfast up`, then try again")
    })?;
    let exchange = || -> std::io::Result<String> {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        (&stream).write_all(&text)?;
        let mut line = String::new();
        BufReader::new((&stream).take(LINE_LEN_MAX)).read_line(&mut line)?;
        Ok(line)
    };
    let answer = answered(exchange(), data)?;
    match answer.refused {
        Some(refused) => {
            Err(Refusal::new(refused).next("`holdfast group status` shows how it stands"))
        }
        None => Ok(answer.result),
    }
}

/// What came back of an order that was handed over.
fn answered(line: std::io::Result<String>, data: &Path) -> Result<Answer, Refusal> {
    const LOOK: &str = "look with `holdfast group status`, and give it again where it was not done";
    let node = format!("the node in {}", data.display());
    let line = line.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Refusal::new(format!(
            "{node} has not answered in {} s: the order may wait for other nodes, and is not taken back",
            ANSWER_MAX.as_secs()
        ))
        .next(LOOK),
        _ => Refusal::new(format!(
            "{node} did not say whether the order was carried out: {error}"
        ))
        .next(LOOK),
    })?;
    if line.is_empty() {
        return Err(Refusal::new(format!(
            "{node} did not take the order: it was stopped, or is busy with {AT_ONCE_MAX} others"
        ))
        .next(LOOK));
    }
    serde_json::from_str(&line).map_err(|error| {
        Refusal::new(format!("the answer of {node} is not understood: {error}"))
            .next("use the same version of Holdfast for the command and the running node")
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Whatever went wrong behind the connection, the node was said to be off; it ran, and the change was made.
    #[test]
    fn an_order_that_was_handed_over_is_not_said_to_be_of_a_node_that_is_off() {
        let failed = |kind: ErrorKind| Err(io::Error::from(kind));
        for (line, says) in [
            (failed(ErrorKind::WouldBlock), "not taken back"),
            (failed(ErrorKind::TimedOut), "not taken back"),
            (
                failed(ErrorKind::ConnectionReset),
                "whether the order was carried out",
            ),
            (Ok(String::new()), "busy"),
            (Ok("?".to_owned()), "not understood"),
        ] {
            let refusal = format!("{:?}", answered(line, Path::new("/data")).unwrap_err());
            assert!(refusal.contains(says), "{refusal}");
            assert!(!refusal.contains("holdfast up"), "{refusal}");
        }
    }
}
