//! `holdfast scan --host`: hosts of the inventory, at once, past the schedule.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, mpsc},
    thread,
};

use scan::{
    executor::{self, Cancel, Executed, Executor, Order, Way},
    failure::{Failure, Reason},
    fleet::{Access, CONCURRENCY_MAX, Opened, ask},
    inventory::Host,
    ledger::LogSink,
    rule::Rule,
};

use super::{Done, print, report};
use crate::{
    cli::{self, Chosen, Output},
    config::Config,
    exit::{Exit, Refusal},
    fleet,
    gate::Gate,
    present::{safe, verdicts},
    ruleset::Ruleset,
    screen::{Screen, complain},
    site::Site,
    waived::Waived,
};

/// What came of one host.
type Outcome = (String, Result<Done, Failure>);

pub(super) fn run(
    asked: &cli::Scan,
    rules: &Ruleset,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Exit, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let hosts = chosen(&site, &asked.chosen)?;
    let policy = fleet::policy_of_manual_scan(&site);
    site.close(screen);
    let gate = fleet::gate(config)?;
    let access = Arc::clone(&gate) as Arc<dyn Access>;
    let count = hosts.len();
    let ways = ways(&access, hosts, rules.all().into())?;
    let orders = ways.into_iter().map(|(host, way, tuned)| {
        let collectors = fleet::collectors(&asked.scope, config);
        let cancel = Cancel::with(Arc::clone(stop));
        Order {
            rules: tuned,
            ..fleet::order(host, way, &policy, rules, collectors, cancel)
        }
    });
    let at_once = usize::try_from(policy.concurrency).unwrap_or(usize::MAX);
    let crew = Crew {
        orders: Mutex::new(orders.collect()),
        executor: fleet::executor(config.data_dir()?, Arc::new(executor::LogSink))?,
        gate,
    };
    let mut shown = Shown {
        rules,
        output: config.output.value,
        screen,
        count,
        has_header: false,
        exit: Exit::Clean,
    };
    crew.work(at_once.min(CONCURRENCY_MAX).min(count), &mut shown)?;
    Ok(shown.exit)
}

/// The hosts that are meant, by name.
fn chosen(site: &Site, chosen: &Chosen) -> Result<Vec<Host>, Refusal> {
    let inventory = site.inventory()?;
    let all = inventory.list(None).map_err(crate::site::fleet_refused)?;
    let missing = chosen
        .host
        .iter()
        .find(|name| !all.iter().any(|host| host.name == **name));
    if let Some(name) = missing {
        return Err(
            Refusal::new(format!("the inventory has no host `{}`", safe(name)))
                .next("`holdfast host list` prints every host"),
        );
    }
    let retired = all
        .iter()
        .find(|host| host.retired.is_some() && chosen.host.contains(&host.name));
    if let Some(host) = retired {
        return Err(Refusal::new(format!("host `{}` is retired", host.name))
            .next("`holdfast host list` prints the hosts that are scanned"));
    }
    let mut hosts = all;
    hosts.retain(|host| {
        let named = chosen.host.contains(&host.name);
        let in_group = host.groups.iter().any(|group| chosen.group.contains(group));
        let meant = named || in_group || chosen.site.contains(&host.site) || chosen.all;
        // Those that are never dialled are left out, unless somebody names one.
        let is_offline = matches!(host.reach, scan::inventory::Reach::Offline);
        meant && host.retired.is_none() && (named || !is_offline)
    });
    if hosts.is_empty() {
        return Err(Refusal::new("no host is meant by that")
            .next("`holdfast host list` prints every host with its groups and site"));
    }
    Ok(hosts)
}

/// A host, the way to it, and the rules as they are for it.
type Prepared = (String, Arc<dyn Way>, Arc<[Rule]>);

/// All in one slice: what is asked about each host without a connection.
fn ways(
    access: &Arc<dyn Access>,
    hosts: Vec<Host>,
    rules: Arc<[Rule]>,
) -> Result<Vec<Prepared>, Refusal> {
    let later = Arc::clone(access);
    ask(access.as_ref(), move |opened| {
        let ways = hosts.into_iter().map(|host| {
            let tuned = opened
                .rules(&rules, &host)
                .map_err(|error| error.to_string())?;
            let way = opened.way(&host, &later);
            Ok((host.name, way, tuned))
        });
        ways.collect()
    })
    .map_err(Refusal::new)
}

/// Threads that scan, each one host at a time.
struct Crew {
    orders: Mutex<VecDeque<Order>>,
    executor: Executor,
    gate: Arc<Gate>,
}

impl Crew {
    fn work(self, threads: usize, shown: &mut Shown<'_>) -> Result<(), Refusal> {
        let (sender, outcomes) = mpsc::sync_channel::<Outcome>(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (crew, sender) = (&self, sender.clone());
                scope.spawn(move || {
                    while let Some(order) = crew.next() {
                        let outcome = crew.scan(&order);
                        // Nobody listens once the result cannot be shown.
                        sender.send((order.host.clone(), outcome)).ok();
                    }
                });
            }
            drop(sender);
            // All of them are waited for, also when showing one does not work.
            let mut shown_so_far = Ok(());
            for outcome in &outcomes {
                shown_so_far = shown_so_far.and(shown.one(outcome));
            }
            shown_so_far
        })
    }

    fn next(&self) -> Option<Order> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.pop_front()
    }

    fn scan(&self, order: &Order) -> Result<Done, Failure> {
        let executed = self.executor.run(order)?;
        let Executed { scan, system } = executed;
        let applied = ask(self.gate.as_ref(), move |opened: &dyn Opened| {
            let applied = opened.ledger().apply(&scan, &LogSink);
            let waived = Waived::in_slice(opened, &scan.host, super::super::now())?;
            Ok(applied.map(|applied| (scan, applied, waived)))
        });
        let (recorded, applied, waived) = applied
            .and_then(|applied| applied.map_err(|error| error.to_string()))
            .map_err(|text| Failure::new(Reason::Internal, text))?;
        Ok(Done {
            recorded,
            applied,
            waived: Some(waived),
            system,
        })
    }
}

/// What was printed so far, and how the command ends.
struct Shown<'a> {
    rules: &'a Ruleset,
    output: Output,
    screen: Screen,
    count: usize,
    has_header: bool,
    exit: Exit,
}

impl Shown<'_> {
    fn one(&mut self, (host, outcome): Outcome) -> Result<(), Refusal> {
        let done = match outcome {
            Ok(done) => done,
            Err(failure) => {
                complain(&format_args!(
                    "{}: not scanned: {failure}\n  next: {}",
                    safe(&host),
                    fleet::next_step(failure.reason, &host)
                ));
                self.exit = self.exit.worse(Exit::Incomplete);
                return Ok(());
            }
        };
        let exit = match self.output {
            // Each a document of its own on one line, as they come.
            Output::Json if self.count > 1 => {
                let report = report(&done);
                let line = serde_json::to_string(&report).map_err(|error| {
                    Refusal::new("the result cannot be written as JSON").source(error)
                })?;
                self.screen.result(&line)?;
                Exit::of_verdicts(&report.summary)
            }
            Output::Csv if self.count > 1 => {
                let report = report(&done);
                let is_first = !std::mem::replace(&mut self.has_header, true);
                let rows = verdicts::csv_of_host(&report.host, &report.verdicts, is_first);
                self.screen.result(&rows)?;
                Exit::of_verdicts(&report.summary)
            }
            output => print(&done, self.rules, output, self.screen)?,
        };
        self.exit = self.exit.worse(exit);
        Ok(())
    }
}
