//! Every fact a rule may name.
//!
//! The patterns stand beside the collector that fills them. A rule that names anything else is
//! wrong before it meets a host: it could never be assessed.

/// What a fact is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Text,
    Int,
    Bool,
    /// Text or a boolean, by case.
    Scalar,
    List,
    Map,
}

/// One path in the facts. In `path`, `[*]` stands for any key of a map and `[]` for the elements of
/// a list: `sysctl.running[*]`, `walk.setuid[].path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactPattern {
    pub path: &'static str,
    pub shape: Shape,
    /// A map that holds only what was asked for: a missing key is unknown (`not_collected`). In any
    /// other map a missing key is absent.
    pub open: bool,
    pub about: &'static str,
}

impl FactPattern {
    pub(crate) const fn closed(path: &'static str, shape: Shape, about: &'static str) -> Self {
        Self {
            path,
            shape,
            open: false,
            about,
        }
    }

    pub(crate) const fn open(path: &'static str, about: &'static str) -> Self {
        Self {
            path,
            shape: Shape::Map,
            open: true,
            about,
        }
    }
}

/// Every pattern of every collector.
pub fn catalog() -> impl Iterator<Item = &'static FactPattern> {
    super::list()
        .iter()
        .flat_map(|collector| collector.patterns)
}
