//! `holdfast waiver`: who asked, who agreed, until when.

use scan::waiver::{self, Error, Request, Standing, Waiver, Waivers};
use serde_json::{Value, json};
use world::Timestamp;

use crate::{
    cli::{
        Output,
        waiver::{Action, Add, List, Target},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, table},
    remote::carried,
    ruleset::Ruleset,
    screen::Screen,
    site::{self, Site},
};

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let now = super::now();
    match action {
        Action::Add(add) => {
            let request = request(add, config)?;
            let waiver = with_waivers(config, screen, |waivers| {
                waivers.request(&request, now, &super::actor())
            })?;
            screen.remark(format_args!(
                "waiver {} is requested; it holds once somebody other than {} approves it: `holdfast waiver approve {} --by NAME`",
                waiver.id, waiver.owner, waiver.id
            ));
        }
        Action::Approve { id, by } => {
            let by = answerable(by.by.as_deref());
            let waiver = with_waivers(config, screen, |waivers| waivers.approve(*id, now, &by))?;
            screen.remark(format_args!(
                "waiver {id} holds until {}; the verdict stays what it is",
                moment::local(Timestamp::from_nanos(waiver.expires))
            ));
        }
        Action::Revoke { id, reason, by } => {
            let by = answerable(by.by.as_deref());
            with_waivers(config, screen, |waivers| {
                waivers.revoke(*id, reason, now, &by)
            })?;
            screen.remark(format_args!("waiver {id} is revoked"));
        }
        Action::List(asked) => return list(asked, config, screen),
    }
    site::changed(config.data_dir()?, screen);
    Ok(Exit::Clean)
}

/// Whoever asks from elsewhere has shown a token, and answers by its name whatever is typed.
fn answerable(typed: Option<&str>) -> String {
    match (carried::actor(), typed) {
        (None, Some(typed)) => typed.to_owned(),
        _ => super::actor(),
    }
}

fn with_waivers<T>(
    config: &Config,
    screen: Screen,
    work: impl FnOnce(&Waivers) -> Result<T, Error>,
) -> Result<T, Refusal> {
    let site = Site::open(config, screen)?;
    let done = Waivers::new(site.store().clone()).and_then(|waivers| work(&waivers));
    site.close(screen);
    done.map_err(|error| Refusal::new(error.detail).next(error.next))
}

fn request(add: &Add, config: &Config) -> Result<Request, Refusal> {
    // A waiver of a misspelt rule would look like one that holds.
    let rules = Ruleset::known(config);
    super::variable::known(&rules, &add.rule)?;
    Ok(Request {
        rule: add.rule.clone(),
        target: target(&add.target)?,
        owner: add.owner.clone(),
        reason: add.reason.clone(),
        expires: until(&add.until)?,
    })
}

fn target(asked: &Target) -> Result<waiver::Target, Refusal> {
    type Kind = fn(String) -> waiver::Target;
    let kinds: [(&Option<String>, Kind); 4] = [
        (&asked.host, waiver::Target::Host),
        (&asked.group, waiver::Target::Group),
        (&asked.site, waiver::Target::Site),
        (&asked.tag, waiver::Target::Tag),
    ];
    kinds
        .into_iter()
        .find_map(|(name, kind)| name.clone().map(kind))
        .ok_or_else(|| Refusal::new("the waiver is for nobody").next("name a host with --host"))
}

/// A span is from now on, since a waiver that ended before is none.
fn until(text: &str) -> Result<Timestamp, Refusal> {
    match moment::parse_span(text) {
        Some(span) => Ok(super::now().plus(span)),
        None => super::moment(text),
    }
}

fn list(asked: &List, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let at = asked.at.as_deref().map(super::moment).transpose()?;
    let at = at.unwrap_or_else(super::now);
    let all = with_waivers(config, screen, Waivers::list)?;
    let shown: Vec<(&Waiver, Standing)> = all
        .iter()
        .filter_map(|waiver| Some((waiver, waiver.standing(at)?)))
        .filter(|(_, standing)| {
            asked.all || matches!(standing, Standing::Requested | Standing::Approved)
        })
        .collect();
    let text = match config.output.value {
        Output::Table => table::rows(
            [
                "ID",
                "STANDING",
                "RULE",
                "FOR",
                "OWNER",
                "APPROVED BY",
                "UNTIL",
                "REASON",
            ],
            shown
                .iter()
                .map(|(waiver, standing)| cells(waiver, *standing, at, moment::local)),
        ),
        Output::Csv => csv::lines(
            [
                "id",
                "standing",
                "rule",
                "for",
                "owner",
                "approved_by",
                "until",
                "reason",
            ],
            shown
                .iter()
                .map(|(waiver, standing)| cells(waiver, *standing, at, moment::rfc3339)),
        ),
        Output::Json => {
            let rows: Vec<Value> = shown
                .iter()
                .map(|(waiver, standing)| document(waiver, *standing))
                .collect();
            super::json(&rows)?
        }
    };
    screen.result(&text)?;
    if !asked.all && shown.len() < all.len() {
        screen.remark("revoked and expired ones are shown with --all");
    }
    Ok(Exit::Clean)
}

fn cells(
    waiver: &Waiver,
    standing: Standing,
    at: Timestamp,
    time: fn(Timestamp) -> String,
) -> [String; 8] {
    let approved = waiver
        .approved
        .as_ref()
        .filter(|step| step.at <= at.nanos());
    [
        waiver.id.to_string(),
        standing.name().to_owned(),
        waiver.rule.clone(),
        waiver.target.to_string(),
        waiver.owner.clone(),
        approved.map_or_else(String::new, |step| step.by.clone()),
        time(Timestamp::from_nanos(waiver.expires)),
        waiver.reason.clone(),
    ]
}

fn document(waiver: &Waiver, standing: Standing) -> Value {
    let step = |step: Option<&waiver::Step>| {
        step.map(|step| {
            json!({
                "at": moment::rfc3339(Timestamp::from_nanos(step.at)),
                "by": step.by,
                "reason": step.reason,
            })
        })
    };
    json!({
        "id": waiver.id,
        "standing": standing,
        "rule": waiver.rule,
        "for": waiver.target.to_string(),
        "owner": waiver.owner,
        "reason": waiver.reason,
        "expires": moment::rfc3339(Timestamp::from_nanos(waiver.expires)),
        "requested": step(Some(&waiver.requested)),
        "approved": step(waiver.approved.as_ref()),
        "revoked": step(waiver.revoked.as_ref()),
    })
}
