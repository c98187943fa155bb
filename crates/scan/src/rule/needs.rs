//! What must be collected for some rules: the keys of open facts that their selectors name.

use super::{document::Rule, selector::Selector};
use crate::collect::Needs;

impl Needs {
    /// Every path, glob and file that `rules` name literally.
    pub fn of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let mut needs = Self::default();
        for predicate in rules.into_iter().flat_map(Rule::predicates) {
            predicate.for_each_selector(&mut |selector| needs.add(selector));
        }
        needs
    }

    fn add(&mut self, selector: &Selector) {
        let (Some(collector), Some(key)) = (selector.collector(), selector.steps().first()) else {
            return;
        };
        let keys = match collector {
            "files" => &mut self.files,
            "globs" => &mut self.globs,
            "text" => &mut self.text,
            "hashes" => &mut self.hashes,
            _ => return,
        };
        keys.insert(key.clone());
    }
}
