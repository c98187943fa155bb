//! Who may do what: tokens, roles, and who the asker is.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use scan::token::{self, Role, Scope};
use serde::{Deserialize, Serialize};
use store::Transaction;
use utoipa::{ToSchema, openapi::path::HttpMethod};
use world::RealRandom;

use super::{
    super::{
        call::{Answer, Call, Problem},
        operation::{Operation, Reach},
    },
    NothingAsked,
};
use crate::view::{self, Moment};

/// Tokens by name; what they open is shown when they are made and never again.
#[derive(Serialize, ToSchema)]
struct TokenList {
    tokens: Vec<view::TokenRow>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RoleBody {
    Viewer,
    Auditor,
    Operator,
    Admin,
}

/// Which hosts a token is for; empty: everything.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ScopeBody {
    sites: BTreeSet<String>,
    groups: BTreeSet<String>,
    hosts: BTreeSet<String>,
}

/// A token to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    role: RoleBody,
    #[serde(default)]
    scope: ScopeBody,
    /// RFC 3339; it does not end by itself unless given.
    expires: Option<String>,
}

/// A token that was made. The text is shown this once.
#[derive(Serialize, ToSchema)]
struct TokenMade<'a> {
    token: &'a str,
    #[serde(flatten)]
    row: view::TokenRow,
}

/// What each role may do; each may do what the ones before it may.
#[derive(Serialize, ToSchema)]
struct RoleList {
    roles: Vec<RoleRow>,
}

#[derive(Serialize, ToSchema)]
struct RoleRow {
    role: &'static str,
    about: &'static str,
    /// Operations that it may do and the role before it may not.
    operations: Vec<&'static str>,
}

/// Who the asker is.
#[derive(Serialize, ToSchema)]
struct Whoami<'a> {
    name: &'a str,
    #[schema(value_type = String, example = "viewer")]
    role: Role,
    scope: view::ScopeView,
    expires: Option<Moment>,
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read("/api/v1/whoami", "whoAmI", whoami)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Whose token this is and what it may do",
            )
            .gives::<Whoami<'_>>(),
        Operation::read("/api/v1/roles", "listRoles", roles)
            .by(Role::Viewer, Reach::Hosts, "Roles and what each may do")
            .gives::<RoleList>(),
        Operation::read("/api/v1/openapi.json", "getOpenApi", openapi).by(
            Role::Viewer,
            Reach::Hosts,
            "This document",
        ),
        Operation::read("/metrics", "getMetrics", metrics).by(
            Role::Viewer,
            Reach::Site,
            "Counters and gauges, Prometheus' text format",
        ),
        Operation::read("/api/v1/tokens", "listTokens", list)
            .by(Role::Admin, Reach::Site, "Tokens by name, revoked ones too")
            .gives::<TokenList>(),
        Operation::change(HttpMethod::Post, "/api/v1/tokens", "makeToken", make)
            .by(
                Role::Admin,
                Reach::Site,
                "Make a token; its text is shown this once",
            )
            .takes::<NewToken>()
            .gives::<TokenMade<'_>>()
            .status(201),
        Operation::change(
            HttpMethod::Delete,
            "/api/v1/tokens/{token}",
            "revokeToken",
            revoke,
        )
        .by(
            Role::Admin,
            Reach::Site,
            "Revoke a token, from the next request on",
        )
        .gives::<view::TokenRow>(),
    ]
}

fn whoami(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let who = &call.principal;
    Answer::json(&Whoami {
        name: &who.name,
        role: who.role,
        scope: (&who.scope).into(),
        expires: who.expires.map(Moment::nanos),
    })
}

fn roles(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let operations = super::operations();
    let of = |role: Role| RoleRow {
        role: role.name(),
        about: role.about(),
        operations: operations
            .iter()
            .filter(|operation| operation.role == role)
            .map(|operation| operation.id)
            .collect(),
    };
    Answer::json(&RoleList {
        roles: Role::ALL.map(of).into(),
    })
}

fn openapi(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let mut answer = Answer::nothing();
    answer.status = StatusCode::OK;
    answer.body = super::super::openapi::document().into();
    Ok(answer)
}

fn metrics(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let mut answer = Answer::nothing();
    answer.status = StatusCode::OK;
    answer.media_type = "text/plain; version=0.0.4";
    answer.body = super::super::metrics::text(call)?.into();
    Ok(answer)
}

fn list(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let tokens = view::tokens(&call.reader())?;
    Answer::json(&TokenList { tokens })
}

fn make(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let asked: NewToken = call.json()?;
    let expires = asked.expires.as_deref();
    let expires = expires
        .map(|text| view::parse(text, call.now))
        .transpose()?;
    let request = token::Request {
        name: asked.name,
        role: match asked.role {
            RoleBody::Viewer => Role::Viewer,
            RoleBody::Auditor => Role::Auditor,
            RoleBody::Operator => Role::Operator,
            RoleBody::Admin => Role::Admin,
        },
        scope: Scope {
            sites: asked.scope.sites,
            groups: asked.scope.groups,
            hosts: asked.scope.hosts,
        },
        expires,
    };
    let tokens = &call.shared.tokens;
    let (token, text) =
        tokens.add_in(transaction, &request, &RealRandom, call.now, &call.actor())?;
    let made = TokenMade {
        token: &text,
        row: view::TokenRow::of(&token, None, call.now),
    };
    let mut answer = Answer::with(StatusCode::CREATED, &made)?;
    answer.is_secret = true;
    Ok(answer)
}

fn revoke(call: &Call, transaction: &mut Transaction) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let name = call.param("token");
    let tokens = &call.shared.tokens;
    let token = tokens.revoke_in(transaction, name, call.now, &call.actor())?;
    Answer::json(&view::TokenRow::of(&token, None, call.now))
}
