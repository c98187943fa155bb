//! Whether a rule is for this host: the system that os-release names, or the one it is built to be.
//!
//! Rebuilds of Red Hat Enterprise Linux count as the release they rebuild, by what they declare
//! themselves: `PLATFORM_ID=platform:el9`, or where that is absent `rhel` in `ID_LIKE` and the same
//! major version. Every verdict that rests on this says so. Other derivatives count as nothing:
//! an Ubuntu is no Debian, and what rebuilds Ubuntu is not known to keep its paths.

use super::{Outcome, explain, truth::Truth};
use crate::{
    facts::{Facts, Reason},
    judge::{evidence::Shown, trace::Evaluation},
    rule::{Found, KNOWN_PLATFORMS, Platform, Rule, Selector, wording},
};

/// The family whose rebuilds declare what they rebuild.
const REBUILT: &str = "rhel";

/// The known platform that this host is or counts as.
pub fn known_platform(facts: &Facts) -> Option<&'static str> {
    let system = System::of(facts);
    KNOWN_PLATFORMS.into_iter().find(|name| {
        let platform = name.split_once('-').map(|(id, version)| Platform {
            id: id.to_owned(),
            version: version.to_owned(),
        });
        platform.is_some_and(|platform| {
            system.is(&platform) == Truth::True
                || (platform.id == REBUILT && system.rebuilds(&platform.version) == Truth::True)
        })
    })
}

/// What decides whether a rule is for this host at all.
pub(super) struct System<'f> {
    id: Found<'f>,
    version: Found<'f>,
    id_like: Found<'f>,
    platform_id: Found<'f>,
}

/// How a host comes to be of a rule's platform.
pub(super) enum Membership<'r> {
    /// By its own name and version.
    Named,
    /// By what it declares to be a rebuild of; to be said with the verdict.
    Counted(&'r Platform),
    /// Not at all, or nobody knows: the outcome.
    Outside(Outcome),
}

impl<'f> System<'f> {
    pub(super) fn of(facts: &'f Facts) -> Self {
        let find = |text: &str| {
            Selector::parse(text)
                .expect("the constant is a selector")
                .find(&facts.facts, None)
        };
        Self {
            id: find("os.id"),
            version: find("os.version_id"),
            id_like: find("os.id_like"),
            platform_id: find("os.platform_id"),
        }
    }

    /// What decided is recorded unless the host is named by the rule.
    pub(super) fn membership<'a>(
        &'a self,
        rule: &'a Rule,
        evaluation: &mut Evaluation<'a>,
    ) -> Membership<'a> {
        let mut truth = Truth::False;
        for platform in &rule.platforms {
            match self.is(platform) {
                Truth::True => return Membership::Named,
                other => truth = truth.or(other),
            }
        }
        evaluation.record("os.id", Shown::found(&self.id));
        let counted = rule.platforms.iter().find(|platform| {
            platform.id == REBUILT && self.rebuilds(&platform.version) == Truth::True
        });
        if let Some(platform) = counted {
            evaluation.record("os.platform_id", Shown::found(&self.platform_id));
            evaluation.record("os.id_like", Shown::found(&self.id_like));
            return Membership::Counted(platform);
        }
        evaluation.record("os.version_id", Shown::found(&self.version));
        let truth = rule
            .platforms
            .iter()
            .filter(|platform| platform.id == REBUILT)
            .fold(truth, |truth, platform| {
                truth.or(self.rebuilds(&platform.version))
            });
        Membership::Outside(match truth {
            Truth::False => Outcome::NotApplicable,
            Truth::Unknown => Outcome::NotAssessed,
            Truth::True | Truth::Error => Outcome::Error,
        })
    }

    /// To be said with the verdict of a host that counts as `platform`.
    pub(super) fn counted_words(&self, platform: &Platform) -> String {
        format!("{} counts as {platform}", word(&self.id))
    }

    fn is(&self, platform: &Platform) -> Truth {
        let id = text_is(&self.id, |id| id == platform.id);
        id.and(self.version_is(&platform.version))
    }

    fn version_is(&self, wanted: &str) -> Truth {
        text_is(&self.version, |version| {
            version == wanted
                || version
                    .split_once('.')
                    .is_some_and(|(major, _)| major == wanted)
        })
    }

    /// `PLATFORM_ID` decides where it is given: it names the release itself, while the version of
    /// a rebuild may count something else.
    fn rebuilds(&self, release: &str) -> Truth {
        if matches!(self.platform_id, Found::Absent) {
            let like = text_is(&self.id_like, |list| {
                list.split_ascii_whitespace().any(|id| id == REBUILT)
            });
            return like.and(self.version_is(release));
        }
        text_is(&self.platform_id, |id| {
            id.strip_prefix("platform:el") == Some(release)
        })
    }

    /// Why a host outside of the rule's platforms has this outcome, and for `not_assessed` the code.
    pub(super) fn outside_words(&self, rule: &Rule, outcome: Outcome) -> (String, Option<Reason>) {
        if outcome == Outcome::NotApplicable {
            let names: Vec<String> = rule.platforms.iter().map(Platform::to_string).collect();
            let reason = format!(
                "the rule is for {}; this host is {} {}",
                names.join(", "),
                word(&self.id),
                word(&self.version),
            );
            return (reason, None);
        }
        let unknown = [&self.id, &self.version, &self.platform_id, &self.id_like]
            .into_iter()
            .find_map(explain::unknown_of);
        match unknown {
            Some(unknown) => (explain::unknown_words(&unknown), Some(unknown.reason)),
            None => ("the system's id or version is not text".to_owned(), None),
        }
    }
}

fn word(found: &Found<'_>) -> String {
    match found {
        Found::Present(value) => wording::value(value),
        _ => "unknown".to_owned(),
    }
}

fn text_is(found: &Found<'_>, holds: impl FnOnce(&str) -> bool) -> Truth {
    match found {
        Found::Present(value) => value
            .as_str()
            .map_or(Truth::Error, |text| holds(text).into()),
        Found::Absent => Truth::False,
        Found::Unknown(_) => Truth::Unknown,
        Found::Malformed(_) => Truth::Error,
    }
}
