//! Hands on a host, over a shell session with the rights of root.
//!
//! Each verb is one script or a few (`remote/script.rs`), each with a clear end: what it says of an
//! object is compared on the host in the same script that changes it. A file is replaced whole, as on
//! this machine. A path with a symbolic link in it, an access control list or capabilities are refused,
//! since they cannot be carried over exactly; other attributes are carried by copying the file.
//!
//! A session that breaks is opened again once for the next verb, so that what was begun can be undone;
//! a host that does not answer then is not asked again.

mod line;
mod script;
mod unit;

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

pub use line::Line;
use script::{BEGIN, CHANGED, UNSAFE};

use super::{
    Access, Account, Action, Disarmed, Effect, Fault, FaultKind, Hands, Object, State,
    engine::changed,
    local::{UNIT_DIR, checked, id_in, sysctl_path},
    timer::{self, octal},
};
use crate::{
    capture::{self, Exchange},
    rule::{is_account, is_module, is_path, is_unit},
};

/// As on this machine: drop-ins have a few lines.
const CONTENT_BYTES_MAX: usize = 256 << 10;

/// What one script may print: a directory of accounts is the largest.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const COMPLAINT_BYTES_MAX: usize = 4096;

/// The write side of a host.
pub struct RemoteHands {
    line: Arc<Line>,
    session: Option<Box<dyn Exchange>>,
    /// Why the host was given up.
    lost: Option<Fault>,
}

impl std::fmt::Debug for RemoteHands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteHands({:?})", self.line)
    }
}

/// What a script said and how it ended.
struct Said {
    output: Vec<u8>,
    complaint: String,
    status: u8,
}

impl RemoteHands {
    /// Logs in with the first verb.
    pub fn new(line: Arc<Line>) -> Self {
        Self {
            line,
            session: None,
            lost: None,
        }
    }

    /// Ends the session; the next verb opens another.
    pub fn hang_up(&mut self) {
        self.session = None;
    }

    /// Runs `text` after variables with these values, and gives what it printed.
    fn script(
        &mut self,
        object: &str,
        values: &[(&str, &str)],
        text: &str,
    ) -> Result<Vec<u8>, Fault> {
        let said = self.said(values, text)?;
        let why = said.complaint.trim();
        match said.status {
            0 => Ok(said.output),
            CHANGED => Err(Fault::new(
                FaultKind::Changed,
                format!("{object} was changed by somebody else"),
            )),
            UNSAFE => Err(Fault::not_safe(object, why)),
            status if why.is_empty() => Err(Fault::refused(
                object,
                format!("refused with status {status}"),
            )),
            _ => Err(Fault::refused(object, why)),
        }
    }

    fn said(&mut self, values: &[(&str, &str)], text: &str) -> Result<Said, Fault> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let mut script = String::new();
        for (name, value) in values {
            script.push_str(&format!("{name}={}\n", timer::quoted(value)));
        }
        script.push_str(BEGIN);
        script.push_str(text);
        let line = wrapped(&script);
        if self.session.is_none() {
            let opened = self.line.open();
            if let Err(fault) = &opened {
                self.lost = Some(fault.clone());
            }
            self.session = Some(opened?);
        }
        let session = self.session.as_mut().expect("it was just opened");
        let parts = self.line.ask(session.as_mut(), &line).inspect_err(|_| {
            self.session = None;
        })?;
        let part = |wanted: u8| parts.iter().find(|(name, _)| *name == wanted);
        let strange = || Fault::refused(self.line.host(), "gave no clear answer");
        let (Some((_, output)), Some((_, end))) = (part(b'x'), part(b'e')) else {
            return Err(strange());
        };
        let end = String::from_utf8_lossy(end);
        let (status, complaint) = end.split_once('\n').unwrap_or((&end, ""));
        if output.len() >= ANSWER_BYTES_MAX {
            return Err(Fault::refused(self.line.host(), "said too much"));
        }
        Ok(Said {
            output: output.clone(),
            complaint: complaint.to_owned(),
            status: status.trim().parse().map_err(|_| strange())?,
        })
    }

    fn look_path(&mut self, path: &str, text: &str) -> Result<Vec<u8>, Fault> {
        checked(is_path(path), path, "is not a plain absolute path")?;
        let max = CONTENT_BYTES_MAX.to_string();
        self.script(path, &[("P", path), ("G", ""), ("M", &max)], text)
    }

    fn look_file(&mut self, path: &str) -> Result<State, Fault> {
        let said = self.look_path(path, script::LOOK_FILE)?;
        if said == b"absent\n" {
            return Ok(State::Absent);
        }
        let end = said.iter().position(|byte| *byte == b'\n');
        let (head, content) = said.split_at(end.map_or(said.len(), |end| end + 1));
        if content.len() > CONTENT_BYTES_MAX {
            return Err(Fault::not_safe(path, "grew while it was looked at"));
        }
        Ok(State::File {
            content: content.to_vec(),
            access: access_in(path, head)?,
            attributes: None,
        })
    }

    fn look_access(&mut self, path: &str) -> Result<State, Fault> {
        let said = self.look_path(path, script::LOOK_ACCESS)?;
        if said == b"absent\n" {
            return Ok(State::Absent);
        }
        access_in(path, &said).map(State::Access)
    }

    fn look_sysctl(&mut self, key: &str) -> Result<State, Fault> {
        let path = sysctl_path(key)?;
        let said = self.script(&path, &[("P", &path)], script::LOOK_SYSCTL)?;
        let text = String::from_utf8(said).map_err(|_| Fault::not_safe(&path, "is not text"))?;
        Ok(match text.strip_prefix("present\n") {
            Some(value) => State::Sysctl {
                value: value.to_owned(),
            },
            None => State::Absent,
        })
    }

    fn look_module(&mut self, name: &str) -> Result<State, Fault> {
        checked(is_module(name), name, "is no kernel module")?;
        let text = "[ -e /proc/modules ] || exit 0\ncat /proc/modules\n";
        let table = self.script("/proc/modules", &[], text)?;
        let loaded = String::from_utf8_lossy(&table)
            .lines()
            .any(|line| line.split(' ').next() == Some(name));
        Ok(State::Module { loaded })
    }

    fn set_access(&mut self, path: &str, from: Access, to: Access) -> Result<(), Fault> {
        // The type is in what stat says; it stays what it is.
        let kind = self.look_path(path, "stat -c %f -- \"$P\"\n")?;
        let kind = u32::from_str_radix(String::from_utf8_lossy(&kind).trim(), 16);
        let kind = kind.map_err(|_| Fault::refused(path, "has no clear mode"))? & !0o7777;
        let was = said_of(kind, from);
        let between = chmod(from.mode & to.mode);
        let owner = format!("{}:{}", to.uid, to.gid);
        let values = [
            ("P", path),
            ("G", ""),
            ("W", &was),
            ("I", &between),
            ("O", &owner),
            ("A", &chmod(to.mode)),
        ];
        self.script(path, &values, script::SET_ACCESS).map(drop)
    }

    fn set_file(&mut self, tag: &str, path: &str, from: &State, to: &State) -> Result<(), Fault> {
        checked(is_path(path), path, "is not a plain absolute path")?;
        let (was, hash) = match from {
            State::File {
                content, access, ..
            } => (said_of(REGULAR, *access), hex(content)),
            _ => ("absent".to_owned(), String::new()),
        };
        let mut values = vec![("P", path), ("G", tag), ("W", &was), ("H", &hash)];
        let (owner, mode, wanted);
        let text = match to {
            State::Absent => [script::STILL, script::REMOVE_FILE].concat(),
            State::File {
                content, access, ..
            } => {
                owner = format!("{}:{}", access.uid, access.gid);
                (mode, wanted) = (chmod(access.mode), hex(content));
                values.extend([("O", &*owner), ("A", &mode), ("N", &wanted)]);
                let write = format!(
                    "printf {} > \"$T\" || {{ rm -f -- \"$T\"; exit 1; }}",
                    octal(content)
                );
                [
                    script::STILL,
                    script::BEGIN_REPLACE,
                    &write,
                    script::END_REPLACE,
                ]
                .concat()
            }
            _ => return Err(Fault::not_safe(path, "is to become something else")),
        };
        self.script(path, &values, &text).map(drop)
    }

    fn set_sysctl(&mut self, key: &str, from: &str, to: &str) -> Result<(), Fault> {
        let path = sysctl_path(key)?;
        let was = from.split_whitespace().collect::<Vec<_>>().join(" ");
        let write = format!("printf {} > \"$P\"\n", octal(to.as_bytes()));
        let text = [script::STILL_SYSCTL, &write].concat();
        self.script(&path, &[("P", &path), ("W", &was)], &text)
            .map(drop)
    }

    fn set_module(&mut self, name: &str, to: &State) -> Result<(), Fault> {
        checked(is_module(name), name, "is no kernel module")?;
        // Past a line of modprobe.d that blocks it, which may not be taken back yet.
        let text = match to {
            State::Module { loaded: true } => "modprobe --ignore-install -- \"$N\"\n",
            _ => "modprobe -r -- \"$N\"\n",
        };
        self.script(name, &[("N", name)], text).map(drop)
    }
}

impl Hands for RemoteHands {
    fn look(&mut self, object: &Object) -> Result<State, Fault> {
        match object {
            Object::File { path } => self.look_file(path),
            Object::Access { path } => self.look_access(path),
            Object::Sysctl { key } => self.look_sysctl(key),
            Object::Unit { name } => self.look_unit(name),
            Object::Module { name } => self.look_module(name),
        }
    }

    fn set(&mut self, tag: &str, object: &Object, from: &State, to: &State) -> Result<(), Fault> {
        match (object, from, to) {
            (Object::File { path }, ..) => self.set_file(tag, path, from, to)?,
            (Object::Access { path }, State::Access(from), State::Access(to)) => {
                self.set_access(path, *from, *to)?;
            }
            (Object::Sysctl { key }, State::Sysctl { value: from }, State::Sysctl { value }) => {
                self.set_sysctl(key, from, value)?;
            }
            (Object::Unit { name }, ..) => {
                if !self.look(object)?.same(from) {
                    return Err(changed(object));
                }
                self.set_unit(name, from, to)?;
            }
            (Object::Module { name }, ..) => self.set_module(name, to)?,
            _ => {
                return Err(Fault::not_safe(
                    &object.to_string(),
                    "cannot be made or removed",
                ));
            }
        }
        if self.look(object)?.same(to) {
            return Ok(());
        }
        Err(Fault::refused(
            &object.to_string(),
            "did not take the value",
        ))
    }

    fn run(&mut self, action: &Action) -> Result<(), Fault> {
        let (unit, text) = match action {
            Action::CheckSshd => ("", "/usr/sbin/sshd -t\n"),
            Action::Reload { unit } => {
                checked(is_unit(unit), unit, "is no unit")?;
                (unit.as_str(), "systemctl reload -- \"$U\"\n")
            }
        };
        self.script(&action.command(), &[("U", unit)], text)
            .map(drop)
    }

    fn id_of(&mut self, account: Account, name: &str) -> Result<Option<u32>, Fault> {
        checked(is_account(name), name, "is no name of an account")?;
        let path = match account {
            Account::User => "/etc/passwd",
            Account::Group => "/etc/group",
        };
        let table = self.script(path, &[("P", path)], "cat -- \"$P\"\n")?;
        Ok(id_in(&String::from_utf8_lossy(&table), name))
    }

    fn sweep(&mut self, tag: &str, object: &Object) -> Result<(), Fault> {
        let Object::File { path } = object else {
            return Ok(());
        };
        checked(is_path(path), path, "is not a plain absolute path")?;
        self.script(path, &[("P", path), ("G", tag)], script::SWEEP)
            .map(drop)
    }

    fn arm(&mut self, id: &str, effects: &[Effect], seconds: u64) -> Result<(), Fault> {
        let own = own(id);
        let restore = timer::script(id, effects, "");
        let seconds = seconds.to_string();
        let values = [
            ("B", timer::DIR),
            ("O", &*own),
            ("R", &restore),
            ("I", id),
            ("N", &seconds),
        ];
        let text = [
            "mkdir -m 0700 -- \"$B\" 2>/dev/null\n",
            script::BEGIN_ARM,
            "printf '%s' \"$R\" > \"$O/restore\" && : > \"$O/armed\" || exit 1\n",
            "set -- \"$O\" \"$N\" \"$I\" yes\n",
            timer::START,
        ];
        self.script("start the timed rollback", &values, &text.concat())
            .map(drop)
    }

    fn disarm(&mut self, id: &str) -> Result<Disarmed, Fault> {
        let text = script::DISARM
            .replace("STOP", timer::STOP)
            .replace("WAIT", timer::WAIT);
        let said = self.script("call off the timed rollback", &[("O", &own(id))], &text)?;
        Ok(match &said[..] {
            b"fired\n" => Disarmed::Fired,
            _ => Disarmed::InTime,
        })
    }

    /// A login that did not exist before, up to a shell of root; it is the session from then on.
    fn knock(&mut self) -> Result<(), Fault> {
        let opened = self.line.open().map_err(|fault| {
            let what = format!("a new connection was not made: {}", fault.what);
            Fault::new(FaultKind::Check, what)
        })?;
        self.session = Some(opened);
        Ok(())
    }
}

/// Section `x` is what `script` prints, section `e` its status in a line, then its complaints.
fn wrapped(script: &str) -> String {
    let script = capture::quote(script);
    format!(
        "P x;{{ r=$({{ e=$({{ {{ (eval {script}) 2>&9 9>&- 7>&- 6>&-;echo $? >&7;}}\
         |head -c {ANSWER_BYTES_MAX} >&6;}} 9>&1|{{ head -c {COMPLAINT_BYTES_MAX};cat >/dev/null;}});\
         printf '%s' \"$e\";}} 7>&1);}} 6>&1;P e;printf '%s' \"$r\";"
    )
}

fn own(id: &str) -> String {
    format!("{}/fix-{id}", timer::DIR)
}

/// The type of a regular file in a mode.
const REGULAR: u32 = 0o100_000;

/// What `stat -c '%f %u %g'` says.
fn said_of(kind: u32, access: Access) -> String {
    format!("{:x} {} {}", kind | access.mode, access.uid, access.gid)
}

fn access_in(path: &str, line: &[u8]) -> Result<Access, Fault> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let mode = words.next().map(|word| u32::from_str_radix(word, 16));
    let (uid, gid) = (words.next().map(str::parse), words.next().map(str::parse));
    match (mode, uid, gid) {
        (Some(Ok(mode)), Some(Ok(uid)), Some(Ok(gid))) => Ok(Access {
            mode: mode & 0o7777,
            uid,
            gid,
        }),
        _ => Err(Fault::refused(path, "the host told no clear state")),
    }
}

/// Five digits: with fewer, chmod leaves the set-id bits of a directory as they are.
fn chmod(mode: u32) -> String {
    format!("{mode:05o}")
}

fn hex(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
