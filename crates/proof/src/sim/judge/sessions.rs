//! The recovery log explains what happens: a session begins in it once, has its plan there before anything
//! is done by it, and ends once; a node that begins to write or stops says why first; a promotion takes
//! the steps there are.

use std::collections::BTreeMap;

use replica::machine::{Body, Line, Role, SessionId};

use crate::sim::{
    breach::{Breach, Checker, Verdict},
    net::Host,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Completed,
    Invalidated,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    stage: Stage,
    plan: Option<&'static str>,
    has_source: bool,
}

/// What the log says of a node's own part, since the last time that it was asked.
#[derive(Debug, Default)]
struct Own {
    is_primary: bool,
    /// Why it begins to write, or stops.
    reason: Option<&'static str>,
    /// The last line of each promotion that is under way, by its id.
    promotions: BTreeMap<String, &'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<(Host, SessionId), Session>,
    own: BTreeMap<Host, Own>,
}

/// The steps of a promotion that there are, by the lines that tell of them (AUT-4, AUT-13).
const STEPS: [(&str, &str); 13] = [
    ("", "requested"),
    ("requested", "refused"),
    ("requested", "validation_started"),
    ("validation_started", "validation_failed"),
    ("validation_started", "validation_succeeded"),
    ("validation_succeeded", "transition_started"),
    ("validation_succeeded", "overtaken"),
    ("transition_started", "transition_completed"),
    ("transition_started", "transition_failed"),
    ("transition_completed", "completed"),
    ("validation_failed", "denied"),
    ("overtaken", "denied"),
    ("transition_failed", "denied"),
];

const ENDS: [&str; 3] = ["refused", "denied", "completed"];

impl Sessions {
    pub(crate) fn told(&mut self, host: Host, line: &Line) -> Verdict {
        let own = self.own.entry(host).or_default();
        match line.name {
            "primary" | "stepped_down" => own.reason = Some(line.name),
            name if name.starts_with("promotion.aborted") => {}
            name if name.starts_with("promotion.") => return own.step(host, line),
            _ => {}
        }
        let Some(id) = line.session else {
            return Ok(());
        };
        let key = (host, id);
        let known = self.sessions.get_mut(&key);
        let before = known.as_ref().map(|session| session.stage);
        let stage = match (line.name, before) {
            ("session_created", None) => {
                let session = Session {
                    stage: Stage::Open,
                    plan: None,
                    has_source: false,
                };
                self.sessions.insert(key, session);
                return Ok(());
            }
            ("completed", Some(Stage::Open)) => Stage::Completed,
            (
                "session_invalidated" | "session_superseded",
                Some(Stage::Open | Stage::Completed),
            ) => Stage::Invalidated,
            (
                "session_created" | "completed" | "session_invalidated" | "session_superseded",
                before,
            ) => {
                let words = format!("node {host}: {line} of {id:?}, which was {before:?}");
                return Err(Breach::new(Checker::Lines, words));
            }
            _ => {
                if let Some(session) = known {
                    session.has_source |= line.name.starts_with("source_");
                    let plan = line.name.starts_with("plan_").then_some(line.name);
                    session.plan = plan.or(session.plan);
                }
                return Ok(());
            }
        };
        if let Some(session) = known {
            session.stage = stage;
        }
        Ok(())
    }

    /// What a session does is planned, and the log has the plan.
    pub(crate) fn sent(&self, host: Host, body: &Body) -> Verdict {
        let Some((id, _)) = body.session() else {
            return Ok(());
        };
        let session = self.sessions.get(&(host, id));
        let plan = session.and_then(|session| session.plan);
        let has_source = session.is_some_and(|session| session.has_source);
        let is_explained = match body {
            Body::Truncate { .. } => plan == Some("plan_truncate"),
            Body::BaseBegin { .. } => plan == Some("plan_rebuild") && has_source,
            Body::Entries { .. } | Body::Rebuilt { .. } => plan.is_some(),
            _ => true,
        };
        if is_explained {
            return Ok(());
        }
        let words = format!("node {host} sends {body:?}, and its log says {plan:?}");
        Err(Breach::new(Checker::Lines, words))
    }

    /// A node begins to write, or stops.
    pub(crate) fn role(&mut self, host: Host, role: Role) -> Verdict {
        let own = self.own.entry(host).or_default();
        let is_primary = matches!(role, Role::Primary { .. });
        let expected = match (own.is_primary, is_primary) {
            (_, true) => Some("primary"),
            (true, false) => Some("stepped_down"),
            (false, false) => None,
        };
        own.is_primary = is_primary;
        let told = own.reason.take();
        if expected.is_none() || told == expected {
            return Ok(());
        }
        let words = format!("node {host} is {role:?}, and its log says {told:?}");
        Err(Breach::new(Checker::Lines, words))
    }

    /// The process ended: what was open ended with it.
    pub(crate) fn died(&mut self, host: Host) {
        self.sessions.retain(|(of, _), _| *of != host);
        self.own.remove(&host);
    }
}

impl Own {
    fn step(&mut self, host: Host, line: &Line) -> Verdict {
        let name = line.name.trim_start_matches("promotion.");
        let id = line.cause.rsplit(" id ").next().unwrap_or_default();
        let id = id.chars().take_while(char::is_ascii_hexdigit).collect();
        let before = self.promotions.remove(&id).unwrap_or_default();
        if !STEPS.contains(&(before, name)) {
            let words = format!("node {host}: {line} after {before:?}");
            return Err(Breach::new(Checker::Lines, words));
        }
        if !ENDS.contains(&name) {
            self.promotions.insert(id, name);
        }
        Ok(())
    }
}
