//! What a fix would change, for people: one part an effect, files line by line.

use super::{Access, Effect, Object, State};

/// One effect as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The object, or the command line of something that is run.
    pub subject: String,
    /// Lines that begin with `-`, `+` or a space. Empty for a command.
    pub lines: Vec<String>,
    pub is_command: bool,
}

/// Every effect, in order.
pub fn shown(effects: &[Effect]) -> Vec<Shown> {
    effects.iter().map(one).collect()
}

fn one(effect: &Effect) -> Shown {
    match effect {
        Effect::Run(action) => Shown {
            subject: action.command(),
            lines: Vec::new(),
            is_command: true,
        },
        Effect::Keep { object, before } => Shown {
            subject: object.to_string(),
            lines: vec![format!(
                "  {} (the kernel may change it along; captured)",
                state(object, before).join(" ")
            )],
            is_command: false,
        },
        Effect::Hold { object, before } => Shown {
            subject: object.to_string(),
            lines: vec![format!("  {} (stays so)", state(object, before).join(" "))],
            is_command: false,
        },
        Effect::Set {
            object,
            before,
            after,
        } => Shown {
            subject: object.to_string(),
            lines: lines(&state(object, before), &state(object, after)),
            is_command: false,
        },
    }
}

fn state(object: &Object, state: &State) -> Vec<String> {
    match state {
        State::Absent => Vec::new(),
        State::File {
            content,
            access: held,
            ..
        } => {
            let mut lines = vec![access(held)];
            lines.extend(String::from_utf8_lossy(content).lines().map(str::to_owned));
            lines
        }
        State::Access(held) => vec![access(held)],
        State::Sysctl { value } => match object {
            Object::Sysctl { key } => vec![format!("{key} = {}", value.trim())],
            _ => vec![value.trim().to_owned()],
        },
        State::Unit { boot, running, .. } => {
            let runs = if *running { "running" } else { "stopped" };
            vec![format!("{boot}, {runs}")]
        }
        State::Module { loaded } => {
            vec![if *loaded { "loaded" } else { "not loaded" }.to_owned()]
        }
    }
}

fn access(access: &Access) -> String {
    format!(
        "mode {:04o} owner {} group {}",
        access.mode, access.uid, access.gid
    )
}

/// What both begin and end with stays; what is between is taken away and put in. A drop-in has a
/// handful of lines, for which this is the shortest there is or one line more.
fn lines(before: &[String], after: &[String]) -> Vec<String> {
    let same = |(a, b): &(&String, &String)| a == b;
    let head = before.iter().zip(after).take_while(same).count();
    let (rest_before, rest_after) = (&before[head..], &after[head..]);
    let pairs = rest_before.iter().rev().zip(rest_after.iter().rev());
    let tail = pairs.take_while(same).count();
    let mark = |sign: char| move |line: &String| format!("{sign} {line}");
    let mut lines: Vec<String> = before[..head].iter().map(mark(' ')).collect();
    lines.extend(
        rest_before[..rest_before.len() - tail]
            .iter()
            .map(mark('-')),
    );
    lines.extend(rest_after[..rest_after.len() - tail].iter().map(mark('+')));
    lines.extend(rest_after[rest_after.len() - tail..].iter().map(mark(' ')));
    lines
}
