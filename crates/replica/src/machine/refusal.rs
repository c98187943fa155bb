//! How a refusal reads: what is in the way, and what to do next.

use std::fmt;

use super::Refusal;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPrimary { holder: Some(node) } => {
                write!(f, "this node is a replica; node {:032x} writes", node.0)
            }
            Self::NotPrimary { holder: None } => {
                write!(f, "this node is a replica, and does not know who writes")
            }
            Self::Fenced { highest } => write!(
                f,
                "this node's authority was overtaken by epoch {}; write to the node that holds it",
                highest.0
            ),
            Self::TooFewReplicas { in_sync, wanted } => write!(
                f,
                "{in_sync} replicas are in sync and the mode wants {wanted}; bring one back, or \
                 change the mode"
            ),
            Self::TooManyWaiting => {
                write!(f, "as many writes as may wait for copies do; try again")
            }
            Self::TookTooLong => write!(f, "it took longer than it may; try again"),
            Self::LogFailed => write!(
                f,
                "the log of this node failed; start it again when its disk is well"
            ),
            Self::LeaseEnded => write!(
                f,
                "this node does not have the coordinator's lease; it goes on when it has it"
            ),
            Self::ReplicaBehind { own, highest } => write!(
                f,
                "this node has everything up to {own}, another one up to {highest}: promote that one"
            ),
            Self::InvalidState(what) => write!(f, "{what}"),
            Self::PrimaryStillActive => write!(
                f,
                "the node that writes may still be acknowledging; use switchover, or stop it"
            ),
            Self::AuthorityAmbiguous(what) => {
                write!(f, "whose the authority is cannot be told: {what}")
            }
            Self::VisibilityViolation { committed, own } => write!(
                f,
                "lsn {committed} is known to be committed and this node has {own} only"
            ),
            Self::NotAReplica => write!(f, "this node is no replica of the journal"),
            Self::ReplicationDisabled => write!(f, "the journal is not replicated"),
            Self::InvalidRequest(what) => write!(f, "{what}"),
            Self::EvidenceMissing(what) => write!(f, "evidence is missing: {what}"),
            Self::EpochStale { highest } => write!(
                f,
                "epoch {} was promised meanwhile; ask again for a higher one",
                highest.0
            ),
        }
    }
}
