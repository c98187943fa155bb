//! A YAML document as a tree in which every node knows its line and column.
//!
//! Typed decoding happens on this tree, not in serde, so that an error can name the place, the
//! wrong name and the near one. Bounded: bytes, depth, nodes and aliases have limits.

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::fault::{Fault, Place, suggestion};

/// Bytes of one rule file. The largest of our own is under 8 KiB.
pub(crate) const FILE_BYTES_MAX: usize = 256 * 1024;
/// Levels of nesting. A predicate level takes two (mapping and list), a test's facts about eight.
/// Decoding recurses: measured 5 KiB of stack a level when optimised, 45 KiB when not, so that a
/// thread of 2 MiB suffices in both.
const DEPTH_MAX: usize = 32;
/// Nodes of one file after aliases are replayed; bounds what an alias bomb can make.
const NODES_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) tree: Tree,
    pub(crate) at: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Integer(i64),
    Decimal(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) at: Place,
}

/// Parses exactly one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    if text.len() > FILE_BYTES_MAX {
        let what = format!(
            "the file has {} bytes, more than {FILE_BYTES_MAX}",
            text.len()
        );
        return Err(Fault::at(Place::default(), what).next("split it: one rule a file"));
    }
    parse_within(text, FILE_BYTES_MAX, NODES_MAX)
}

/// As [`parse`], for documents that are no rules and may be longer.
pub(crate) fn parse_within(text: &str, bytes_max: usize, nodes_max: usize) -> Result<Node, Fault> {
    if text.len() > bytes_max {
        let what = format!("the file has {} bytes, more than {bytes_max}", text.len());
        return Err(Fault::at(Place::default(), what));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: nodes_max,
            max_documents: 1,
        },
        // `yes` and `no` are words of many configuration files, not booleans.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(text, options)
        .map(node)
        .map_err(|error| {
            let place = error.location().map_or(Place::default(), place);
            let message = error.without_snippet().to_string();
            let first = message.lines().next().unwrap_or("not YAML").to_owned();
            Fault::at(place, format!("not valid YAML: {first}"))
        })
}

fn place(location: serde_saphyr::Location) -> Place {
    Place {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    }
}

fn node(spanned: Spanned<Tree>) -> Node {
    Node {
        at: place(spanned.referenced),
        tree: spanned.value,
    }
}

impl Node {
    /// A node that stands at `at`, made from data that never was in a file (a variable's value).
    pub(crate) fn from_json(value: &Value, at: Place) -> Self {
        let tree = match value {
            Value::Null => Tree::Null,
            Value::Bool(flag) => Tree::Bool(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Tree::Integer(integer),
                None => Tree::Decimal(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Tree::Text(text.clone()),
            Value::Array(list) => {
                Tree::List(list.iter().map(|item| Self::from_json(item, at)).collect())
            }
            Value::Object(map) => Tree::Map(
                map.iter()
                    .map(|(name, item)| {
                        (
                            Key {
                                name: name.clone(),
                                at,
                            },
                            Self::from_json(item, at),
                        )
                    })
                    .collect(),
            ),
        };
        Self { tree, at }
    }

    pub(crate) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(flag) => Value::Bool(*flag),
            Tree::Integer(integer) => Value::from(*integer),
            Tree::Decimal(decimal) => Number::from_f64(*decimal).map_or(Value::Null, Value::Number),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Tree::Map(map) => Value::Object(
                map.iter()
                    .map(|(key, item)| (key.name.clone(), item.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// What the author wrote, for "wanted X, found Y".
    pub(crate) fn kind(&self) -> &'static str {
        match self.tree {
            Tree::Null => "nothing",
            Tree::Bool(_) => "true or false",
            Tree::Integer(_) | Tree::Decimal(_) => "a number",
            Tree::Text(_) => "text",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a mapping",
        }
    }

    pub(crate) fn text(&self, what: &str) -> Result<&str, Fault> {
        match &self.tree {
            Tree::Text(text) => Ok(text),
            _ => Err(self.wrong(what, "text").next("write it in quotes")),
        }
    }

    pub(crate) fn truth(&self, what: &str) -> Result<bool, Fault> {
        match self.tree {
            Tree::Bool(flag) => Ok(flag),
            _ => Err(self.wrong(what, "true or false")),
        }
    }

    pub(crate) fn list(&self, what: &str) -> Result<&[Self], Fault> {
        match &self.tree {
            Tree::List(list) => Ok(list),
            _ => Err(self.wrong(what, "a list")),
        }
    }

    pub(crate) fn texts(&self, what: &str) -> Result<Vec<String>, Fault> {
        self.list(what)?
            .iter()
            .map(|item| item.text(what).map(str::to_owned))
            .collect()
    }

    pub(crate) fn map(&self, what: &str) -> Result<&[(Key, Self)], Fault> {
        match &self.tree {
            Tree::Map(map) => Ok(map),
            _ => Err(self.wrong(what, "a mapping")),
        }
    }

    /// The fields of a mapping that may hold `known` and nothing else.
    pub(crate) fn fields(&self, what: &str, known: &[&str]) -> Result<Fields<'_>, Fault> {
        let map = self.map(what)?;
        for (key, _) in map {
            if !known.contains(&key.name.as_str()) {
                return Err(
                    Fault::at(key.at, format!("unknown field `{}` in {what}", key.name))
                        .next(suggestion(&key.name, known)),
                );
            }
        }
        Ok(Fields {
            map,
            at: self.at,
            what: what.to_owned(),
        })
    }

    /// Names in `{var: name}` anywhere below.
    pub(crate) fn variables_used<'n>(&'n self, into: &mut BTreeSet<&'n str>) {
        match &self.tree {
            Tree::List(list) => list.iter().for_each(|item| item.variables_used(into)),
            Tree::Map(map) => {
                for (key, item) in map {
                    match &item.tree {
                        Tree::Text(name) if key.name == "var" => {
                            into.insert(name);
                        }
                        _ => item.variables_used(into),
                    }
                }
            }
            _ => {}
        }
    }

    fn wrong(&self, what: &str, wanted: &str) -> Fault {
        Fault::at(
            self.at,
            format!("{what} is {}, wanted {wanted}", self.kind()),
        )
    }
}

/// A mapping whose field names were checked.
pub(crate) struct Fields<'n> {
    map: &'n [(Key, Node)],
    at: Place,
    what: String,
}

impl<'n> Fields<'n> {
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.map
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
    }

    pub(crate) fn need(&self, name: &str) -> Result<&'n Node, Fault> {
        self.get(name).ok_or_else(|| {
            Fault::at(self.at, format!("{} has no `{name}`", self.what))
                .next(format!("add `{name}:`"))
        })
    }

    /// Text that says something.
    pub(crate) fn need_text(&self, name: &str) -> Result<String, Fault> {
        let node = self.need(name)?;
        let text = node.text(&format!("`{name}`"))?.trim();
        if text.is_empty() {
            return Err(Fault::at(
                node.at,
                format!("`{name}` of {} is empty", self.what),
            ));
        }
        Ok(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Tree, E> {
        i64::try_from(value)
            .map(Tree::Integer)
            .map_err(|_| E::custom(format!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Decimal(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Tree>>()? {
            list.push(node(item));
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Tree>>()?;
            map.push((
                Key {
                    name: key.value,
                    at: place(key.referenced),
                },
                node(value),
            ));
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_keys_know_their_place() {
        let node = parse("a: 1\nb:\n  - yes\n  - {c: true}\n").expect("valid");
        let fields = node.fields("it", &["a", "b"]).expect("known");
        let list = fields.need("b").expect("there").list("b").expect("list");
        assert_eq!(list[0].tree, Tree::Text("yes".to_owned()));
        assert_eq!(list[0].at, Place { line: 3, column: 5 });
        let (key, value) = &list[1].map("c").expect("map")[0];
        assert_eq!(
            (key.name.as_str(), key.at),
            ("c", Place { line: 4, column: 6 })
        );
        assert_eq!(value.tree, Tree::Bool(true));
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        for text in ["a: [1", "a: 1\na: 2\n", "a: 1\n---\nb: 2\n", "a: *x\n", ""] {
            let result = parse(text);
            if text.is_empty() {
                assert!(result.is_err() || result.is_ok_and(|node| node.tree == Tree::Null));
            } else {
                let fault = result.expect_err(text);
                assert!(fault.place.line > 0, "{text}: {fault}");
            }
        }
    }

    #[test]
    fn an_alias_bomb_ends_at_the_node_limit() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(parse(&text).is_err());
    }
}
