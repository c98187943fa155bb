//! Kleene's promise, for random rules and facts: an answer given without a fact is the answer that
//! any value of that fact would give.
//!
//! A part of the facts is hidden: replaced by `$unknown`, or left out where leaving out means that
//! nobody looked (a whole collector, a key of an open map). If the rule is decided all the same,
//! then whatever stood there must not change the verdict: any value, nothing at all, or, for an
//! element of a list, any number of elements.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{facts, rule, verdict};
use crate::judge::Outcome;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "1", "0644", "20400"]).prop_map(Value::from),
        (0..4_i64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ]
}

fn hole() -> Value {
    json!({"$unknown": {"reason": "privilege", "detail": "x"}})
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![6 => scalar(), 1 => Just(Value::Null), 1 => Just(hole())];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A collector as they are: a list, a map and a single value under the names that selectors use.
fn shaped() -> impl Strategy<Value = Value> {
    let element = || prop_oneof![4 => scalar(), 1 => value()];
    (
        prop::collection::vec(element(), 0..3),
        prop::collection::btree_map(key(), element(), 0..3),
        scalar(),
    )
        .prop_map(|(list, map, single)| {
            let map: Map<_, _> = map.into_iter().collect();
            json!({"a": list, "b": map, "c": single})
        })
}

fn collectors() -> impl Strategy<Value = Map<String, Value>> {
    let file = prop::collection::btree_map(prop::sample::select(vec!["/a", "/b"]), value(), 0..3);
    (shaped(), value(), file).prop_map(|(c, d, files)| {
        let files: Map<_, _> = files
            .into_iter()
            .map(|(path, value)| (path.to_owned(), value))
            .collect();
        [
            ("c".to_owned(), c),
            ("d".to_owned(), d),
            ("files".to_owned(), Value::Object(files)),
        ]
        .into_iter()
        .collect()
    })
}

/// Half of them lead straight to what `shaped` makes, or to the element.
fn selector(in_quantifier: bool) -> impl Strategy<Value = String> {
    let mut near = vec!["c.a", "c.b", "c.c"];
    let mut roots = vec!["c", "d", "files[/a]", "files[/b]"];
    if in_quantifier {
        near.extend(["item", "item", "key"]);
        roots.push("item");
    }
    let far = (
        prop::sample::select(roots),
        prop::collection::vec(key(), 0..3),
    );
    prop_oneof![
        prop::sample::select(near).prop_map(str::to_owned),
        far.prop_map(|(root, steps)| [&[root.to_owned()], steps.as_slice()].concat().join(".")),
    ]
}

fn operator() -> impl Strategy<Value = (&'static str, Value)> {
    let list = || prop::collection::vec(scalar(), 1..3).prop_map(Value::Array);
    prop_oneof![
        1 => scalar().prop_map(|v| ("equals", v)),
        1 => scalar().prop_map(|v| ("not_equals", v)),
        1 => list().prop_map(|v| ("one_of", v)),
        1 => list().prop_map(|v| ("not_one_of", v)),
        1 => (0..3).prop_map(|n| ("less_than", json!(n))),
        1 => (0..3).prop_map(|n| ("at_least", json!(n))),
        1 => Just(("mode_at_most", json!("0644"))),
        1 => Just(("version_at_least", json!("1"))),
        1 => Just(("matches", json!("^[ab]?$"))),
        1 => Just(("not_matches", json!("1"))),
        1 => Just((
            "captures",
            json!({"pattern": "(?<n>[0-9])", "where": {"n": {"at_least": 1}}})
        )),
        1 => scalar().prop_map(|v| ("contains", v)),
        3 => list().prop_map(|v| ("contains_all", v)),
        3 => list().prop_map(|v| ("contains_none", v)),
        3 => list().prop_map(|v| ("subset_of", v)),
        1 => any::<bool>().prop_map(|v| ("exists", json!(v))),
        1 => any::<bool>().prop_map(|v| ("empty", json!(v))),
        1 => (
            prop::sample::select(vec!["equals", "not_equals", "at_most", "greater_than"]),
            0..4
        )
            .prop_map(|(name, n)| ("count", json!({name: n}))),
        1 => Just(("older_than_days", json!(10))),
    ]
}

fn leaf(in_quantifier: bool) -> impl Strategy<Value = Value> {
    (
        selector(in_quantifier),
        operator(),
        prop::option::weighted(0.2, scalar()),
    )
        .prop_map(|(fact, (name, operand), default)| {
            let mut leaf = json!({"fact": fact, name: operand});
            if let Some(default) = default.filter(|_| name != "exists") {
                leaf["default"] = default;
            }
            leaf
        })
}

/// Quantifiers inside quantifiers come from the second level of the recursion.
fn predicate() -> impl Strategy<Value = Value> {
    let inner = compound(leaf(true).boxed(), leaf(true).boxed(), true);
    let outer = compound(leaf(false).boxed(), inner, false);
    prop_oneof![3 => outer.clone(), 1 => prop::collection::vec(outer.clone(), 1..3).prop_map(|p| json!({"all": p})),
        1 => prop::collection::vec(outer, 1..3).prop_map(|p| json!({"any": p}))]
}

fn compound(
    plain: BoxedStrategy<Value>,
    inside: BoxedStrategy<Value>,
    in_quantifier: bool,
) -> BoxedStrategy<Value> {
    let many = || prop::collection::vec(plain.clone(), 1..4);
    let quantified = (
        prop::sample::select(vec!["every", "some", "none"]),
        selector(in_quantifier).prop_filter("a key is no collection", |s| s != "key"),
        prop::option::of(inside.clone()),
        inside,
    )
        .prop_map(|(name, collection, condition, check)| {
            let mut body = json!({"in": collection, "check": check});
            if let Some(condition) = condition {
                body["where"] = condition;
            }
            json!({name: body})
        });
    prop_oneof![
        3 => plain.clone(),
        1 => many().prop_map(|parts| json!({"all": parts})),
        1 => many().prop_map(|parts| json!({"any": parts})),
        1 => plain.clone().prop_map(|part| json!({"not": part})),
        4 => quantified,
    ]
    .boxed()
}

/// Every place in the facts, as the steps that lead to it.
fn places(value: &Value, here: &mut Vec<String>, into: &mut Vec<Vec<String>>) {
    if !here.is_empty() {
        into.push(here.clone());
    }
    let children: Vec<(String, &Value)> = match value {
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(n, item)| (n.to_string(), item))
            .collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, item)| (name.clone(), item))
            .collect(),
        _ => Vec::new(),
    };
    for (step, child) in children {
        here.push(step);
        places(child, here, into);
        here.pop();
    }
}

/// `whole` with other values at a place: none removes it, several are possible in a list only.
fn put(whole: &Value, place: &[String], values: &[Value]) -> Value {
    let (step, rest) = place.split_first().expect("a place has a step");
    let replace = |child: &Value| {
        if rest.is_empty() {
            values.to_vec()
        } else {
            vec![put(child, rest, values)]
        }
    };
    match whole {
        Value::Array(list) => Value::Array(
            list.iter()
                .enumerate()
                .flat_map(|(n, item)| {
                    if n.to_string() == *step {
                        replace(item)
                    } else {
                        vec![item.clone()]
                    }
                })
                .collect(),
        ),
        Value::Object(map) => Value::Object(
            map.iter()
                .filter_map(|(name, item)| {
                    let item = if name == step {
                        replace(item).into_iter().next()?
                    } else {
                        item.clone()
                    };
                    Some((name.clone(), item))
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

fn judged(rule: &crate::rule::Rule, collectors: &Value) -> Outcome {
    verdict(rule, &facts(collectors.clone())).verdict
}

fn decided(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::NotAssessed | Outcome::Error)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    /// Proves: RUL-4
    #[test]
    fn what_is_decided_without_a_fact_is_decided_the_same_with_any_value_of_it(
        collectors in collectors(),
        predicate in predicate(),
        values in prop::collection::vec(prop_oneof![2 => scalar(), 1 => value()], 3..6),
    ) {
        let rule = rule(&predicate.to_string());
        let whole = Value::Object(collectors);
        let mut all = Vec::new();
        places(&whole, &mut Vec::new(), &mut all);
        for place in &all {
            let open = place[0] == "files" && place.len() <= 2;
            let leaving_out_is_hiding = place.len() == 1 || open;
            let mut hidden = vec![put(&whole, place, &[hole()])];
            let mut shown: Vec<Value> = values.iter().map(|value| put(&whole, place, std::slice::from_ref(value))).collect();
            // In a list any number of elements; elsewhere the first of them.
            shown.push(put(&whole, place, &values));
            let without = put(&whole, place, &[]);
            if leaving_out_is_hiding { hidden.push(without) } else { shown.push(without) }
            for hidden in &hidden {
                let blind = judged(&rule, hidden);
                for shown in shown.iter().filter(|_| decided(blind)) {
                    prop_assert_eq!(blind, judged(&rule, shown), "{} on {} and on {}", predicate, hidden, shown);
                }
            }
        }
    }

    #[test]
    fn verdicts_and_evidence_of_any_facts_are_within_their_shape(collectors in collectors(), predicate in predicate()) {
        let verdict = verdict(&rule(&predicate.to_string()), &facts(Value::Object(collectors)));
        prop_assert!(!verdict.reason.is_empty());
        prop_assert!(!verdict.reason.chars().any(char::is_control));
        prop_assert_eq!(verdict.unknown.is_some(), verdict.verdict == Outcome::NotAssessed);
    }
}
