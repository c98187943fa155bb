//! Every session that the recovery log began ends in it once, or is open at the end of its primary's
//! life; what it held is let go of.

use std::collections::BTreeMap;

use replica::machine::{Line, SessionId};

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

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    stages: BTreeMap<(Host, SessionId), Stage>,
}

impl Sessions {
    pub(crate) fn told(&mut self, host: Host, line: &Line) -> Verdict {
        let Some(session) = line.session else {
            return Ok(());
        };
        let key = (host, session);
        let before = self.stages.get(&key).copied();
        let next = match (line.name, before) {
            ("session_created", None) => Stage::Open,
            ("completed", Some(Stage::Open)) => Stage::Completed,
            (
                "session_invalidated" | "session_superseded",
                Some(Stage::Open | Stage::Completed),
            ) => Stage::Invalidated,
            (
                "session_created" | "completed" | "session_invalidated" | "session_superseded",
                before,
            ) => {
                return Err(complaint(host, line, &format!("{before:?}")));
            }
            _ => return Ok(()),
        };
        self.stages.insert(key, next);
        Ok(())
    }

    /// The process ended: what was open ended with it.
    pub(crate) fn died(&mut self, host: Host) {
        self.stages.retain(|(of, _), _| *of != host);
    }
}

fn complaint(host: Host, line: &Line, before: &str) -> Breach {
    let words = format!(
        "node {host}: {line} of {:?}, which was {before}",
        line.session
    );
    Breach::new(Checker::Lines, words)
}
