//! What was recorded: changes, history, differences, evidence, the audit log, the journal.

use scan::{export::Format, token::Role};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        call::{Answer, Call, Problem},
        export::ExportAsked,
        operation::{Operation, Reach},
    },
    NothingAsked,
};
use crate::view::{self, Moment};

/// Rules that differ between two moments.
#[derive(Serialize, ToSchema)]
struct Diff {
    differences: Vec<view::Difference>,
}

/// What the store keeps and how it is doing.
#[derive(Serialize, ToSchema)]
struct JournalView {
    /// The oldest moment that can be asked for.
    from: Moment,
    /// Of the newest record.
    to: Moment,
    position: u64,
    commits: u64,
    conflicts: u64,
    journal_bytes_since_checkpoint: u64,
}

/// Formats by name.
#[derive(Serialize, ToSchema)]
struct Formats {
    formats: Vec<FormatRow>,
}

#[derive(Serialize, ToSchema)]
struct FormatRow {
    format: &'static str,
    about: &'static str,
    media_type: &'static str,
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::read("/api/v1/changes", "listChanges", changes)
            .by(Role::Viewer, Reach::Hosts, "What changed, over all hosts")
            .asks::<view::ChangesAsked>()
            .gives::<view::ChangePage>(),
        Operation::follow("/api/v1/changes/stream", "followChanges").by(
            Role::Viewer,
            Reach::Hosts,
            "Changes as they come, as server-sent events",
        ),
        Operation::read("/api/v1/hosts/{host}/history/{rule}", "getHistory", history)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Every change of one rule on one host, oldest first",
            )
            .asks::<view::HistoryAsked>()
            .gives::<view::ChangePage>(),
        Operation::read("/api/v1/diff", "getDiff", diff)
            .by(
                Role::Viewer,
                Reach::Hosts,
                "Rules of one host that differ between two moments",
            )
            .asks::<view::DiffAsked>()
            .gives::<Diff>(),
        Operation::read("/api/v1/evidence/{sha256}", "getEvidence", evidence)
            .by(
                Role::Viewer,
                Reach::Site,
                "The facts that a verdict rests on",
            )
            .gives::<view::Evidence>(),
        Operation::read("/api/v1/exports", "listFormats", formats)
            .by(
                Role::Auditor,
                Reach::Site,
                "Formats that the record can be taken away in",
            )
            .gives::<Formats>(),
        Operation::export("/api/v1/exports/{format}", "exportRecord")
            .by(
                Role::Auditor,
                Reach::Site,
                "What is recorded, in a format that others read",
            )
            .asks::<ExportAsked>(),
        Operation::read("/api/v1/audit", "listAudit", audit)
            .by(
                Role::Auditor,
                Reach::Site,
                "Who did what to what, the newest first",
            )
            .asks::<view::AuditAsked>()
            .gives::<view::AuditPage>(),
        Operation::read("/api/v1/ledger/statements", "listStatements", statements)
            .by(
                Role::Auditor,
                Reach::Site,
                "Signed statements over where all chains stand, the newest first",
            )
            .asks::<view::StatementsAsked>()
            .gives::<view::StatementPage>(),
        Operation::read(
            "/api/v1/ledger/statements/{sequence}",
            "getStatement",
            statement,
        )
        .by(Role::Auditor, Reach::Site, "One signed statement")
        .gives::<view::StatementRow>(),
        Operation::read("/api/v1/journal", "getJournal", journal)
            .by(
                Role::Auditor,
                Reach::Site,
                "What the store keeps and how it is doing",
            )
            .gives::<JournalView>(),
    ]
}

fn changes(call: &Call) -> Result<Answer, Problem> {
    let asked: view::ChangesAsked = call.query()?;
    Answer::json(&view::changes(&call.reader(), &asked)?)
}

fn history(call: &Call) -> Result<Answer, Problem> {
    let asked: view::HistoryAsked = call.query()?;
    let (host, rule) = (call.param("host"), call.param("rule"));
    Answer::json(&view::history(&call.reader(), host, rule, &asked)?)
}

fn diff(call: &Call) -> Result<Answer, Problem> {
    let asked: view::DiffAsked = call.query()?;
    let differences = view::diff(&call.reader(), &asked)?;
    Answer::json(&Diff { differences })
}

fn evidence(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    Answer::json(&view::evidence(&call.reader(), call.param("sha256"))?)
}

fn audit(call: &Call) -> Result<Answer, Problem> {
    let asked: view::AuditAsked = call.query()?;
    Answer::json(&view::audit(&call.reader(), &asked)?)
}

fn statements(call: &Call) -> Result<Answer, Problem> {
    let asked: view::StatementsAsked = call.query()?;
    Answer::json(&view::statements(&call.reader(), &asked)?)
}

fn statement(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    Answer::json(&view::statement(&call.reader(), call.param("sequence"))?)
}

fn journal(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let stats = call.shared.store.stats();
    Answer::json(&JournalView {
        from: Moment(stats.retained.from.time),
        to: Moment(stats.retained.to.time),
        position: stats.retained.to.lsn.get(),
        commits: stats.commits,
        conflicts: stats.conflicts,
        journal_bytes_since_checkpoint: stats.journal_bytes_since_checkpoint,
    })
}

fn formats(call: &Call) -> Result<Answer, Problem> {
    let NothingAsked {} = call.query()?;
    let row = |format: Format| FormatRow {
        format: format.name(),
        about: format.title(),
        media_type: format.media_type(),
    };
    Answer::json(&Formats {
        formats: Format::ALL.map(row).into(),
    })
}
