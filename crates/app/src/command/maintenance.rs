//! `holdfast maintenance`: hosts that are left alone for a while.

use scan::backend::{Backend, Maintenance, Scope};
use world::Timestamp;

use super::schedule::{local, refused, rfc3339, with_backend};
use crate::{
    cli::{
        Output,
        schedule::{MaintenanceAction, Set, Which},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, safe, table},
    screen::Screen,
    site,
};

pub(crate) fn run(
    action: &MaintenanceAction,
    config: &Config,
    screen: Screen,
) -> Result<Exit, Refusal> {
    match action {
        MaintenanceAction::Set(asked) => set(asked, config, screen),
        MaintenanceAction::Clear(which) => clear(which, config, screen),
        MaintenanceAction::List => list(config, screen),
    }
}

fn set(asked: &Set, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let now = super::now();
    let until = until(asked, now)?;
    let maintenance = Maintenance {
        scope: scope(&asked.which)?,
        since: now.nanos(),
        until: until.map(Timestamp::nanos),
        by: super::actor(),
        reason: asked.reason.clone(),
    };
    let is_empty = with_backend(config, screen, |backend| {
        let set = backend.set_maintenance(&maintenance, now, &maintenance.by);
        set.map_err(refused)?;
        let rows = backend.schedule().map_err(refused)?;
        Ok(!rows.iter().any(|row| maintenance.blocks(row, now)))
    })?;
    site::changed(config.data_dir()?, screen);
    if is_empty {
        screen.remark(format_args!(
            "no host is meant by {} so far",
            safe(&maintenance.scope.to_string())
        ));
    }
    print(&[maintenance], config, screen)
}

fn until(asked: &Set, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    if let Some(text) = &asked.span {
        let span = moment::parse_span(text).filter(|span| !span.is_zero());
        let span = span.ok_or_else(|| {
            Refusal::new(format!("`{text}` is not a length of time")).next("write 90m, 2h or 3d")
        })?;
        return Ok(Some(now.plus(span)));
    }
    let Some(text) = &asked.until else {
        return Ok(None);
    };
    let until = super::moment(text)?;
    if until <= now {
        return Err(Refusal::new(format!("`{text}` is over already"))
            .next("name a moment to come, or a length of time with --for"));
    }
    Ok(Some(until))
}

fn clear(which: &Which, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let scope = scope(which)?;
    with_backend(config, screen, |backend| {
        let cleared = backend.clear_maintenance(&scope, super::now(), &super::actor());
        if cleared.map_err(refused)? {
            return Ok(());
        }
        Err(Refusal::new(format!("no maintenance is set for {scope}"))
            .next("`holdfast maintenance list` prints what is"))
    })?;
    site::changed(config.data_dir()?, screen);
    screen.remark(format_args!(
        "maintenance of {} has ended",
        safe(&scope.to_string())
    ));
    Ok(Exit::Clean)
}

fn list(config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let now = super::now();
    let mut found = with_backend(config, screen, |backend| {
        backend.maintenances().map_err(refused)
    })?;
    found.retain(|maintenance| !maintenance.ended(now));
    print(&found, config, screen)
}

fn scope(which: &Which) -> Result<Scope, Refusal> {
    match (&which.host, &which.group, &which.site) {
        (Some(host), None, None) => Ok(Scope::Host(host.clone())),
        (None, Some(group), None) => Ok(Scope::Group(group.clone())),
        (None, None, Some(site)) => Ok(Scope::Site(site.clone())),
        _ => Err(Refusal::new("one of --host, --group and --site").next("name one")),
    }
}

fn print(found: &[Maintenance], config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let cells = |maintenance: &Maintenance, time: fn(u64) -> String, endless: &str| {
        let (scope, name) = maintenance.scope.parts();
        [
            scope.to_owned(),
            name.to_owned(),
            time(maintenance.since),
            maintenance.until.map_or_else(|| endless.to_owned(), time),
            maintenance.by.clone(),
            maintenance.reason.clone(),
        ]
    };
    let text = match config.output.value {
        Output::Json => super::json(&serde_json::json!({
            "maintenance": found.iter().map(|it| serde_json::json!({
                "scope": it.scope.parts().0,
                "name": it.scope.parts().1,
                "since": rfc3339(it.since),
                "until": it.until.map(rfc3339),
                "by": it.by,
                "reason": it.reason,
            })).collect::<Vec<_>>(),
        }))?,
        Output::Csv => csv::lines(
            ["scope", "name", "since", "until", "by", "reason"],
            found.iter().map(|it| cells(it, rfc3339, "")),
        ),
        Output::Table if found.is_empty() => "no host is in maintenance\n".to_owned(),
        Output::Table => table::rows(
            ["SCOPE", "NAME", "SINCE", "UNTIL", "BY", "REASON"],
            found.iter().map(|it| cells(it, local, "cleared")),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}
