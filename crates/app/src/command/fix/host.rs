//! Fixes of a host of the inventory, over SSH.

use std::{slice, sync::Arc};

use scan::{
    failure::Failure,
    fix::{self, Line, RemoteHands},
    fleet::{Access, ask},
    inventory::Host,
    rule::Rule,
};
use world::RealClock;

use super::{agreed, apply, hold, refused, shown, tell_unfinished};
use crate::{
    cli::fix as cli,
    config::Config,
    exit::{Exit, Refusal},
    fleet,
    present::safe,
    screen::Screen,
    site::{Site, fleet_refused, must_exist},
};

pub(super) fn one(
    asked: &cli::Fix,
    name: &str,
    rule: &Rule,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let host = known(name, config, screen)?;
    let _alone = if asked.apply {
        Some(hold(config)?)
    } else {
        None
    };
    tell_unfinished(config, screen)?;
    let (line, rules) = reach(host, slice::from_ref(rule).into(), config)?;
    let rule = &rules[0];
    let mut hands = RemoteHands::new(Arc::clone(&line));
    let facts = line.facts(rule).map_err(refused)?;
    let plan = fix::plan(rule, &facts, &mut hands).map_err(refused)?;
    // A person may think for longer than a session lasts.
    hands.hang_up();
    screen.result(&shown(rule, name, &plan, config.output.value)?)?;
    if !asked.apply {
        screen
            .remark("Nothing was changed. `--apply` does it, judges again, and undoes what fails.");
        return Ok(Exit::Clean);
    }
    if !asked.yes && !agreed()? {
        screen.remark("Nothing was changed.");
        return Ok(Exit::Clean);
    }
    let mut afresh = || line.facts(rule);
    let there = (&mut hands as _, &mut afresh as _);
    apply(rule, name, "/", &plan, there, config, screen)
}

/// The hands of the host that a fix on record is of, once it let us in.
pub(super) fn hands(name: &str, config: &Config, screen: Screen) -> Result<RemoteHands, Refusal> {
    let host = known(name, config, screen)?;
    let (line, _) = reach(host, Arc::new([]), config)?;
    Ok(RemoteHands::new(line))
}

fn known(name: &str, config: &Config, screen: Screen) -> Result<Host, Refusal> {
    let unknown = || {
        let text = format!("the inventory has no host `{}`", safe(name));
        Refusal::new(text)
            .next("`holdfast host list` prints every host, `holdfast host add` adds one")
    };
    must_exist(config.data_dir()?, "").map_err(|_| unknown())?;
    let site = Site::open_fleet(config, screen)?;
    let host = site.inventory().and_then(|inventory| {
        let host = inventory.get(name).map_err(fleet_refused)?;
        host.ok_or_else(unknown)
    });
    site.close(screen);
    host
}

/// The way to the host, seen to lead to a shell of root, and the rules as they are for it.
fn reach(
    host: Host,
    rules: Arc<[Rule]>,
    config: &Config,
) -> Result<(Arc<Line>, Arc<[Rule]>), Refusal> {
    let access: Arc<dyn Access> = fleet::gate(config)?;
    let later = Arc::clone(&access);
    let name = host.name.clone();
    let (way, rules) = ask(access.as_ref(), move |opened| {
        let rules = opened
            .rules(&rules, &host)
            .map_err(|error| error.to_string())?;
        Ok((opened.way(&host, &later), rules))
    })
    .map_err(Refusal::new)?;
    let unreached = |failure: &Failure| {
        Refusal::new(format!("{}: {failure}", safe(&name)))
            .next(fleet::next_step(failure.reason, &name))
    };
    way.ready().map_err(|failure| unreached(&failure))?;
    let ssh = way.ssh().ok_or_else(|| {
        Refusal::new(format!("host `{}` is not reached over SSH", safe(&name)))
            .next("run `holdfast fix` without --host on that machine")
    })?;
    let clock = Arc::new(RealClock::new());
    let line = Line::new(&name, ssh.clone(), clock, Arc::new(()));
    match line.try_out().map_err(|failure| unreached(&failure))? {
        Ok(()) => Ok((Arc::new(line), rules)),
        Err(why) => Err(Refusal::new(format!(
            "host `{}`: a fix needs the rights of root there: {}",
            safe(&name),
            safe(&why)
        ))
        .next("let its user use sudo, and say so: `holdfast credential rotate NAME --sudo HOW`")),
    }
}
