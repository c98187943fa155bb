//! The policy as a document: read with everything that is wrong, and written with its reasons.

use std::{fmt::Write as _, time::Duration};

use world::Timestamp;

use super::{
    Backoff, Bands, ComplianceState, HostKeyPolicy, Ladder, Policy, Version,
    envelope::{self, Envelope},
    key::{KeyId, PrivateKey, PublicKey},
    reader::{Reader, Section},
    refusal::{Reason, Refused},
    span,
};
use crate::rule::{Fault, fault::suggestion};

/// The one type of policy there is.
pub(super) const TYPE: &str = "schedule";
const FIELDS: [&str; 5] = ["type", "version", "metadata", "rules", "signature"];
const METADATA: [&str; 5] = [
    "description",
    "effective_from",
    "expires",
    "signed_by",
    "signed_at",
];
const RULES: [&str; 13] = [
    "ladder",
    "bands",
    "jitter_percent",
    "tick",
    "dispatch_max",
    "backoff",
    "lease",
    "job_expiry",
    "scan_deadline",
    "collector_deadline",
    "collector_bytes_max",
    "concurrency",
    "host_key_policy",
];

/// Who says so, and from when to when it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub description: String,
    /// Absent: at once.
    pub effective_from: Option<Timestamp>,
    /// The first moment at which it holds no more. Absent: for good.
    pub expires: Option<Timestamp>,
    pub signed_by: Option<String>,
    pub signed_at: Option<Timestamp>,
}

/// A document that says a policy. Its signature is not checked yet.
#[derive(Clone, Debug)]
pub struct Document {
    pub policy: Policy,
    pub metadata: Metadata,
    envelope: Envelope,
}

impl Document {
    /// Everything that is wrong with it at once. `file` is only named in faults.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Vec<Fault>> {
        let named = |faults: Vec<Fault>| -> Vec<Fault> {
            faults
                .into_iter()
                .map(|fault| fault.in_file(file))
                .collect()
        };
        let envelope = Envelope::parse(bytes).map_err(|fault| named(vec![fault]))?;
        let mut reader = Reader::default();
        let (policy, metadata) = decode(&envelope, &mut reader);
        if reader.faults.is_empty() {
            Ok(Self {
                policy,
                metadata,
                envelope,
            })
        } else {
            Err(named(reader.faults))
        }
    }

    /// As it was read, with its signature.
    pub fn text(&self) -> &str {
        &self.envelope.text
    }

    /// As it was read, without its signature: what is edited and signed again.
    pub fn unsigned(&self) -> String {
        envelope::without_signature(self.text())
    }

    pub fn sha256(&self) -> String {
        self.envelope.sha256()
    }

    /// The key that signed it, when it is trusted and the signature fits.
    pub fn verify(&self, trusted: impl Fn(&KeyId) -> Option<PublicKey>) -> Result<KeyId, Refused> {
        self.envelope.verify(trusted)
    }

    /// Refused before it holds, and from the moment on at which it does no more.
    pub fn must_hold(&self, now: Timestamp) -> Result<(), Refused> {
        let moment = |at: Timestamp| {
            jiff::Timestamp::from_nanosecond(i128::from(at.nanos()))
                .map_or_else(|_| at.nanos().to_string(), |at| at.to_string())
        };
        if let Some(from) = self.metadata.effective_from.filter(|from| now < *from) {
            return Err(Refused::new(
                Reason::NotYetEffective,
                format!(
                    "policy {} holds from {} on",
                    self.policy.version,
                    moment(from)
                ),
                "load it then, or sign one that holds already",
            ));
        }
        if let Some(expires) = self.metadata.expires.filter(|expires| *expires <= now) {
            return Err(Refused::new(
                Reason::Expired,
                format!(
                    "policy {} held until {}",
                    self.policy.version,
                    moment(expires)
                ),
                "sign one with a later `expires` and load it with `holdfast policy reload FILE`",
            ));
        }
        Ok(())
    }
}

/// `text` signed by `key`. The document must be one that says a policy.
pub fn sign(
    text: &str,
    file: &str,
    key: &PrivateKey,
    signed_by: &str,
    signed_at: Timestamp,
) -> Result<String, Vec<Fault>> {
    Document::parse(text.as_bytes(), file)?;
    envelope::sign(text, key, signed_by, &rfc3339(signed_at))
        .map_err(|fault| vec![fault.in_file(file)])
}

pub(super) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.nanos()))
        .expect("64 bits of nanoseconds end in 2554, jiff in 9999")
        .to_string()
}

/// The type, for whoever must know which of two documents this is; other faults are told elsewhere.
pub fn type_of(bytes: &[u8]) -> Option<String> {
    let envelope = Envelope::parse(bytes).ok()?;
    let section = Reader::default().section(Some(&envelope.root), "the document", &FIELDS);
    let text = section.get("type")?.text("`type`").ok()?;
    Some(text.to_owned())
}

pub(super) fn check_type(
    reader: &mut Reader,
    document: &Section<'_>,
    wanted: &str,
    known: &[&str],
) {
    let Some(node) = reader.need(document, "type") else {
        return;
    };
    match node.text("`type`") {
        Err(fault) => reader.fault(fault),
        Ok(text) if text == wanted => {}
        Ok(text) => reader.fault(
            Fault::at(node.at, format!("the type is `{text}`, wanted `{wanted}`"))
                .next(suggestion(text, known)),
        ),
    }
}

fn decode(envelope: &Envelope, reader: &mut Reader) -> (Policy, Metadata) {
    let document = reader.section(Some(&envelope.root), "the document", &FIELDS);
    check_type(reader, &document, TYPE, &[TYPE]);
    let mut policy = Policy::default();
    if let Some(node) = reader.need(&document, "version") {
        match node.text("`version`").map(str::parse::<Version>) {
            Err(_) | Ok(Err(_)) => reader.fault(
                Fault::at(node.at, "`version` is not three numbers joined by dots")
                    .next("write it in quotes, as \"1.4.0\""),
            ),
            Ok(Ok(version)) => policy.version = version,
        }
    }
    let metadata = reader.need(&document, "metadata");
    let metadata = reader.section(metadata, "`metadata`", &METADATA);
    let metadata = decode_metadata(reader, &metadata);
    let rules = reader.need(&document, "rules");
    let rules = reader.section(rules, "`rules`", &RULES);
    decode_rules(reader, &rules, &mut policy);
    (policy, metadata)
}

fn decode_metadata(reader: &mut Reader, section: &Section<'_>) -> Metadata {
    let description = reader.need(section, "description");
    let metadata = Metadata {
        description: reader.words(description, "description").unwrap_or_default(),
        effective_from: reader.moment(section.get("effective_from"), "effective_from"),
        expires: reader.moment(section.get("expires"), "expires"),
        signed_by: reader.words(section.get("signed_by"), "signed_by"),
        signed_at: reader.moment(section.get("signed_at"), "signed_at"),
    };
    if let (Some(from), Some(expires), Some(node)) = (
        metadata.effective_from,
        metadata.expires,
        section.get("expires"),
    ) && expires <= from
    {
        reader.fault(Fault::at(
            node.at,
            "`expires` is not after `effective_from`",
        ));
    }
    metadata
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Bounds are wide: they refuse what cannot be meant (a tick of a week, a lease of a second), not
/// what is unusual.
fn decode_rules(reader: &mut Reader, rules: &Section<'_>, policy: &mut Policy) {
    let day = 86_400;
    decode_ladder(reader, rules, policy);
    decode_bands(reader, rules, policy);
    let was = policy.clone();
    policy.jitter_percent = reader.number_in(rules, "jitter_percent", 0..=50, was.jitter_percent);
    policy.tick = reader.span_in(rules, "tick", seconds(1)..=seconds(3600), was.tick);
    policy.dispatch_max = reader.number_in(rules, "dispatch_max", 1..=10_000, was.dispatch_max);
    policy.lease = reader.span_in(rules, "lease", seconds(30)..=seconds(day), was.lease);
    policy.job_expiry = reader.span_in(
        rules,
        "job_expiry",
        seconds(60)..=seconds(2 * day),
        was.job_expiry,
    );
    policy.scan_deadline = reader.span_in(
        rules,
        "scan_deadline",
        seconds(1)..=seconds(12 * 3600),
        was.scan_deadline,
    );
    policy.collector_deadline = reader.span_in(
        rules,
        "collector_deadline",
        seconds(1)..=seconds(12 * 3600),
        // A shorter scan without a word on its collectors gives them all of its time.
        was.collector_deadline.min(policy.scan_deadline),
    );
    policy.collector_bytes_max = reader.number_in(
        rules,
        "collector_bytes_max",
        64 * 1024..=256 * 1024 * 1024,
        was.collector_bytes_max,
    );
    policy.concurrency = reader.number_in(rules, "concurrency", 1..=10_000, was.concurrency);
    let keys = HostKeyPolicy::ALL.map(|policy| (policy.name(), policy));
    policy.host_key_policy = reader.one_of(rules, "host_key_policy", &keys, was.host_key_policy);
    let backoff = reader.section(rules.get("backoff"), "`backoff`", &["failures", "ceiling"]);
    policy.backoff = Backoff {
        failures: reader.number_in(&backoff, "failures", 1..=100, was.backoff.failures),
        ceiling: reader.span_in(
            &backoff,
            "ceiling",
            super::INTERVAL_MIN..=seconds(day),
            was.backoff.ceiling,
        ),
    };
    check_order(reader, rules, policy);
}

/// What must be longer than what.
fn check_order(reader: &mut Reader, rules: &Section<'_>, policy: &Policy) {
    let place = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| rules.get(name))
            .map_or(crate::rule::Place::default(), |node| node.at)
    };
    if policy.collector_deadline > policy.scan_deadline {
        reader.fault(
            Fault::at(
                place(["collector_deadline", "scan_deadline"]),
                "`collector_deadline` is longer than `scan_deadline`",
            )
            .next("a scan ends with its own deadline"),
        );
    }
    if policy.lease <= policy.scan_deadline {
        reader.fault(
            Fault::at(
                place(["lease", "scan_deadline"]),
                "`lease` is not longer than `scan_deadline`",
            )
            .next("another worker would take the job of one that is still scanning"),
        );
    }
}

/// A ladder replaces the default one as a whole: a tier that it leaves out has the longest interval.
fn decode_ladder(reader: &mut Reader, rules: &Section<'_>, policy: &mut Policy) {
    let Some(node) = rules.get("ladder") else {
        return;
    };
    let known = ComplianceState::ALL.map(ComplianceState::name);
    let section = reader.section(Some(node), "`ladder`", &known);
    let mut tiers = Vec::new();
    for (key, value) in section.entries() {
        let tier = ComplianceState::ALL
            .into_iter()
            .find(|state| state.name() == key.name);
        if let (Some(tier), Some(interval)) = (tier, reader.span(value, &key.name)) {
            tiers.push((tier, interval));
        }
    }
    (policy.ladder, policy.clamps) = Ladder::clamped(tiers);
}

fn decode_bands(reader: &mut Reader, rules: &Section<'_>, policy: &mut Policy) {
    let names = ["compliant", "partial", "non_compliant"];
    let section = reader.section(rules.get("bands"), "`bands`", &names);
    let was = policy.bands;
    policy.bands = Bands {
        compliant: reader.number_in(&section, names[0], 1..=100, was.compliant),
        partial: reader.number_in(&section, names[1], 1..=100, was.partial),
        non_compliant: reader.number_in(&section, names[2], 1..=100, was.non_compliant),
    };
    let Bands {
        compliant,
        partial,
        non_compliant,
    } = policy.bands;
    if let Some(node) = rules.get("bands")
        && !(compliant > partial && partial > non_compliant)
    {
        reader.fault(
            Fault::at(
                node.at,
                "the bands do not fall from `compliant` to `non_compliant`",
            )
            .next("for example 100, 80, 50"),
        );
    }
}

/// The document that says `policy`, unsigned. What it says reads back as the same policy.
pub fn render(policy: &Policy, metadata: &Metadata) -> String {
    let mut text = String::new();
    let mut line = |content: std::fmt::Arguments<'_>| {
        writeln!(text, "{content}").expect("writing to a string cannot fail");
    };
    line(format_args!("type: {TYPE}"));
    line(format_args!(
        "# Raise it before signing again: a reload takes only a higher one."
    ));
    line(format_args!("version: \"{}\"", policy.version));
    line(format_args!("metadata:"));
    line(format_args!(
        "  description: {}",
        serde_json::Value::from(metadata.description.as_str())
    ));
    for (name, at) in [
        ("effective_from", metadata.effective_from),
        ("expires", metadata.expires),
    ] {
        if let Some(at) = at {
            line(format_args!("  {name}: \"{}\"", rfc3339(at)));
        }
    }
    line(format_args!("rules:"));
    line(format_args!(
        "  # Time between two scans of a host, by its state; from 5m to 48h, 48h for one left out."
    ));
    line(format_args!("  ladder:"));
    for (tier, interval) in policy.ladder.tiers() {
        line(format_args!("    {tier}: {}", span::words(interval)));
    }
    line(format_args!(
        "  # Lowest score in percent; below all of them, or with a critical finding, a host is critical."
    ));
    let bands = policy.bands;
    line(format_args!(
        "  bands:\n    compliant: {}\n    partial: {}\n    non_compliant: {}",
        bands.compliant, bands.partial, bands.non_compliant
    ));
    text.push_str(&render_limits(policy));
    text
}

fn render_limits(policy: &Policy) -> String {
    let rows = [
        (
            "Percent of the interval by which the next scan is moved at random.",
            format!("jitter_percent: {}", policy.jitter_percent),
        ),
        (
            "Time between two looks at what is due, and most hosts taken in one.",
            format!(
                "tick: {}\n  dispatch_max: {}",
                span::words(policy.tick),
                policy.dispatch_max
            ),
        ),
        (
            "Failures in a row from which on attempts are put off, and for how long at most.",
            format!(
                "backoff:\n    failures: {}\n    ceiling: {}",
                policy.backoff.failures,
                span::words(policy.backoff.ceiling)
            ),
        ),
        (
            "How long a worker has a job (longer than scan_deadline), and how long one may wait.",
            format!(
                "lease: {}\n  job_expiry: {}",
                span::words(policy.lease),
                span::words(policy.job_expiry)
            ),
        ),
        (
            "What a scan may cost: time in all, time and bytes of one collector.",
            format!(
                "scan_deadline: {}\n  collector_deadline: {}\n  collector_bytes_max: {}",
                span::words(policy.scan_deadline),
                span::words(policy.collector_deadline),
                policy.collector_bytes_max
            ),
        ),
        (
            "Scans at once.",
            format!("concurrency: {}", policy.concurrency),
        ),
        (
            "require_known, or tofu: remember the first key that a host shows.",
            format!("host_key_policy: {}", policy.host_key_policy.name()),
        ),
    ];
    rows.iter()
        .map(|(why, row)| format!("  # {why}\n  {row}\n"))
        .collect()
}
