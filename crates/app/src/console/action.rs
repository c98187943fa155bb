//! What forms do. Each is what a command and the HTTP interface do too, with the token's name as actor.

use std::collections::{BTreeMap, BTreeSet};

use maud::Markup;
use scan::{
    alert::Alerts,
    inventory::{self, Host, Inventory, Reach},
    token::{Request as TokenRequest, Scope, Tokens},
    waiver::{Request, Target, Waivers},
};
use world::{RealRandom, Timestamp};

use super::{link::Link, page, visit::Visit};
use crate::{
    screen::Screen,
    server::{Principal, Shared},
    site,
    view::{self, Kind},
};

/// One form that somebody sent, who may send it.
pub(super) struct Act<'a> {
    pub(super) shared: &'a Shared,
    pub(super) principal: &'a Principal,
    pub(super) visit: &'a Visit<'a>,
    /// What in the address varies.
    pub(super) name: &'a str,
    pub(super) form: &'a BTreeMap<String, String>,
}

/// What the browser is shown then.
pub(super) enum After {
    /// Another page: a reload does nothing again.
    Go(Link),
    Show(Markup),
}

impl Act<'_> {
    fn text(&self, name: &str) -> &str {
        self.form.get(name).map_or("", |text| text.trim())
    }

    fn words(&self, name: &str) -> BTreeSet<String> {
        let words = self
            .text(name)
            .split([',', ' '])
            .filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    fn number<T: std::str::FromStr>(&self, what: &str) -> Result<T, view::Error> {
        self.name
            .parse()
            .map_err(|_| view::Error::missing(what, self.name))
    }

    fn now(&self) -> Timestamp {
        self.visit.now
    }

    fn actor(&self) -> String {
        self.principal.actor()
    }

    /// The last moment of a day, in UTC.
    fn end_of_day(&self, name: &str) -> Result<Option<Timestamp>, view::Error> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(None);
        }
        view::parse(&format!("{text}T23:59:59Z"), self.now()).map(Some)
    }

    /// What is not about hosts alone is for tokens that see everything.
    fn must_see_everything(&self) -> Result<(), view::Error> {
        if self.principal.scope.is_everything() {
            return Ok(());
        }
        let detail = "your token is for some hosts only, and this is not about one of them";
        Err(view::Error::new(Kind::Invalid, detail))
    }
}

pub(super) fn acknowledge(act: &Act<'_>) -> Result<After, view::Error> {
    let id = alert(act)?;
    book(act)?.acknowledge(id, act.text("why"), act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/alerts")))
}

pub(super) fn silence(act: &Act<'_>) -> Result<After, view::Error> {
    let id = alert(act)?;
    let span = crate::moment::parse_span(act.text("for"))
        .ok_or_else(|| view::Error::new(Kind::Invalid, "for how long is not said"))?;
    let until = act.now().plus(span);
    book(act)?.silence(id, until, act.text("why"), act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/alerts")))
}

pub(super) fn resolve(act: &Act<'_>) -> Result<After, view::Error> {
    let id = alert(act)?;
    book(act)?.resolve(id, act.text("why"), act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/alerts")))
}

fn book(act: &Act<'_>) -> Result<Alerts, view::Error> {
    Ok(Alerts::new(act.shared.store.clone())?)
}

/// An alert that these eyes may see.
fn alert(act: &Act<'_>) -> Result<u64, view::Error> {
    let id: u64 = act.number("alert")?;
    view::alert(&act.visit.reader, id, None)?;
    Ok(id)
}

fn waivers(act: &Act<'_>) -> Result<Waivers, view::Error> {
    Ok(Waivers::new(act.shared.store.clone())?)
}

pub(super) fn request_waiver(act: &Act<'_>) -> Result<After, view::Error> {
    let name = act.text("name").to_owned();
    let target = match act.text("target") {
        "group" => Target::Group(name),
        "site" => Target::Site(name),
        "tag" => Target::Tag(name),
        _ => Target::Host(name),
    };
    match &target {
        Target::Host(name) => drop(act.visit.reader.must_see(name)?),
        _ => act.must_see_everything()?,
    }
    let rule = act.text("rule").to_owned();
    if act.visit.reader.rules.get(&rule).is_none() {
        return Err(view::Error::missing("rule", &rule));
    }
    let expires = act.end_of_day("until")?;
    let request = Request {
        rule,
        target,
        owner: act.text("owner").to_owned(),
        reason: act.text("reason").to_owned(),
        expires: expires.ok_or_else(|| view::Error::new(Kind::Invalid, "a waiver needs an end"))?,
    };
    waivers(act)?.request(&request, act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/waivers")))
}

/// A waiver that these eyes may change.
fn waiver(act: &Act<'_>) -> Result<u32, view::Error> {
    let id: u32 = act.number("waiver")?;
    let (row, _) = view::waiver(&act.visit.reader, id)?;
    match row.target {
        "host" => drop(act.visit.reader.must_see(&row.name)?),
        _ => act.must_see_everything()?,
    }
    Ok(id)
}

pub(super) fn approve_waiver(act: &Act<'_>) -> Result<After, view::Error> {
    waivers(act)?.approve(waiver(act)?, act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/waivers")))
}

pub(super) fn revoke_waiver(act: &Act<'_>) -> Result<After, view::Error> {
    waivers(act)?.revoke(waiver(act)?, act.text("why"), act.now(), &act.actor())?;
    Ok(After::Go(Link::to("/waivers")))
}

fn inventory(act: &Act<'_>) -> Result<Inventory, view::Error> {
    Ok(Inventory::new(act.shared.store.clone())?)
}

pub(super) fn add_host(act: &Act<'_>) -> Result<After, view::Error> {
    let invalid = |detail: &str| view::Error::new(Kind::Invalid, detail);
    let optional = |name: &str| Some(act.text(name).to_owned()).filter(|text| !text.is_empty());
    let port = match act.text("port") {
        "" => inventory::PORT,
        text => text
            .parse()
            .map_err(|_| invalid("the port is no number from 1 to 65535"))?,
    };
    let reach = match act.text("address") {
        "" => Reach::Offline,
        address => Reach::Ssh {
            address: address.to_owned(),
            port,
            user: optional("user"),
        },
    };
    let host = Host {
        site: optional("site").unwrap_or_else(|| inventory::SITE.to_owned()),
        groups: act.words("groups"),
        tags: act.words("tags"),
        credential: optional("credential"),
        ..Host::new(act.text("name"), reach, act.now())
    };
    if !act.principal.scope.holds(&host) {
        return Err(invalid(
            "your token is for other hosts than this one would be",
        ));
    }
    // Naming a credential has it used on a machine of one's choice.
    if host.credential.is_some() {
        act.must_see_everything()?;
    }
    let (inventory, actor) = (inventory(act)?, act.actor());
    inventory.transact(|transaction| inventory.add_in(transaction, &host, &actor))?;
    site::changed(&act.shared.dir, Screen::silent());
    Ok(After::Go(Link::to("/hosts").segment(&host.name)))
}

pub(super) fn retire_host(act: &Act<'_>) -> Result<After, view::Error> {
    act.visit.reader.must_see(act.name)?;
    inventory(act)?.retire(act.name, act.now(), &act.actor())?;
    site::changed(&act.shared.dir, Screen::silent());
    Ok(After::Go(Link::to("/admin")))
}

pub(super) fn make_token(act: &Act<'_>) -> Result<After, view::Error> {
    act.must_see_everything()?;
    let role = act.text("role").parse()?;
    let request = TokenRequest {
        name: act.text("name").to_owned(),
        role,
        scope: Scope {
            sites: act.words("sites"),
            groups: act.words("groups"),
            hosts: act.words("hosts"),
        },
        expires: act.end_of_day("until")?,
    };
    let (tokens, actor) = (Tokens::new(act.shared.store.clone())?, act.actor());
    let made = act.shared.store.transact(|transaction| {
        let made = tokens.add_in(transaction, &request, &RealRandom, act.now(), &actor);
        made.map_err(view::Error::from)
    });
    let (token, text) = made?;
    Ok(After::Show(page::made(act.visit, &token.name, &text)?))
}

pub(super) fn revoke_token(act: &Act<'_>) -> Result<After, view::Error> {
    act.must_see_everything()?;
    let tokens = Tokens::new(act.shared.store.clone())?;
    act.shared.store.transact(|transaction| {
        let revoked = tokens.revoke_in(transaction, act.name, act.now(), &act.actor());
        revoked.map_err(view::Error::from)
    })?;
    Ok(After::Go(Link::to("/admin")))
}
