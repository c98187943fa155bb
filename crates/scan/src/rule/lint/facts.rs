//! Selectors and operators against the catalog of facts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    collect::{FactPattern, Shape},
    rule::{
        fault::suggestion,
        predicate::{Leaf, Operator, Predicate, Quantified},
        selector::{Root, Selector},
    },
};

/// The catalog as a tree: what may follow what.
pub(super) struct Catalog {
    root: Part,
}

#[derive(Default)]
struct Part {
    shape: Option<Shape>,
    fields: BTreeMap<String, Part>,
    /// Values of a map under any key.
    values: Option<Box<Part>>,
    elements: Option<Box<Part>>,
}

/// Where a selector leads: a known part, or somewhere the catalog does not describe.
type Place<'c> = Option<&'c Part>;

/// Takes a line, what is wrong and the next step.
type Report<'r> = &'r mut dyn FnMut(u32, String, String);

impl Catalog {
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p FactPattern>) -> Self {
        let mut root = Part::default();
        for pattern in patterns {
            root.insert(pattern.path, pattern.shape);
        }
        Self { root }
    }

    pub(super) fn check(&self, predicate: &Predicate, report: Report<'_>) {
        self.predicate(predicate, None, report);
    }

    /// `element` is what `item` is: `None` outside quantifiers, `Some(None)` when not described.
    fn predicate<'c>(
        &'c self,
        predicate: &Predicate,
        element: Option<Place<'c>>,
        report: Report<'_>,
    ) {
        match predicate {
            Predicate::Leaf(leaf) => {
                if let Some(part) = self.find(&leaf.fact, element, leaf.line, report) {
                    operator(leaf, part, report);
                }
                if leaf.fact.root == Root::Key {
                    operator_on(leaf, Shape::Text, report);
                }
            }
            Predicate::All(parts) | Predicate::Any(parts) => {
                parts
                    .iter()
                    .for_each(|part| self.predicate(part, element, report));
            }
            Predicate::Not(part) => self.predicate(part, element, report),
            Predicate::Quantified(quantified) => self.quantified(quantified, element, report),
        }
    }

    fn quantified<'c>(
        &'c self,
        quantified: &Quantified,
        element: Option<Place<'c>>,
        report: Report<'_>,
    ) {
        let part = self.find(&quantified.collection, element, quantified.line, report);
        let (inner, keyed) = match part {
            Some(part) => (
                part.elements.as_deref().or(part.values.as_deref()),
                part.elements.is_none(),
            ),
            None => (None, true),
        };
        if let Some(part) = part
            && !matches!(part.shape(), None | Some(Shape::List | Shape::Map))
        {
            let what = format!("`{}` is neither a list nor a map", quantified.collection);
            report(
                quantified.line,
                what,
                "use a predicate with `fact:`".to_owned(),
            );
        }
        let mut looked_at = false;
        for predicate in quantified.condition.iter().chain([&quantified.check]) {
            predicate.for_each_selector(&mut |selector| {
                looked_at |= selector.collector().is_none();
                if selector.root == Root::Key && !keyed {
                    let what = format!("`key` is used over the list `{}`", quantified.collection);
                    report(quantified.line, what, "only maps have keys".to_owned());
                }
            });
            self.predicate(predicate, Some(inner), report);
        }
        if !looked_at {
            let what = format!(
                "the quantifier over `{}` never looks at `item` or `key`",
                quantified.collection
            );
            report(
                quantified.line,
                what,
                "it would say the same of every element".to_owned(),
            );
        }
    }

    fn find<'c>(
        &'c self,
        selector: &Selector,
        element: Option<Place<'c>>,
        line: u32,
        report: Report<'_>,
    ) -> Place<'c> {
        let (start, mut walked) = match &selector.root {
            Root::Key => return None,
            Root::Item => (element.flatten()?, "item".to_owned()),
            Root::Collector(name) => {
                let Some(part) = self.root.fields.get(name) else {
                    let known: Vec<&str> = self.root.fields.keys().map(String::as_str).collect();
                    let what = format!(
                        "no collector brings the fact `{selector}`: unknown collector `{name}`"
                    );
                    report(line, what, suggestion(name, &known));
                    return None;
                };
                (part, name.clone())
            }
        };
        let mut part = start;
        for step in selector.steps() {
            let next = part.fields.get(step).or(part.values.as_deref());
            part = match next {
                Some(next) => next,
                // The catalog says "a map" and no more.
                None if part.fields.is_empty() && part.shape == Some(Shape::Map) => return None,
                None => {
                    let known: Vec<&str> = part.fields.keys().map(String::as_str).collect();
                    let what = format!(
                        "no collector brings the fact `{selector}`: `{walked}` has no `{step}`"
                    );
                    let next = match (part.elements.is_some(), known.is_empty()) {
                        (true, _) => "it is a list: use `every`, `some` or `none`".to_owned(),
                        (false, true) => "it has no parts".to_owned(),
                        (false, false) => suggestion(step, &known),
                    };
                    report(line, what, next);
                    return None;
                }
            };
            walked = format!("{walked}.{step}");
        }
        Some(part)
    }
}

impl Part {
    fn insert(&mut self, path: &str, shape: Shape) {
        let mut part = self;
        for step in path
            .replace("[]", ".[]")
            .replace("[*]", ".[*]")
            .split('.')
            .filter(|step| !step.is_empty())
        {
            part = match step {
                "[]" => part.elements.get_or_insert_default(),
                "[*]" => part.values.get_or_insert_default(),
                field => part.fields.entry(field.to_owned()).or_default(),
            };
        }
        part.shape = Some(shape);
    }

    /// As declared, or as its parts tell.
    fn shape(&self) -> Option<Shape> {
        self.shape.or(if self.elements.is_some() {
            Some(Shape::List)
        } else if self.values.is_some() || !self.fields.is_empty() {
            Some(Shape::Map)
        } else {
            None
        })
    }
}

fn operator(leaf: &Leaf, part: &Part, report: Report<'_>) {
    if let Some(shape) = part.shape() {
        operator_on(leaf, shape, report);
    }
}

fn operator_on(leaf: &Leaf, shape: Shape, report: Report<'_>) {
    if reads(&leaf.operator, shape) {
        return;
    }
    let (is, next) = match shape {
        Shape::Text => (
            "text",
            "lists have `contains_all`, text has `equals` and `matches`",
        ),
        Shape::Int => ("a number", "use `equals` or a comparison with a number"),
        Shape::Bool => ("true or false", "use `equals: true` or `equals: false`"),
        Shape::Scalar => ("a single value", "use `equals` or `matches`"),
        Shape::List => ("a list", "use `contains`, `count`, `empty` or a quantifier"),
        Shape::Map => ("a map", "use `count`, `empty`, `exists` or a quantifier"),
    };
    report(
        leaf.line,
        format!("the operator cannot read `{}`, which is {is}", leaf.fact),
        next.to_owned(),
    );
}

/// Whether the operator can ever give an answer on a fact of this shape.
fn reads(operator: &Operator, shape: Shape) -> bool {
    use Operator::{
        Captures, Compare, Contains, ContainsAll, ContainsNone, Count, Empty, Equals, Exists,
        Matches, ModeAtMost, NewerThanDays, NotEquals, NotMatches, NotOneOf, OlderThanDays, OneOf,
        SubsetOf, VersionAtLeast, VersionLessThan,
    };
    match operator {
        Exists(_) => true,
        Equals(wanted) | NotEquals(wanted) => comparable(wanted, shape),
        OneOf(list) | NotOneOf(list) => list.iter().all(|wanted| comparable(wanted, shape)),
        Compare(..) | OlderThanDays(_) | NewerThanDays(_) => {
            matches!(shape, Shape::Int | Shape::Text | Shape::Scalar)
        }
        Matches(_) | NotMatches(_) | Captures(..) | ModeAtMost(_) | VersionAtLeast(_)
        | VersionLessThan(_) => {
            matches!(shape, Shape::Text | Shape::Scalar)
        }
        Contains(_) => matches!(shape, Shape::List | Shape::Text | Shape::Scalar),
        ContainsAll(_) | ContainsNone(_) | SubsetOf(_) => shape == Shape::List,
        Count(_) => matches!(shape, Shape::List | Shape::Map),
        Empty(_) => matches!(shape, Shape::List | Shape::Map | Shape::Text),
    }
}

fn comparable(wanted: &Value, shape: Shape) -> bool {
    match shape {
        Shape::Text => wanted.is_string() || wanted.is_number(),
        Shape::Int => wanted.is_number() || crate::rule::operator::number(wanted).is_some(),
        Shape::Bool => wanted.is_boolean(),
        Shape::Scalar => true,
        Shape::List | Shape::Map => false,
    }
}
