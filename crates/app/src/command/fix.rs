//! `holdfast fix`: show what would mend a rule, do it, undo it.

mod host;

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use scan::{
    collect,
    facts::Facts,
    fix::{self, Effect, Fault, FaultKind, Fix, Fixes, Hands, Journal, LocalHands, Phase, Plan},
    rule::Rule,
    target::{LocalTarget, Target},
};
use world::{Clock, Disk, RealClock, RealDisk, Timestamp};

use crate::{
    cli::{Output, fix as cli},
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, safe, table},
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site},
};

/// One fix at a time with one record, whatever it is of.
const FIX_LOCK: &str = "fix.lock";

/// sshd of this machine answers at once, or is not there.
const KNOCK_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(asked: &cli::Fix, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    match &asked.action {
        None => one(asked, config, screen),
        Some(cli::Action::List) => list(config, screen),
        Some(cli::Action::Show { id }) => show(id, config, screen),
        Some(cli::Action::Rollback { id, force }) => roll_back(id, *force, config, screen),
        Some(cli::Action::Recover { force }) => recover(*force, config, screen),
    }
}

fn one(asked: &cli::Fix, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let rules = Ruleset::load(config, asked.rules_dir.as_deref())?;
    let id = asked.rule.as_deref().unwrap_or_default();
    let written = rules.get(id).ok_or_else(|| {
        Refusal::new(format!("no rule `{id}`")).next("`holdfast rules list` prints every rule")
    })?;
    let root = root_of(asked)?;
    let host = asked.host.clone().unwrap_or_else(super::this_host);
    if root == "/" && host != super::this_host() {
        return host::one(asked, &host, written, config, screen);
    }
    if asked.apply && root == "/" && !rustix::process::geteuid().is_root() {
        return Err(
            Refusal::new("`fix --apply` changes the system and needs root")
                .next("run it with sudo; without --apply the plan is shown"),
        );
    }
    let _alone = if asked.apply {
        Some(hold(config)?)
    } else {
        None
    };
    let rule = &match site::must_exist(config.data_dir()?, "") {
        Ok(()) => {
            tell_unfinished(config, screen)?;
            tuned(written, &host, config, screen)?
        }
        Err(_) => written.clone(),
    };
    let machine = Machine::new(&root)?;
    let mut hands = machine.hands()?;
    let mut plan = fix::plan(rule, &machine.facts(rule), &mut hands).map_err(refused)?;
    if root != "/" {
        // A directory has no logins that could be cut off.
        plan.timer_seconds = None;
    } else if plan.timer_seconds.is_some() && hands.knock().is_err() {
        screen.remark("sshd does not answer on this machine: no timed rollback is armed");
        plan.timer_seconds = None;
    }
    screen.result(&shown(rule, &host, &plan, config.output.value)?)?;
    if !asked.apply {
        screen
            .remark("Nothing was changed. `--apply` does it, judges again, and undoes what fails.");
        return Ok(Exit::Clean);
    }
    if !asked.yes && !agreed()? {
        screen.remark("Nothing was changed.");
        return Ok(Exit::Clean);
    }
    let mut facts = || Ok(machine.facts(rule));
    let there = (&mut hands as &mut dyn Hands, &mut facts as _);
    apply(rule, &host, &root, &plan, there, config, screen)
}

/// The rule as scans of this host judge it: with the values that the site gave its variables.
fn tuned(rule: &Rule, host: &str, config: &Config, screen: Screen) -> Result<Rule, Refusal> {
    let site = Site::open(config, screen)?;
    let tuned = site.tuned(std::slice::from_ref(rule), host, screen);
    site.close(screen);
    Ok(tuned?.pop().expect("as many rules as were given"))
}

/// What changes a host, and what looks at it afresh.
type There<'a> = (
    &'a mut dyn Hands,
    &'a mut dyn FnMut() -> Result<Facts, Fault>,
);

fn apply(
    rule: &Rule,
    host: &str,
    root: &str,
    plan: &Plan,
    (hands, facts): There<'_>,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let clock = RealClock::new();
    let mut journal = Record { config, screen };
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    let tail = u32::from_be_bytes([a, b, c, d]);
    let fix = Fix::begin(rule, host, root, &super::actor(), clock.now(), tail);
    let (fix, ended) = fix::apply(
        plan,
        rule,
        fix,
        &mut fix::Site {
            hands,
            journal: &mut journal,
            facts,
            clock: &clock,
        },
    )
    .map_err(refused)?;
    told(&fix, &ended, screen)
}

/// Says how a fix ended.
fn told(fix: &Fix, ended: &fix::Ended, screen: Screen) -> Result<Exit, Refusal> {
    let id = fix.id();
    let note = safe(&ended.note);
    match ended.phase {
        Phase::Kept => {
            screen.result(&format!("Fix {id} is kept: {note}"))?;
            screen.remark(format_args!("`holdfast fix rollback {id}` undoes it; the next scan records it."));
            Ok(Exit::Clean)
        }
        Phase::RolledBack => {
            screen.result(&format!("Fix {id} is undone: {note}"))?;
            Ok(Exit::Findings)
        }
        Phase::Recovered => {
            screen.result(&format!("Fix {id} is undone: {note}"))?;
            Ok(Exit::Clean)
        }
        _ => Err(Refusal::new(format!("fix {id} could not be undone: {note}")).next(
            "mend what is named, then `holdfast fix recover`; --force overwrites what others changed",
        )),
    }
}

fn list(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let fixes = on_record(config, screen, Fixes::list)?;
    let row = |fix: &Fix| {
        [
            fix.id().to_owned(),
            moment::rfc3339(Timestamp::from_nanos(fix.intent.begun)),
            fix.intent.host.clone(),
            fix.intent.rule.clone(),
            fix.progress.phase.name(),
            fix.progress.note.clone(),
        ]
    };
    let names = ["id", "begun", "host", "rule", "state", "note"];
    let text = match config.output.value {
        Output::Json => super::json(&fixes.iter().map(document).collect::<Vec<_>>())?,
        Output::Csv => csv::lines(names, fixes.iter().map(row)),
        Output::Table => table::rows(
            ["ID", "BEGUN", "HOST", "RULE", "STATE", "NOTE"],
            fixes.iter().map(row),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn show(id: &str, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let fix = find(id, config, screen)?;
    if config.output.value == Output::Json {
        screen.result(&super::json(&document(&fix))?)?;
        return Ok(Exit::Clean);
    }
    let mut text = format!(
        "Fix {} of rule {} on {}\nbegun {} by {}\nstate {}\n",
        fix.id(),
        fix.intent.rule,
        safe(&fix.intent.host),
        moment::rfc3339(Timestamp::from_nanos(fix.intent.begun)),
        safe(&fix.intent.by),
        fix.progress.phase,
    );
    if !fix.progress.note.is_empty() {
        text.push_str(&format!("{}\n", safe(&fix.progress.note)));
    }
    text.push_str(&difference(&fix.intent.effects));
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn roll_back(id: &str, force: bool, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let _alone = hold(config)?;
    let mut fix = find(id, config, screen)?;
    let ended = at_site(&fix.clone(), config, screen, |site| {
        fix::roll_back(&mut fix, site, force)
    })?
    .map_err(refused)?;
    match ended.phase {
        Phase::RolledBack => told(&fix, &ended, screen).map(|_| Exit::Clean),
        _ => told(&fix, &ended, screen),
    }
}

fn recover(force: bool, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let _alone = hold(config)?;
    let unfinished = on_record(config, screen, Fixes::unfinished)?;
    if unfinished.is_empty() {
        screen.result("No fix was interrupted.")?;
    }
    let mut worst = None;
    for mut fix in unfinished {
        let ended = at_site(&fix.clone(), config, screen, |site| {
            fix::recover(&mut fix, site, force)
        });
        // A host that is not to be reached keeps no other from being undone.
        if let Err(refusal) = ended.and_then(|ended| told(&fix, &ended, screen)) {
            crate::screen::complain(&refusal);
            worst = Some(refusal);
        }
    }
    match worst {
        None => Ok(Exit::Clean),
        Some(_) => Err(Refusal::new("not everything could be undone")
            .next("`holdfast fix list` shows what is left")),
    }
}

/// Says that something was interrupted, before a next fix.
fn tell_unfinished(config: &Config, screen: Screen) -> Result<(), Refusal> {
    tell(&on_record(config, screen, Fixes::unfinished)?, screen);
    Ok(())
}

/// The same for `up`, which has the site open.
pub(crate) fn tell_unfinished_of(site: &Site, screen: Screen) -> Result<(), Refusal> {
    let unfinished = Fixes::new(site.store().clone()).and_then(|fixes| fixes.unfinished());
    tell(&unfinished.map_err(refused)?, screen);
    Ok(())
}

fn tell(unfinished: &[Fix], screen: Screen) {
    for fix in unfinished {
        screen.remark(format_args!(
            "fix {} of rule {} on {} is not finished ({}); `holdfast fix recover` undoes it",
            fix.id(),
            fix.intent.rule,
            fix.intent.host,
            fix.progress.phase
        ));
    }
}

/// With the hands of the host that a fix on record is of.
fn at_site<T>(
    fix: &Fix,
    config: &Config,
    screen: Screen,
    act: impl FnOnce(&mut fix::Site<'_>) -> T,
) -> Result<T, Refusal> {
    let root = &fix.intent.root;
    if root == "/" && fix.intent.host != super::this_host() {
        let mut hands = host::hands(&fix.intent.host, config, screen)?;
        return Ok(undone_by(&mut hands, config, screen, act));
    }
    if root == "/" && !rustix::process::geteuid().is_root() {
        return Err(
            Refusal::new("undoing a fix changes the system and needs root")
                .next("run it with sudo"),
        );
    }
    let machine = Machine::new(root)?;
    let mut hands = machine.hands()?;
    Ok(undone_by(&mut hands, config, screen, act))
}

fn undone_by<T>(
    hands: &mut dyn Hands,
    config: &Config,
    screen: Screen,
    act: impl FnOnce(&mut fix::Site<'_>) -> T,
) -> T {
    let clock = RealClock::new();
    let mut journal = Record { config, screen };
    let mut facts = || Err(Fault::new(FaultKind::Check, "undoing judges nothing"));
    act(&mut fix::Site {
        hands,
        journal: &mut journal,
        facts: &mut facts,
        clock: &clock,
    })
}

/// This machine, or a directory that stands for one.
struct Machine {
    root: String,
    target: Arc<dyn Target>,
}

impl Machine {
    fn new(root: &str) -> Result<Self, Refusal> {
        let target = LocalTarget::new(root, Arc::new(RealClock::new()))
            .map_err(|unknown| Refusal::new(format!("{root} cannot be looked at: {unknown:?}")))?;
        Ok(Self {
            root: root.to_owned(),
            target: Arc::new(target),
        })
    }

    fn hands(&self) -> Result<LocalHands, Refusal> {
        let hands = LocalHands::new(&self.root, Arc::clone(&self.target)).map_err(refused)?;
        Ok(if self.root == "/" {
            let target = Arc::clone(&self.target);
            hands.with_knock(Box::new(move || knock(&target)))
        } else {
            hands
        })
    }

    fn facts(&self, rule: &Rule) -> Facts {
        let needs = collect::Needs::of([rule]);
        self.collect(&fix::collectors(rule), needs)
    }

    fn collect(&self, collectors: &[&'static collect::Collector], needs: collect::Needs) -> Facts {
        collect_from(&self.target, collectors, needs)
    }
}

fn collect_from(
    target: &Arc<dyn Target>,
    collectors: &[&'static collect::Collector],
    needs: collect::Needs,
) -> Facts {
    collect::collect_only(
        collectors,
        Arc::clone(target),
        Arc::new(needs),
        Arc::new(()),
        Arc::new(RealClock::new()),
    )
}

/// A connection to sshd of this machine that did not exist before, up to its banner. That a key
/// still opens the door is not tried: it is the administrator's.
fn knock(target: &Arc<dyn Target>) -> Result<(), String> {
    let sshd: Vec<_> = collect::list()
        .iter()
        .copied()
        .filter(|c| c.name == "sshd")
        .collect();
    let facts = collect_from(target, &sshd, collect::Needs::default());
    let ports = facts
        .facts
        .get("sshd")
        .and_then(|sshd| sshd.pointer("/effective/port"));
    let ports = ports
        .and_then(|ports| ports.as_str())
        .unwrap_or("22")
        .to_owned();
    let mut last = "sshd has no port".to_owned();
    for port in ports
        .split_whitespace()
        .filter_map(|port| port.parse().ok())
    {
        match banner(SocketAddr::from(([127, 0, 0, 1], port))) {
            Ok(()) => return Ok(()),
            Err(error) => last = format!("127.0.0.1 port {port}: {error}"),
        }
    }
    Err(last)
}

fn banner(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, KNOCK_PATIENCE)?;
    stream.set_read_timeout(Some(KNOCK_PATIENCE))?;
    let mut begin = [0; 4];
    stream.read_exact(&mut begin)?;
    if begin == *b"SSH-" {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "what answers is not sshd",
    ))
}

/// The record, opened for each entry alone: `up` goes on beside a fix.
struct Record<'a> {
    config: &'a Config,
    screen: Screen,
}

impl Record<'_> {
    fn with(&self, act: impl FnOnce(&mut Fixes) -> Result<(), Fault>) -> Result<(), Fault> {
        let lost = |refusal: Refusal| Fault::new(FaultKind::Record, refusal.into_parts().0);
        let site = Site::open(self.config, self.screen).map_err(lost)?;
        let done = Fixes::new(site.store().clone()).and_then(|mut fixes| act(&mut fixes));
        site.close(self.screen);
        done
    }
}

impl Journal for Record<'_> {
    fn begin(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.with(|fixes| fixes.begin(fix))
    }

    fn record(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.with(|fixes| fixes.record(fix))
    }
}

fn on_record<T>(
    config: &Config,
    screen: Screen,
    ask: impl FnOnce(&Fixes) -> Result<T, Fault>,
) -> Result<T, Refusal> {
    let site = Site::open_existing(config, screen)?;
    let answer = Fixes::new(site.store().clone()).and_then(|fixes| ask(&fixes));
    site.close(screen);
    answer.map_err(refused)
}

fn find(id: &str, config: &Config, screen: Screen) -> Result<Fix, Refusal> {
    let mut found = on_record(config, screen, Fixes::list)?;
    found.retain(|fix| fix.id().starts_with(id));
    if found.len() > 1 {
        return Err(
            Refusal::new(format!("{} fixes begin with `{id}`", found.len()))
                .next("give more of the id"),
        );
    }
    found.pop().ok_or_else(|| {
        Refusal::new(format!("no fix `{id}`")).next("`holdfast fix list` prints every fix")
    })
}

fn root_of(asked: &cli::Fix) -> Result<String, Refusal> {
    let Some(root) = &asked.root else {
        return Ok("/".to_owned());
    };
    let refuse = || {
        Refusal::new(format!("root {}", root.display()))
            .next("name a directory that stands for a host, not this machine's own")
    };
    let path = std::fs::canonicalize(root).map_err(|error| refuse().source(error))?;
    match path.to_str() {
        Some(path) if path != "/" => Ok(path.to_owned()),
        _ => Err(refuse()),
    }
}

fn hold(config: &Config) -> Result<Box<dyn world::disk::Lock>, Refusal> {
    let dir = config.data_dir()?;
    RealDisk
        .create_dir_all_synced(dir)
        .map_err(|error| site::cannot_use(dir, &error))?;
    let path = dir.join(FIX_LOCK);
    RealDisk.lock(&path, &site::holder()).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            Refusal::new(format!("a fix is under way: {error}")).next("wait for it to end")
        } else {
            Refusal::new(format!("lock {}", path.display()))
                .source(error)
                .next("run `holdfast doctor` to check disk and permissions")
        }
    })
}

fn agreed() -> Result<bool, Refusal> {
    if !io::stdin().is_terminal() {
        return Err(
            Refusal::new("nobody is there to be asked").next("give --yes, or run it on a terminal")
        );
    }
    let mut err = anstream::stderr().lock();
    let asked = err
        .write_all(b"Apply this? [y/N] ")
        .and_then(|()| err.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Refusal::new("the terminal cannot be asked").source(error))?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn shown(rule: &Rule, host: &str, plan: &Plan, output: Output) -> Result<String, Refusal> {
    if output == Output::Json {
        return super::json(&serde_json::json!({
            "rule": rule.id,
            "host": host,
            "reason": plan.reason,
            "timed_rollback_seconds": plan.timer_seconds,
            "effects": plan.effects,
        }));
    }
    let mut text = format!(
        "{} on {}\n{}\nnow: {}\n",
        rule.id,
        safe(host),
        rule.fix.summary,
        safe(&plan.reason)
    );
    text.push_str(&difference(&plan.effects));
    if let Some(seconds) = plan.timer_seconds {
        text.push_str(&format!(
            "\nThis could cut off logins over the network: the host undoes it after {seconds} s, unless a \
             new connection was made.\n"
        ));
    }
    Ok(text)
}

/// A difference an object, then the commands.
fn difference(effects: &[Effect]) -> String {
    let mut text = String::new();
    for part in fix::shown(effects) {
        let subject = safe(&part.subject);
        if part.is_command {
            text.push_str(&format!("\n$ {subject}\n"));
            continue;
        }
        text.push_str(&format!("\n{subject}\n"));
        for line in part.lines {
            text.push_str(&format!("{}\n", safe(&line)));
        }
    }
    text
}

fn document(fix: &Fix) -> serde_json::Value {
    serde_json::json!({
        "id": fix.id(),
        "rule": fix.intent.rule,
        "rule_digest": fix.intent.rule_digest,
        "host": fix.intent.host,
        "begun": moment::rfc3339(Timestamp::from_nanos(fix.intent.begun)),
        "by": fix.intent.by,
        "state": fix.progress.phase.name(),
        "note": fix.progress.note,
        "effects": fix.intent.effects,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn refused(fault: Fault) -> Refusal {
    let next = match fault.kind {
        FaultKind::NotFixable => "`holdfast rules show RULE` says how a person mends it",
        FaultKind::Changed => "look at who changes it, then try again; nothing was touched",
        FaultKind::Unsafe => "nothing was touched; mend it by hand, or mend the place first",
        FaultKind::Refused => "nothing was touched; run it as root, and check the named object",
        FaultKind::Check => "nothing was touched",
        FaultKind::Busy => "run `holdfast fix recover` first",
        FaultKind::Record => "run `holdfast doctor` to check disk and data directory",
    };
    Refusal::new(fault.what).next(next)
}
