//! What a fix can change, and in what state each such thing was found.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// One thing on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Object {
    /// A regular file: existence, content, mode, owner, group, extended attributes.
    File { path: String },
    /// Mode, owner and group of a file or directory that stays what it is.
    Access { path: String },
    /// A kernel parameter as it runs.
    Sysctl { key: String },
    /// A unit of systemd: at boot and at this moment.
    Unit { name: String },
    /// Whether a kernel module is loaded.
    Module { name: String },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } | Self::Access { path } => f.write_str(path),
            Self::Sysctl { key } => write!(f, "kernel parameter {key}"),
            Self::Unit { name } => write!(f, "unit {name}"),
            Self::Module { name } => write!(f, "kernel module {name}"),
        }
    }
}

/// How an object was found, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Absent,
    File {
        #[serde(with = "bytes")]
        content: Vec<u8>,
        #[serde(flatten)]
        access: Access,
        /// Extended attributes by name, in base64: SELinux context, capabilities, ACL. `None` in a
        /// file that is to be made: its directory gives it what it gives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attributes: Option<BTreeMap<String, String>>,
    },
    Access(Access),
    /// As read, with its line end.
    Sysctl {
        value: String,
    },
    Unit {
        /// `UnitFileState` of systemd.
        boot: String,
        running: bool,
        /// Links below /etc/systemd/system that name the unit, with what they point to. `None` in a
        /// state that is to be reached: systemd makes them as the unit file says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        links: Option<BTreeMap<String, String>>,
    },
    Module {
        loaded: bool,
    },
}

/// Permission bits with set-id and sticky, and whose it is, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl State {
    /// Whether the two are one state. Blanks of kernel parameters do not count, since the kernel
    /// prints other blanks than it takes; links and attributes count where both sides know them.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sysctl { value: a }, Self::Sysctl { value: b }) => {
                a.split_whitespace().eq(b.split_whitespace())
            }
            (
                Self::Unit {
                    boot: a,
                    running: a_runs,
                    links: a_links,
                },
                Self::Unit {
                    boot: b,
                    running: b_runs,
                    links: b_links,
                },
            ) => a == b && a_runs == b_runs && agree(a_links.as_ref(), b_links.as_ref()),
            (
                Self::File {
                    content: a,
                    access: a_access,
                    attributes: a_attributes,
                },
                Self::File {
                    content: b,
                    access: b_access,
                    attributes: b_attributes,
                },
            ) => {
                let attributes = agree(a_attributes.as_ref(), b_attributes.as_ref());
                a == b && a_access == b_access && attributes
            }
            (a, b) => a == b,
        }
    }
}

/// The same, or one side does not say.
fn agree<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Something done that has no state to put back; doing it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// `sshd -t`: refuses a configuration that sshd would not start with.
    CheckSshd,
    /// The running service reads its configuration again.
    Reload { unit: String },
}

impl Action {
    /// The command line, for people and for the record.
    pub fn command(&self) -> String {
        match self {
            Self::CheckSshd => "sshd -t".to_owned(),
            Self::Reload { unit } => format!("systemctl reload {unit}"),
        }
    }
}

/// One effect of a fix, in the order in which they are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    Set {
        object: Object,
        before: State,
        after: State,
    },
    /// Not set by the fix, but changed by the kernel along with what is: captured to be put back.
    Keep {
        object: Object,
        before: State,
    },
    /// Moved by the kernel along with what was set just before, and to be as it was.
    Hold {
        object: Object,
        before: State,
    },
    Run(Action),
}

impl Effect {
    pub fn object(&self) -> Option<(&Object, &State)> {
        match self {
            Self::Set { object, before, .. }
            | Self::Keep { object, before }
            | Self::Hold { object, before } => Some((object, before)),
            Self::Run(_) => None,
        }
    }
}

mod bytes {
    //! Exact bytes in a JSON row.

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}
