//! Secrets from where they may come: a terminal that shows nothing, a file, standard input.

use std::{
    io::{self, Read},
    path::Path,
};

use ::scan::credential::{PASSWORD_LEN_MAX, Secret, Sudo, private_key};
use zeroize::Zeroizing;

use crate::{
    cli::{self, credential::Secrets},
    exit::Refusal,
    named_file,
    screen::Screen,
};

/// Times that a passphrase is asked for: a person mistypes it once or twice.
const ASKED_MAX: u32 = 3;

/// Whether anything is given at all.
pub(super) fn is_any(asked: &Secrets) -> bool {
    asked.key.is_some()
        || asked.sudo.is_some()
        || asked.password
        || asked.password_file.is_some()
        || asked.password_stdin
        || asked.sudo_password
        || asked.sudo_password_file.is_some()
        || asked.sudo_password_stdin
}

/// Reads what is asked for into `secret`; the rest of it stays.
pub(super) fn read(asked: &Secrets, secret: &mut Secret, screen: Screen) -> Result<(), Refusal> {
    if let Some(file) = &asked.key {
        let key = key_file(file)?;
        secret.passphrase = passphrase(&key, file, asked.passphrase_file.as_deref(), screen)?;
        secret.private_key = Some(key);
    }
    let login = Word {
        name: "login password",
        ask: asked.password,
        file: asked.password_file.as_deref(),
        stdin: asked.password_stdin,
    };
    if let Some(word) = login.read()? {
        secret.password = Some(word);
    }
    let root = Word {
        name: "sudo password",
        ask: asked.sudo_password,
        file: asked.sudo_password_file.as_deref(),
        stdin: asked.sudo_password_stdin,
    };
    if let Some(word) = root.read()? {
        secret.sudo_password = Some(word);
        // Given to be used.
        secret.sudo = Sudo::Password;
    }
    match asked.sudo {
        None => {}
        Some(cli::credential::Sudo::Never) => secret.sudo = Sudo::Never,
        Some(cli::credential::Sudo::Nopassword) => secret.sudo = Sudo::NoPassword,
        Some(cli::credential::Sudo::Password) => secret.sudo = Sudo::Password,
    }
    if secret.sudo != Sudo::Password {
        secret.sudo_password = None;
    } else if secret.sudo_answer().is_none() {
        return Err(Refusal::new(
            "sudo with a password, and neither it nor a login password is given",
        )
        .next("add --sudo-password, --sudo-password-file FILE or --password"));
    }
    Ok(())
}

fn key_file(file: &Path) -> Result<Zeroizing<String>, Refusal> {
    let name = file.display();
    let bytes = named_file::read(file, private_key::FILE_LEN_MAX).map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::InvalidData => "give a private key file such as ~/.ssh/id_ed25519",
            _ => "check the path, and that you may read the file",
        };
        Refusal::new(format!("private key {name}"))
            .source(error)
            .next(next)
    })?;
    text(bytes).ok_or_else(|| {
        Refusal::new(format!("private key {name}: it is no text"))
            .next("give a private key file such as ~/.ssh/id_ed25519")
    })
}

/// The passphrase that fits, or none where the key has none.
fn passphrase(
    key: &str,
    file: &Path,
    from: Option<&Path>,
    screen: Screen,
) -> Result<Option<Zeroizing<String>>, Refusal> {
    let name = file.display();
    let refused = |fault: &private_key::Fault| {
        Refusal::new(format!("private key {name}: {fault}")).next(fault.next())
    };
    match private_key::check(key, None) {
        Ok(_) => {
            if from.is_some() {
                screen.remark(format_args!(
                    "{name} has no passphrase; the one given is not kept"
                ));
            }
            return Ok(None);
        }
        Err(private_key::Fault::NeedsPassphrase) => {}
        Err(fault) => return Err(refused(&fault)),
    }
    if let Some(from) = from {
        let word = first_line(from, "passphrase")?;
        return match private_key::check(key, Some(&word)) {
            Ok(_) => Ok(Some(word)),
            Err(fault) => Err(refused(&fault)),
        };
    }
    let mut asked = 0;
    loop {
        let word = prompt(&format!("Passphrase of {name}: "), "passphrase")?;
        asked += 1;
        match private_key::check(key, Some(&word)) {
            Ok(_) => return Ok(Some(word)),
            Err(private_key::Fault::WrongPassphrase) if asked < ASKED_MAX => {
                screen.remark("that does not open the key, try again");
            }
            Err(fault) => return Err(refused(&fault)),
        }
    }
}

/// A password and where it comes from: at most one of three, which the command line sees to.
struct Word<'a> {
    name: &'static str,
    ask: bool,
    file: Option<&'a Path>,
    stdin: bool,
}

impl Word<'_> {
    fn read(&self) -> Result<Option<Zeroizing<String>>, Refusal> {
        if let Some(file) = self.file {
            return first_line(file, self.name).map(Some);
        }
        if self.stdin {
            return self.read_stdin().map(Some);
        }
        if !self.ask {
            return Ok(None);
        }
        let word = prompt(&format!("The {}: ", self.name), self.name)?;
        let again = prompt(&format!("The {} again: ", self.name), self.name)?;
        if *word != *again {
            return Err(
                Refusal::new(format!("the two times the {} differs", self.name))
                    .next("run the command again"),
            );
        }
        Ok(Some(word))
    }

    fn read_stdin(&self) -> Result<Zeroizing<String>, Refusal> {
        // Its room at once, so that no copy is left behind where it would have grown.
        let limit = PASSWORD_LEN_MAX + 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
        io::stdin()
            .lock()
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Refusal::new("standard input").source(error))?;
        let text = std::str::from_utf8(&bytes)
            .ok()
            .filter(|_| bytes.len() <= limit);
        let text = text.ok_or_else(|| {
            Refusal::new(format!(
                "the {} of standard input is no text, or too long",
                self.name
            ))
            .next(format!("give at most {PASSWORD_LEN_MAX} bytes of UTF-8"))
        })?;
        Ok(Zeroizing::new(
            text.trim_end_matches(['\n', '\r']).to_owned(),
        ))
    }
}

fn first_line(file: &Path, what: &str) -> Result<Zeroizing<String>, Refusal> {
    /// A password, and what people keep below it.
    const FILE_LEN_MAX: u64 = 4096;
    let refuse = || Refusal::new(format!("{what} file {}", file.display()));
    let bytes = named_file::read(file, FILE_LEN_MAX).map_err(|error| {
        refuse()
            .source(error)
            .next("check the path, and that you may read the file")
    })?;
    let text =
        text(bytes).ok_or_else(|| refuse().source("it is no text").next("write it as UTF-8"))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(refuse()
            .source("its first line is empty")
            .next("write the secret on the first line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks on the terminal, which shows nothing of the answer.
fn prompt(question: &str, what: &str) -> Result<Zeroizing<String>, Refusal> {
    rpassword::prompt_password(crate::present::safe(question))
        .map(Zeroizing::new)
        .map_err(|error| {
            Refusal::new(format!("the {what} cannot be asked for without a terminal"))
                .source(error)
                .next(format!(
                    "give it in a file: --{}-file FILE",
                    what.trim_start_matches("login ").replace(' ', "-")
                ))
        })
}

/// Wiped also where it is no text.
fn text(bytes: Vec<u8>) -> Option<Zeroizing<String>> {
    let bytes = Zeroizing::new(bytes);
    std::str::from_utf8(&bytes)
        .ok()
        .map(|text| Zeroizing::new(text.to_owned()))
}
