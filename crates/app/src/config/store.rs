//! Where the tables are, when they are not in the data directory.

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Origin, Setting, variable};
use crate::{exit::Refusal, named_file};

/// Longest file of a password that is read, in bytes. Far above any password.
const PASSWORD_LEN_MAX: u64 = 4 * 1024;

const URL: &str = "HOLDFAST_STORE_POSTGRES";
const PASSWORD_FILE: &str = "HOLDFAST_STORE_POSTGRES_PASSWORD_FILE";
/// As every program that speaks to PostgreSQL has it.
const PASSWORD: &str = "PGPASSWORD";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileStore {
    postgres: Option<String>,
    postgres_password_file: Option<PathBuf>,
}

/// Not what it holds: the URL may have a password in it.
impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStore")
            .field("postgres_password_file", &self.postgres_password_file)
            .finish_non_exhaustive()
    }
}

/// The settings of the store, each with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    /// None: the tables are in the data directory.
    pub(crate) postgres: Setting<Option<postgres::Address>>,
    pub(crate) password_file: Setting<Option<PathBuf>>,
}

pub(super) fn elsewhere(values: &FileStore) -> Result<Elsewhere, Refusal> {
    let password_file = match (env::var_os(PASSWORD_FILE), &values.postgres_password_file) {
        (Some(path), _) => set(Some(path.into()), Origin::Environment),
        (None, Some(path)) => set(Some(path.clone()), Origin::File),
        (None, None) => set(None, Origin::Default),
    };
    let (url, origin) = match (variable(URL).map(Zeroizing::new), &values.postgres) {
        (Some(url), _) => (url, Origin::Environment),
        (None, Some(url)) => (Zeroizing::new(url.clone()), Origin::File),
        (None, None) => {
            return Ok(Elsewhere {
                postgres: set(None, Origin::Default),
                password_file,
            });
        }
    };
    let postgres = address(&url, password_file.value.as_deref())?;
    Ok(Elsewhere {
        postgres: set(Some(postgres), origin),
        password_file,
    })
}

/// The database that `url` names. Its password is in the URL, in PGPASSWORD or in `password_file`,
/// whichever comes first.
pub(crate) fn address(
    url: &str,
    password_file: Option<&Path>,
) -> Result<postgres::Address, Refusal> {
    let password = match (variable(PASSWORD).map(Zeroizing::new), password_file) {
        (Some(password), _) => Some(password),
        (None, Some(path)) => Some(password(path)?),
        (None, None) => None,
    };
    let bytes = password.as_ref().map(|password| password.as_bytes());
    postgres::Address::parse(url, bytes).map_err(|error| {
        Refusal::new(error.to_string()).next("mend store.postgres or HOLDFAST_STORE_POSTGRES")
    })
}

/// The first line of the file.
pub(super) fn password(path: &Path) -> Result<Zeroizing<String>, Refusal> {
    let refused = |what: &str| {
        Refusal::new(format!("password file {} {what}", path.display())).next(
            "name a file that holds the password and nothing else, readable to this user only",
        )
    };
    let bytes = named_file::read(path, PASSWORD_LEN_MAX)
        .map_err(|error| refused("cannot be read").source(error))?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("is not UTF-8"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(refused("is empty")),
    }
}

const fn set<T>(value: T, origin: Origin) -> Setting<T> {
    Setting { value, origin }
}
