//! Starting the command with as much privilege as the host and the credential give.
//!
//! One prelude runs in front of the command and decides on the host, so that nothing of this costs a
//! round trip: root goes on as root; otherwise `sudo -n`, tried on a command that does nothing; else,
//! where the credential allows it, `sudo` with the password. It says what it chose in one line with a
//! nonce; whatever the login shell printed before is skipped, within a bound.
//!
//! The password is sent once, and only after the prompt with the nonce was seen: a prompt for something
//! else (a one-time code, a new password) does not get it. A second prompt means that it was wrong; then
//! that channel is closed, before `sudo` counts another failure, and the command starts without.

use std::time::Duration;

use russh::ChannelOpenFailure;
use zeroize::Zeroizing;

use super::{
    Connection, Session, Wire,
    session::{Heard, Pipe},
};
use crate::{
    credential::Sudo,
    failure::{Failure, Reason},
};

/// What a login shell may print before the first line of ours: banners, quotas, cows.
const NOISE_BYTES_MAX: usize = 256 * 1024;

/// Of what a host says, in a message.
const WORDS_MAX: usize = 200;

/// As what the command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    Root,
    SudoNoPassword,
    SudoPassword,
    /// As the user who logged in.
    None {
        why: String,
    },
}

pub(super) fn start(
    connection: Connection,
    command: &str,
    nonce: u128,
) -> Result<(Session, Privilege), Failure> {
    let Connection {
        wire,
        sudo,
        sudo_password,
    } = connection;
    let mark = format!("holdfast-{nonce:032x}");
    let allowed = match (sudo, &sudo_password) {
        (Sudo::Password, None) => Sudo::NoPassword,
        (sudo, _) => sudo,
    };
    let mut start = Start {
        wire: &wire,
        mark: &mark,
        command,
    };
    let (pipe, privilege) = match start.attempt(allowed, sudo_password)? {
        Attempt::Started(pipe, privilege) => (pipe, privilege),
        // The same connection: logging in again would be counted again.
        Attempt::Refused(why) => match start.attempt(Sudo::Never, None)? {
            Attempt::Started(pipe, _) => (pipe, Privilege::None { why }),
            Attempt::Refused(_) => return Err(start.unusable("it asked for a password again")),
        },
    };
    Ok((Session::new(wire, pipe), privilege))
}

enum Attempt {
    Started(Pipe, Privilege),
    /// `sudo` did not take the password, or did not ask for it.
    Refused(String),
}

struct Start<'a> {
    wire: &'a Wire,
    mark: &'a str,
    command: &'a str,
}

impl Start<'_> {
    fn attempt(
        &mut self,
        sudo: Sudo,
        mut password: Option<Zeroizing<String>>,
    ) -> Result<Attempt, Failure> {
        let mut pipe = self.open()?;
        pipe.execute(self.wire, &prelude(self.mark, sudo, self.command))?;
        let begun = self.wire.patience.now();
        let mut output = Scanner::new(self.mark);
        let mut prompts = Scanner::new(&prompt(self.mark));
        let mut is_asked = false;
        loop {
            let left = self.left(begun);
            let heard = match pipe.hear(self.wire, Some(left)) {
                // A prompt that is not ours waits for an answer that will not come.
                Err(failure)
                    if failure.reason == Reason::Timeout
                        && sudo == Sudo::Password
                        && !self.wire.patience.is_over() =>
                {
                    pipe.end(self.wire);
                    return Ok(Attempt::Refused(
                        "sudo did not ask for a password".to_owned(),
                    ));
                }
                heard => heard?,
            };
            match heard {
                Heard::Output(bytes) => {
                    output.take(&bytes);
                    if let Some((line, rest)) = output.line() {
                        if let Some(privilege) = self.chosen(&line, sudo) {
                            pipe.unread(rest);
                            return Ok(Attempt::Started(pipe, privilege));
                        }
                        return Err(self.unusable("its first line is not ours"));
                    }
                }
                Heard::Complaint(bytes) => {
                    prompts.take(&bytes);
                    if prompts.found() {
                        let Some(password) = password.take() else {
                            pipe.end(self.wire);
                            return Ok(Attempt::Refused("sudo refused the password".to_owned()));
                        };
                        is_asked = true;
                        let line = Zeroizing::new(format!("{}\n", password.as_str()));
                        pipe.send(self.wire, line.as_bytes())?;
                    }
                }
                Heard::Refused => return Err(self.unusable("it runs no commands for this user")),
                Heard::End if is_asked => {
                    let words = first_line(&prompts.rest());
                    pipe.end(self.wire);
                    return Ok(Attempt::Refused(format!("sudo: {words}")));
                }
                Heard::End => {
                    let said = first_line(&format!("{}\n{}", output.rest(), pipe.complaint()));
                    return Err(self.unusable(&format!("its shell ended: {said}")));
                }
            }
            if output.len() + prompts.len() > NOISE_BYTES_MAX {
                let detail = format!(
                    "{} printed more than {NOISE_BYTES_MAX} bytes before the collector started",
                    self.wire.endpoint
                );
                return Err(Failure::new(Reason::EvidenceOversize, detail));
            }
        }
    }

    fn left(&self, begun: Duration) -> Duration {
        let end = begun + self.wire.limits.start;
        end.saturating_sub(self.wire.patience.now())
    }

    fn open(&self) -> Result<Pipe, Failure> {
        let wire = self.wire;
        let what = format!("opening a channel to {}", wire.endpoint);
        let handle = wire.handle.as_ref().expect("an open connection has one");
        let channel = wire.within(wire.limits.start, &what, handle.channel_open_session())?;
        channel.map(Pipe::new).map_err(|error| match error {
            russh::Error::ChannelOpenFailure(why) => {
                let why = match why {
                    ChannelOpenFailure::AdministrativelyProhibited => "forbidden".to_owned(),
                    why => format!("{why:?}"),
                };
                self.unusable(&format!("it opens no session: {why}"))
            }
            _ => wire.lost(&what),
        })
    }

    /// None: not one of the lines that the prelude prints.
    fn chosen(&self, line: &str, asked: Sudo) -> Option<Privilege> {
        let (word, why) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "root" => Some(Privilege::Root),
            "sudo" => Some(Privilege::SudoNoPassword),
            "password" => Some(Privilege::SudoPassword),
            "none" => Some(Privilege::None {
                why: match (asked, why.trim()) {
                    (Sudo::Never, _) => "the credential does not allow sudo".to_owned(),
                    (_, "") => "there is no sudo".to_owned(),
                    (_, why) => first_line(why),
                },
            }),
            _ => None,
        }
    }

    /// The user is let in and can do nothing: the account, not the network.
    fn unusable(&self, why: &str) -> Failure {
        let detail = format!(
            "the account at {} cannot be used: {why}",
            self.wire.endpoint
        );
        Failure::new(Reason::AuthFailed, detail)
    }
}

fn prompt(mark: &str) -> String {
    format!("[{mark}]")
}

/// In front of the command's own words. Without newline, `!` and backslashes before quotes, which the
/// login shells do not agree on.
fn prelude(mark: &str, sudo: Sudo, command: &str) -> String {
    // Where distributions put it. Not the user's PATH: what is there may have the user's own rights only.
    const PLACES: &str = "/usr/bin/sudo /bin/sudo /usr/local/bin/sudo /run/wrappers/bin/sudo";
    let prompt = prompt(mark);
    let with_password = match sudo {
        Sudo::Password => format!(
            r#"exec "$s" -S -k -p "{prompt}" -- /bin/sh -c "echo; echo \"$m password\"; exec \"\$@\"" holdfast "$@"; "#
        ),
        Sudo::Never | Sudo::NoPassword => String::new(),
    };
    let through_sudo = match sudo {
        Sudo::Never => String::new(),
        Sudo::NoPassword | Sudo::Password => format!(
            r#"for s in {PLACES}; do if [ -x "$s" ]; then if w=$(LC_ALL=C "$s" -n -- /bin/sh -c : </dev/null 2>&1); then echo "$m sudo"; exec "$s" -n -- "$@"; fi; {with_password}break; fi; done; "#
        ),
    };
    format!(
        r#"/bin/sh -c 'm={mark}; w=; echo; if [ "$(PATH=/usr/bin:/bin id -u)" = 0 ]; then echo "$m root"; exec "$@"; fi; {through_sudo}set -- "$w" "$@"; w=$(printf "%s\n" "$1" | PATH=/usr/bin:/bin head -n 1); shift; printf "%s\n" "$m none $w"; exec "$@"' holdfast {command}"#
    )
}

/// Looks for words in what comes in pieces.
struct Scanner {
    needle: Vec<u8>,
    seen: Vec<u8>,
    /// Everything before is looked through.
    from: usize,
}

impl Scanner {
    fn new(needle: &str) -> Self {
        Self {
            needle: needle.as_bytes().to_vec(),
            seen: Vec::new(),
            from: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.seen.extend_from_slice(bytes);
    }

    fn len(&self) -> usize {
        self.seen.len()
    }

    fn position(&self) -> Option<usize> {
        let at = self.seen[self.from..]
            .windows(self.needle.len())
            .position(|window| window == self.needle)?;
        Some(self.from + at)
    }

    /// Goes on behind what was found.
    fn found(&mut self) -> bool {
        let found = self.position();
        let behind = self.seen.len().saturating_sub(self.needle.len() - 1);
        self.from = match found {
            Some(at) => at + self.needle.len(),
            None => behind.max(self.from),
        };
        found.is_some()
    }

    /// The rest of the line that begins with the words and a blank, and all that follows it.
    fn line(&mut self) -> Option<(String, Vec<u8>)> {
        loop {
            let Some(at) = self.position() else {
                let behind = self.seen.len().saturating_sub(self.needle.len() - 1);
                self.from = behind.max(self.from);
                return None;
            };
            let start = at + self.needle.len();
            let end = start + self.seen[start..].iter().position(|byte| *byte == b'\n')?;
            // A shell that shows what it runs shows the words too, but not so.
            let Some(line) = self.seen[start..end].strip_prefix(b" ") else {
                self.from = start;
                continue;
            };
            let line = String::from_utf8_lossy(line).trim_end().to_owned();
            return Some((line, self.seen[end + 1..].to_vec()));
        }
    }

    /// What was seen behind what was found.
    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.seen[self.from..]).into_owned()
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("it said nothing")
        .chars()
        .take(WORDS_MAX)
        .collect()
}
