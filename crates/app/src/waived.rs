//! Waivers beside the verdicts of one host: they add to what is shown and change none of it.

use scan::{
    fleet::Opened,
    inventory::{Host, Inventory},
    judge::{self, Outcome},
    waiver::{self, Waiver, Waivers},
};
use world::Timestamp;

use crate::{
    document::{Report, WaiverRow, WithWaivers},
    exit::Refusal,
    moment,
    site::Site,
};

/// What may be shown beside the verdicts of a host at a moment.
pub(crate) struct Waived {
    waivers: Vec<Waiver>,
    /// The host in the inventory as it was then.
    labels: Option<Host>,
    at: Timestamp,
}

impl Waived {
    /// As they are at `now`, or were at a past moment.
    pub(crate) fn of(
        site: &Site,
        host: &str,
        at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let waivers = Waivers::new(site.store().clone())
            .and_then(|waivers| waivers.list())
            .map_err(|error| Refusal::new(error.detail).next(error.next))?;
        let labels = Inventory::new(site.store().clone())
            .and_then(|inventory| match at {
                None => inventory.get(host),
                Some(_) => {
                    let hosts = inventory.list(at)?;
                    Ok(hosts.into_iter().find(|known| known.name == host))
                }
            })
            .map_err(|error| {
                Refusal::new(error.to_string()).next("run `holdfast doctor` to check the record")
            })?;
        Ok(Self {
            waivers,
            labels,
            at: at.unwrap_or(now),
        })
    }

    /// As they are at `now`, for a host of the fleet, with the directory open for a moment.
    pub(crate) fn in_slice(
        opened: &dyn Opened,
        host: &str,
        now: Timestamp,
    ) -> Result<Self, String> {
        Ok(Self {
            waivers: opened.waivers()?,
            labels: opened.host(host).ok(),
            at: now,
        })
    }

    pub(crate) fn row(&self, rule: &str, host: &str, verdict: Outcome) -> Option<WaiverRow> {
        if verdict != Outcome::Fail {
            return None;
        }
        let labels = self.labels.as_ref();
        let waiver = waiver::beside(&self.waivers, rule, host, labels, self.at)?;
        Some(WaiverRow {
            id: waiver.id,
            until: moment::rfc3339(Timestamp::from_nanos(waiver.expires)),
            owner: waiver.owner.clone(),
            approved_by: waiver
                .approved
                .as_ref()
                .map(|step| step.by.clone())
                .unwrap_or_default(),
            reason: waiver.reason.clone(),
        })
    }

    /// Puts them beside the verdicts. The summary stays; what it would be without the failures that
    /// are waived stands beside it.
    pub(crate) fn beside(&self, report: &mut Report) {
        for row in &mut report.verdicts {
            row.waiver = self.row(&row.rule, &report.host, row.verdict);
        }
        let counted = report.verdicts.iter().filter(|row| row.waiver.is_none());
        let score = judge::Summary::of(counted.map(|row| row.verdict)).score;
        let waived = report.verdicts.iter().filter(|row| row.waiver.is_some());
        report.with_waivers = match u64::try_from(waived.count()) {
            Ok(0) | Err(_) => None,
            Ok(waived) => Some(WithWaivers { waived, score }),
        };
    }
}

/// `waived until 2026-03-01 by anna: replaced in March`.
pub(crate) fn words(waiver: &WaiverRow) -> String {
    let until = waiver.until.get(..10).unwrap_or(&waiver.until);
    format!(
        "waived until {until} by {}: {}",
        waiver.owner, waiver.reason
    )
}
