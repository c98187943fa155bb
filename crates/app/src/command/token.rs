//! `holdfast token`: made, listed, revoked.

use scan::token::{Request, Role, Scope, Token, Tokens};
use world::{RealRandom, Timestamp};
use zeroize::Zeroizing;

use crate::{
    cli::{
        Output,
        token::{self, Action, Add},
    },
    config::Config,
    exit::{Exit, Refusal},
    moment,
    present::{csv, table},
    screen::Screen,
    site::{Site, fleet_refused},
};

pub(crate) fn run(action: &Action, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let site = Site::open(config, screen)?;
    let done = match action {
        Action::Add(asked) => add(&site, asked, config, screen),
        Action::List => list(&site, config, screen),
        Action::Revoke { name } => revoke(&site, name, screen),
    };
    site.close(screen);
    done
}

fn tokens(site: &Site) -> Result<Tokens, Refusal> {
    Tokens::new(site.store().clone()).map_err(fleet_refused)
}

fn add(site: &Site, asked: &Add, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let now = super::now();
    let expires = asked.expires.as_deref().map(|text| {
        let span = moment::parse_span(text).filter(|span| !span.is_zero());
        span.map(|span| now.plus(span)).ok_or_else(|| {
            Refusal::new(format!("`{text}` is not a length of time")).next("write 90d or 12h")
        })
    });
    let named = |names: &[String]| names.iter().cloned().collect();
    let request = Request {
        name: asked.name.clone(),
        role: match asked.role {
            token::Role::Viewer => Role::Viewer,
            token::Role::Auditor => Role::Auditor,
            token::Role::Operator => Role::Operator,
            token::Role::Admin => Role::Admin,
        },
        scope: Scope {
            sites: named(&asked.site),
            groups: named(&asked.group),
            hosts: named(&asked.host),
        },
        expires: expires.transpose()?,
    };
    let tokens = tokens(site)?;
    let actor = super::actor();
    let (made, text) = site.store().transact(|transaction| {
        let made = tokens.add_in(transaction, &request, &RealRandom, now, &actor);
        made.map_err(fleet_refused)
    })?;
    let shown = match config.output.value {
        Output::Json => Zeroizing::new(super::json(&serde_json::json!({
            "name": made.name,
            "role": made.role,
            "token": *text,
        }))?),
        Output::Csv | Output::Table => text,
    };
    screen.result(&shown)?;
    screen.remark("keep it as a password is kept: it is not shown again");
    Ok(Exit::Clean)
}

fn list(site: &Site, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    let all = tokens(site)?.list().map_err(fleet_refused)?;
    let now = super::now();
    let columns = [
        "name",
        "role",
        "standing",
        "scope",
        "made",
        "expires",
        "last_used",
    ];
    let rows = |time: fn(Timestamp) -> String| {
        let all = all.iter();
        all.map(move |(token, used)| cells(token, *used, now, time))
            .collect::<Vec<_>>()
    };
    let text = match config.output.value {
        Output::Json => {
            let documents: Vec<_> = rows(moment::rfc3339)
                .into_iter()
                .map(|cells| {
                    columns
                        .into_iter()
                        .zip(cells)
                        .collect::<std::collections::BTreeMap<_, _>>()
                })
                .collect();
            super::json(&serde_json::json!({ "tokens": documents }))?
        }
        Output::Csv => csv::lines(columns, rows(moment::rfc3339)),
        Output::Table if all.is_empty() => {
            "no token was made; `holdfast up` makes the first, `holdfast token add NAME` another\n"
                .to_owned()
        }
        Output::Table => table::rows(
            [
                "NAME",
                "ROLE",
                "STANDING",
                "ONLY FOR",
                "MADE",
                "ENDS",
                "LAST USED",
            ],
            rows(moment::local),
        ),
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn cells(
    token: &Token,
    used: Option<u64>,
    now: Timestamp,
    time: fn(Timestamp) -> String,
) -> [String; 7] {
    let at = |nanos: Option<u64>| {
        nanos.map_or_else(String::new, |nanos| time(Timestamp::from_nanos(nanos)))
    };
    let scope = &token.scope;
    let named = |what: &str, names: &std::collections::BTreeSet<String>| {
        names
            .iter()
            .map(|name| format!("{what} {name}"))
            .collect::<Vec<_>>()
    };
    let scope = [
        named("site", &scope.sites),
        named("group", &scope.groups),
        named("host", &scope.hosts),
    ];
    [
        token.name.clone(),
        token.role.name().to_owned(),
        token.standing(now).name().to_owned(),
        scope.concat().join(", "),
        at(Some(token.made)),
        at(token.expires),
        at(used),
    ]
}

fn revoke(site: &Site, name: &str, screen: Screen) -> Result<Exit, Refusal> {
    let tokens = tokens(site)?;
    let (now, actor) = (super::now(), super::actor());
    let revoked = site.store().transact(|transaction| {
        let revoked = tokens.revoke_in(transaction, name, now, &actor);
        revoked.map_err(|error| {
            Refusal::new(error.to_string()).next("`holdfast token list` prints the names")
        })
    })?;
    screen.remark(format_args!(
        "token {} opens nothing any more",
        revoked.name
    ));
    Ok(Exit::Clean)
}
