//! Kleene's logic with two kinds of not knowing.

/// `Error` is an unknown that is somebody's mistake: a value of a shape that the rule cannot read.
/// In combination it decides as little as `Unknown` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
    Error,
}

impl Truth {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::Error, _) | (_, Self::Error) => Self::Error,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::True, Self::True) => Self::True,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.negated().and(other.negated()).negated()
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            undecided => undecided,
        }
    }

    pub(super) fn is_decided(self) -> bool {
        matches!(self, Self::True | Self::False)
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

#[cfg(test)]
mod tests {
    use super::Truth::{self, *};

    #[test]
    fn what_is_not_known_decides_only_where_nothing_depends_on_it() {
        for undecided in [Unknown, Error] {
            assert_eq!(undecided.and(False), False);
            assert_eq!(False.and(undecided), False);
            assert_eq!(undecided.or(True), True);
            assert_eq!(True.or(undecided), True);
            assert_eq!(undecided.and(True), undecided);
            assert_eq!(undecided.or(False), undecided);
            assert_eq!(undecided.negated(), undecided);
        }
        assert_eq!(Unknown.or(Error), Error);
        assert_eq!(Truth::from(true).and(Truth::from(true)), True);
    }
}
