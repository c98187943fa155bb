//! The first words on a connection: who calls whom, and in which version.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{VERSION_MAX, VERSION_MIN};
use crate::machine::NodeId;

/// A greeting or its answer is at most so long.
pub(super) const GREETING_LEN_MAX: usize = 256;
const MAGIC: [u8; 8] = *b"HFREPLIC";

/// Of whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    magic: [u8; 8],
    version_min: u16,
    version_max: u16,
    cluster: u128,
    pub(super) from: NodeId,
    to: NodeId,
}

/// Of whoever was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The version that both speak.
    Welcome(u16),
    Refused(Reason),
}

/// Why a greeting was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reason {
    NotAGreeting,
    OtherCluster,
    /// The address belongs to another node.
    OtherNode(NodeId),
    NotAMember,
    NotItsCertificate,
    Version {
        min: u16,
        max: u16,
    },
    TooMany,
    /// For ever. Said to those who know the word: [`Hello::knows`].
    Removed,
}

impl Reason {
    /// As whoever refuses says it; [`fmt::Display`] is for whoever was refused.
    pub(super) const fn told_here(self) -> &'static str {
        match self {
            Self::NotAGreeting => "it sent no greeting",
            Self::OtherCluster => "it belongs to another cluster",
            Self::OtherNode(_) => "it called for another node than this one",
            Self::NotAMember => "this node does not know it",
            Self::NotItsCertificate => "it showed the certificate of another node",
            Self::Version { .. } => "it speaks no version that this program does",
            Self::TooMany => "there are too many connections",
            Self::Removed => "it was removed from the cluster",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAGreeting => write!(f, "what was sent is no greeting"),
            Self::OtherCluster => write!(f, "it belongs to another cluster"),
            Self::OtherNode(node) => write!(f, "at that address is node {:032x}", node.0),
            Self::NotAMember => write!(f, "it does not know this node as a member"),
            Self::NotItsCertificate => write!(f, "the certificate belongs to another node"),
            Self::Version { min, max } => write!(
                f,
                "it speaks versions {min} to {max}, this program {VERSION_MIN} to {VERSION_MAX}"
            ),
            Self::TooMany => write!(f, "it has too many connections"),
            Self::Removed => write!(f, "this node was removed from the cluster"),
        }
    }
}

impl Hello {
    pub(super) fn new(cluster: u128, from: NodeId, to: NodeId) -> Self {
        Self {
            magic: MAGIC,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster,
            from,
            to,
        }
    }

    /// The version to speak, if this is for us.
    pub(super) fn check(&self, cluster: u128, me: NodeId) -> Result<u16, Reason> {
        if self.magic != MAGIC {
            return Err(Reason::NotAGreeting);
        }
        if self.cluster != cluster {
            return Err(Reason::OtherCluster);
        }
        if self.to != me {
            return Err(Reason::OtherNode(me));
        }
        let version = self.version_max.min(VERSION_MAX);
        if version < self.version_min.max(VERSION_MIN) {
            return Err(Reason::Version {
                min: VERSION_MIN,
                max: VERSION_MAX,
            });
        }
        Ok(version)
    }

    #[cfg(test)]
    pub(super) fn speaking(mut self, min: u16, max: u16) -> Self {
        (self.version_min, self.version_max) = (min, max);
        self
    }
}
