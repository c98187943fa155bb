//! The table of operations: what can be asked, by whom, with what, and what does it.

use scan::token::Role;
use store::Transaction;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        RefOr,
        path::{HttpMethod, Parameter, ParameterIn},
        schema::Schema,
    },
};

use super::call::{Answer, Call, Problem};

/// Longest body of an operation. A policy or a page of hosts is some tens of kilobytes.
pub(super) const BODY_LEN_MAX: usize = 1 << 20;

/// Which tokens an operation is for, beside their role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It looks at the hosts of the token's scope and no others.
    Hosts,
    /// It is about the whole site: a token of a few hosts is refused.
    Site,
}

/// What carries an operation out.
#[derive(Clone, Copy)]
pub(super) enum Does {
    Read(fn(&Call) -> Result<Answer, Problem>),
    /// In one transaction, with the audit record and the remembered answer.
    Change(fn(&Call, &mut Transaction) -> Result<Answer, Problem>),
    /// In transactions of its own; asked for again it comes to the same.
    Act(fn(&Call) -> Result<Answer, Problem>),
    /// Changes as they come, until one side ends it.
    Follow,
    /// What is recorded, in a format of others.
    Export,
    /// Served by the events plane.
    Events,
    /// A command of the command line, by a process of its own.
    Carry,
}

pub(super) type SchemaOf = (
    fn() -> RefOr<Schema>,
    fn(&mut Vec<(String, RefOr<Schema>)>),
    fn() -> std::borrow::Cow<'static, str>,
);

/// One operation.
pub(super) struct Operation {
    pub(super) method: HttpMethod,
    /// As the router and OpenAPI write it.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) role: Role,
    pub(super) reach: Reach,
    pub(super) does: Does,
    pub(super) asks: fn() -> Vec<Parameter>,
    pub(super) takes: Option<SchemaOf>,
    pub(super) gives: Option<SchemaOf>,
    /// Status of success.
    pub(super) status: u16,
    /// It shows or changes a row that has a version: `ETag`, `If-Match`.
    pub(super) has_version: bool,
    /// Its answer is of the store, the rules and the moment alone: one that was made is given again.
    pub(super) is_kept: bool,
}

fn schema_of<T: ToSchema>() -> SchemaOf {
    (T::schema, T::schemas, T::name)
}

impl Operation {
    fn new(method: HttpMethod, path: &'static str, id: &'static str, does: Does) -> Self {
        Self {
            method,
            path,
            id,
            about: "",
            role: Role::Admin,
            reach: Reach::Site,
            does,
            asks: Vec::new,
            takes: None,
            gives: None,
            status: 200,
            has_version: false,
            is_kept: false,
        }
    }

    pub(super) fn read(
        path: &'static str,
        id: &'static str,
        does: fn(&Call) -> Result<Answer, Problem>,
    ) -> Self {
        Self::new(HttpMethod::Get, path, id, Does::Read(does))
    }

    pub(super) fn change(
        method: HttpMethod,
        path: &'static str,
        id: &'static str,
        does: fn(&Call, &mut Transaction) -> Result<Answer, Problem>,
    ) -> Self {
        Self::new(method, path, id, Does::Change(does))
    }

    pub(super) fn act(
        path: &'static str,
        id: &'static str,
        does: fn(&Call) -> Result<Answer, Problem>,
    ) -> Self {
        Self::new(HttpMethod::Post, path, id, Does::Act(does))
    }

    pub(super) fn follow(path: &'static str, id: &'static str) -> Self {
        Self::new(HttpMethod::Get, path, id, Does::Follow)
    }

    pub(super) fn export(path: &'static str, id: &'static str) -> Self {
        Self::new(HttpMethod::Get, path, id, Does::Export)
    }

    pub(super) fn events(method: HttpMethod, path: &'static str, id: &'static str) -> Self {
        Self::new(method, path, id, Does::Events)
    }

    pub(super) fn carry(path: &'static str, id: &'static str) -> Self {
        Self::new(HttpMethod::Post, path, id, Does::Carry)
    }

    /// Who may do it, and what it is, in a sentence.
    pub(super) fn by(mut self, role: Role, reach: Reach, about: &'static str) -> Self {
        self.role = role;
        self.reach = reach;
        self.about = about;
        self
    }

    pub(super) fn asks<T: IntoParams>(mut self) -> Self {
        self.asks = || T::into_params(|| Some(ParameterIn::Query));
        self
    }

    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        self.takes = Some(schema_of::<T>());
        self
    }

    pub(super) fn gives<T: ToSchema>(mut self) -> Self {
        self.gives = Some(schema_of::<T>());
        self
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn versioned(mut self) -> Self {
        self.has_version = true;
        self
    }

    pub(super) fn kept(mut self) -> Self {
        self.is_kept = true;
        self
    }

    /// The names in the path, in their order.
    pub(super) fn params(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| {
            part.strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
        })
    }

    pub(super) fn changes_something(&self) -> bool {
        self.method != HttpMethod::Get
    }
}
