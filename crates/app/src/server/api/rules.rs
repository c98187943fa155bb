//! Rules, values of their variables, and waivers of their failures.

use axum::http::StatusCode;
use scan::{
    token::Role,
    variable::{Scope, Setting, Settings},
    waiver::{Request, Standing, Target, Waiver},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Transaction;
use utoipa::{ToSchema, openapi::path::HttpMethod};

use super::{
    super::{
        call::{Answer, Call, Problem, tag_of_row},
        operation::{Operation, Reach},
    },
    AtAsked, NothingAsked,
};
use crate::view::{self, Error};

/// Every rule that is judged by.
#[derive(Serialize, ToSchema)]
struct RuleList {
    rules: Vec<view::RuleRow>,
}

/// Waivers by id, ended ones too.
#[derive(Serialize, ToSchema)]
struct WaiverList {
    waivers: Vec<view::WaiverRow>,
}

/// Values that the site gave to variables of rules.
#[derive(Serialize, ToSchema)]
struct SettingList {
    variables: Vec<view::SettingRow>,
}

/// Whom a waiver is for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WaiverFor {
    Host,
    Group,
    Site,
    Tag,
}

/// A waiver that is asked for; somebody else approves it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWaiver {
    rule: String,
    target: WaiverFor,
    /// Of the host, group, site or tag.
    name: String,
    /// Who answers for the failure while it is waived.
    owner: String,
    reason: String,
    /// RFC 3339, at most 366 days ahead.
    expires: String,
}

/// Why it ends before its time.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: String,
}

/// Where a value holds, the nearest to a host first.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Where {
    #[default]
    Everywhere,
    Site,
    Group,
    Host,
}

/// A value of a variable.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewValue {
    #[serde(default)]
    scope: Where,
    /// Which site, group or host; left out for everywhere.
    of: Option<String>,
    #[schema(value_type = Value)]
    value: Value,
}

/// Which value.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WhereAsked {
    /// `everywhere` (the default), `site`, `group` or `host`.
    #[param(value_type = Option<String>)]
    scope: Option<Where>,
    of: Option<String>,
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn operations() -> Vec<Operation> {
    let value = "/api/v1/variables/{rule}/{variable}";
    vec![
        Operation::read("/api/v1/rules", "listRules", rules)
            .by(Role::Viewer, Reach::Hosts, "Every rule that is judged by")
            .gives::<RuleList>(),
        Operation::read("/api/v1/rules/{rule}", "getRule", rule)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "One rule and where it fails, now or at a moment",
            )
            .asks::<AtAsked>()
            .gives::<view::RuleView>(),
        Operation::read("/api/v1/waivers", "listWaivers", waivers)
            .by(Role::Viewer, Reach::Site, "Waivers, now or at a moment")
            .asks::<AtAsked>()
            .gives::<WaiverList>(),
        Operation::read("/api/v1/waivers/{id}", "getWaiver", waiver)
            .by(Role::Viewer, Reach::Site, "One waiver, with its version")
            .gives::<view::WaiverRow>()
            .versioned(),
        Operation::change(
            HttpMethod::Post,
            "/api/v1/waivers",
            "requestWaiver",
            request,
        )
        .by(
            Role::Operator,
            Reach::Site,
            "Ask for a waiver; it holds once somebody else approved it",
        )
        .takes::<NewWaiver>()
        .gives::<view::WaiverRow>()
        .status(201),
        Operation::change(
            HttpMethod::Post,
            "/api/v1/waivers/{id}/approve",
            "approveWaiver",
            approve,
        )
        .by(
            Role::Operator,
            Reach::Site,
            "Approve a waiver that somebody else asked for",
        )
        .gives::<view::WaiverRow>()
        .versioned(),
        Operation::change(
            HttpMethod::Post,
            "/api/v1/waivers/{id}/revoke",
            "revokeWaiver",
            revoke,
        )
        .by(Role::Operator, Reach::Site, "End a waiver before its time")
        .takes::<Why>()
        .gives::<view::WaiverRow>()
        .versioned(),
        Operation::read("/api/v1/variables", "listVariables", settings)
            .by(
                Role::Viewer,
                Reach::Site,
                "Values that the site gave to variables of rules",
            )
            .gives::<SettingList>(),
        Operation::change(HttpMethod::Put, value, "setVariable", set)
            .by(
                Role::Operator,
                Reach::Site,
                "Give a value to a variable of a rule",
            )
            .takes::<NewValue>()
            .gives::<view::SettingRow>()
            .versioned(),
        Operation::change(HttpMethod::Delete, value, "unsetVariable", unset)
            .by(
                Role::Operator,
                Reach::Site,
                "Take a value back: what is further off, or the default, holds",
            )
            .asks::<WhereAsked>()
            .status(204)
            .versioned(),
    ]
}

fn rules(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let rules = view::rules(&call.reader());
    Answer::json(&RuleList { rules })
}

fn rule(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    let at = call.at(asked.at.as_ref())?;
    Answer::json(&view::rule(&call.reader(), call.param("rule"), at)?)
}

fn waivers(call: &Call) -> Result<Answer, Problem> {
    let asked: AtAsked = call.query()?;
    let waivers = view::waivers(&call.reader(), call.at(asked.at.as_ref())?)?;
    Answer::json(&WaiverList { waivers })
}

fn id(call: &Call) -> Result<u32, Problem> {
    let text = call.param("id");
    let id = text.parse().map_err(|_| Error::missing("waiver", text))?;
    Ok(id)
}

fn waiver(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let (row, waiver) = view::waiver(&call.reader(), id(call)?)?;
    Ok(Answer::json(&row)?.tagged(tag_of_row(&waiver)))
}

fn shown(call: &Call, status: StatusCode, waiver: &Waiver) -> Result<Answer, Problem> {
    let standing = waiver.standing(call.now).unwrap_or(Standing::Requested);
    let answer = Answer::with(status, &view::WaiverRow::of(waiver, standing))?;
    Ok(answer
        .tagged(tag_of_row(waiver))
        .at(format!("/api/v1/waivers/{}", waiver.id)))
}

fn request(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewWaiver = call.json()?;
    if call.shared.rules.get(&asked.rule).is_none() {
        return Err(Error::missing("rule", &asked.rule).into());
    }
    let request = Request {
        rule: asked.rule,
        target: match asked.target {
            WaiverFor::Host => Target::Host(asked.name),
            WaiverFor::Group => Target::Group(asked.name),
            WaiverFor::Site => Target::Site(asked.name),
            WaiverFor::Tag => Target::Tag(asked.name),
        },
        owner: asked.owner,
        reason: asked.reason,
        expires: view::parse(&asked.expires, call.now)?,
    };
    let waivers = call.reader().waivers()?;
    let waiver = waivers.request_in(transaction, &request, call.now, &call.actor())?;
    shown(call, StatusCode::CREATED, &waiver)
}

/// The waiver as the asker saw it.
fn seen(call: &Call, transaction: &mut Transaction) -> Result<u32, Problem> {
    let id = id(call)?;
    if let Some(waiver) = call.reader().waivers()?.get_in(transaction, id)? {
        call.must_match(&tag_of_row(&waiver))?;
    }
    Ok(id)
}

fn approve(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let id = seen(call, transaction)?;
    let waivers = call.reader().waivers()?;
    let waiver = waivers.approve_in(transaction, id, call.now, &call.actor())?;
    shown(call, StatusCode::OK, &waiver)
}

fn revoke(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let Why { reason } = call.json()?;
    let id = seen(call, transaction)?;
    let waivers = call.reader().waivers()?;
    let waiver = waivers.revoke_in(transaction, id, &reason, call.now, &call.actor())?;
    shown(call, StatusCode::OK, &waiver)
}

fn settings(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let variables = view::settings(&call.reader())?;
    Answer::json(&SettingList { variables })
}

fn scope(scope: Where, of: Option<String>) -> Result<Scope, Problem> {
    match (scope, of) {
        (Where::Everywhere, None) => Ok(Scope::Everywhere),
        (Where::Site, Some(of)) => Ok(Scope::Site(of)),
        (Where::Group, Some(of)) => Ok(Scope::Group(of)),
        (Where::Host, Some(of)) => Ok(Scope::Host(of)),
        _ => Err(Problem::invalid(
            "`of` names the site, group or host, and nothing for everywhere",
        )),
    }
}

fn setting(call: &Call, scope: Scope, value: Value) -> Setting {
    Setting {
        rule: call.param("rule").to_owned(),
        variable: call.param("variable").to_owned(),
        scope,
        value,
        set_at: call.now.nanos(),
        set_by: call.actor(),
    }
}

/// Refuses where the value is not as the asker saw it.
fn must_match(
    call: &Call,
    settings: &Settings,
    transaction: &mut Transaction,
    setting: &Setting,
) -> Result<(), Problem> {
    let tag = match settings.find_in(transaction, setting)? {
        Some(found) => tag_of_row(&found),
        None => "\"unset\"".to_owned(),
    };
    call.must_match(&tag)
}

fn set(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewValue = call.json()?;
    let id = call.param("rule");
    let rule = call
        .shared
        .rules
        .get(id)
        .ok_or_else(|| Error::missing("rule", id))?;
    let setting = setting(call, scope(asked.scope, asked.of)?, asked.value);
    let settings = Settings::new(call.shared.store.clone())?;
    must_match(call, &settings, transaction, &setting)?;
    settings.set_in(transaction, rule, &setting)?;
    Ok(Answer::json(&view::SettingRow::from(&setting))?.tagged(tag_of_row(&setting)))
}

fn unset(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let asked: WhereAsked = call.query()?;
    let setting = setting(
        call,
        scope(asked.scope.unwrap_or_default(), asked.of)?,
        Value::Null,
    );
    let settings = Settings::new(call.shared.store.clone())?;
    must_match(call, &settings, transaction, &setting)?;
    if !settings.unset_in(transaction, &setting)? {
        return Err(Error::missing("value of that variable", &setting.variable).into());
    }
    Ok(Answer::nothing())
}
