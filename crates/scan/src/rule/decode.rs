//! From YAML nodes to predicates: names, shapes and limits are checked here, so that evaluation
//! meets nothing but well-formed questions.

use std::collections::{BTreeMap, HashMap};

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{
    fault::{Fault, suggestion},
    operator::{number, parse_mode},
    predicate::{Comparison, Leaf, Operator, Pattern, Predicate, Quantified, Quantifier},
    secret,
    selector::{OPEN_COLLECTORS, Root, Selector},
    yaml::{Node, Tree},
};

/// Levels of `all`, `any`, `not` and quantifiers. Ours need at most five; recursion ends here.
const DEPTH_MAX: u32 = 12;
/// Leaves, compositions and quantifiers of one rule.
const PREDICATES_MAX: u32 = 512;
/// Elements of one list operand.
const OPERANDS_MAX: usize = 512;
/// Bytes of a compiled regular expression, and of its lazy automaton's cache. Ten times what our
/// largest one needs.
const REGEX_BYTES_MAX: usize = 1 << 20;

const COMPOSITIONS: [&str; 8] = [
    "fact", "sysctl", "all", "any", "not", "every", "some", "none",
];

const OPERATORS: &[&str] = &[
    "equals",
    "not_equals",
    "one_of",
    "not_one_of",
    "less_than",
    "at_most",
    "at_least",
    "greater_than",
    "mode_at_most",
    "version_at_least",
    "version_less_than",
    "matches",
    "not_matches",
    "captures",
    "contains",
    "contains_all",
    "contains_none",
    "subset_of",
    "exists",
    "empty",
    "count",
    "older_than_days",
    "newer_than_days",
];

const COMPARISONS: [(&str, Comparison); 6] = [
    ("equals", Comparison::Equal),
    ("not_equals", Comparison::NotEqual),
    ("less_than", Comparison::LessThan),
    ("at_most", Comparison::AtMost),
    ("at_least", Comparison::AtLeast),
    ("greater_than", Comparison::GreaterThan),
];

/// Decodes the predicates of one rule; counts them together.
pub(super) struct Decoder<'v> {
    variables: &'v BTreeMap<String, Node>,
    patterns: &'v mut Patterns,
    predicates: u32,
}

impl<'v> Decoder<'v> {
    pub(super) fn new(variables: &'v BTreeMap<String, Node>, patterns: &'v mut Patterns) -> Self {
        Self {
            variables,
            patterns,
            predicates: 0,
        }
    }

    pub(super) fn predicate(&mut self, node: &Node) -> Result<Predicate, Fault> {
        self.decode(node, 0, false)
    }

    fn decode(&mut self, node: &Node, depth: u32, in_quantifier: bool) -> Result<Predicate, Fault> {
        self.predicates += 1;
        if depth > DEPTH_MAX {
            return Err(Fault::at(
                node.at,
                format!("predicates are nested deeper than {DEPTH_MAX}"),
            ));
        }
        if self.predicates > PREDICATES_MAX {
            return Err(Fault::at(
                node.at,
                format!("the rule has more than {PREDICATES_MAX} predicates"),
            ));
        }
        let map = node.map("a predicate")?;
        let name = map
            .iter()
            .map(|(key, _)| key.name.as_str())
            .find(|name| COMPOSITIONS.contains(name));
        let Some(name) = name else {
            let fault = Fault::at(node.at, "a predicate has none of its forms");
            let wrong = map.first().map_or("", |(key, _)| key.name.as_str());
            return Err(fault.next(suggestion(wrong, &COMPOSITIONS)));
        };
        if name == "fact" {
            return self.leaf(node, in_quantifier).map(Predicate::Leaf);
        }
        let body = node
            .fields(&format!("a predicate with `{name}`"), &[name])?
            .need(name)?;
        match name {
            "sysctl" => self.sysctl(body),
            "all" => Ok(Predicate::All(self.parts(
                body,
                name,
                depth,
                in_quantifier,
            )?)),
            "any" => Ok(Predicate::Any(self.parts(
                body,
                name,
                depth,
                in_quantifier,
            )?)),
            "not" => Ok(Predicate::Not(Box::new(self.decode(
                body,
                depth + 1,
                in_quantifier,
            )?))),
            "every" => self.quantified(body, Quantifier::Every, name, depth, in_quantifier),
            "some" => self.quantified(body, Quantifier::Some, name, depth, in_quantifier),
            _ => self.quantified(body, Quantifier::None, name, depth, in_quantifier),
        }
    }

    fn parts(
        &mut self,
        node: &Node,
        name: &str,
        depth: u32,
        in_quantifier: bool,
    ) -> Result<Vec<Predicate>, Fault> {
        let list = node.list(&format!("`{name}`"))?;
        if list.is_empty() {
            return Err(Fault::at(
                node.at,
                format!("`{name}` is empty and would look at nothing"),
            ));
        }
        list.iter()
            .map(|part| self.decode(part, depth + 1, in_quantifier))
            .collect()
    }

    fn quantified(
        &mut self,
        node: &Node,
        quantifier: Quantifier,
        name: &str,
        depth: u32,
        in_quantifier: bool,
    ) -> Result<Predicate, Fault> {
        let fields = node.fields(&format!("`{name}`"), &["in", "where", "check"])?;
        let collection = selector(fields.need("in")?, in_quantifier)?;
        let condition = match fields.get("where") {
            Some(condition) => Some(Box::new(self.decode(condition, depth + 1, true)?)),
            None => None,
        };
        let check = Box::new(self.decode(fields.need("check")?, depth + 1, true)?);
        let line = node.at.line;
        Ok(Predicate::Quantified(Quantified {
            quantifier,
            collection,
            condition,
            check,
            line,
        }))
    }

    fn leaf(&mut self, node: &Node, in_quantifier: bool) -> Result<Leaf, Fault> {
        let mut known = vec!["fact", "default", "ignore_case"];
        known.extend(OPERATORS);
        let fields = node.fields("a predicate with `fact`", &known)?;
        let fact = selector(fields.need("fact")?, in_quantifier)?;
        let default = fields
            .get("default")
            .map(|value| self.operand(value))
            .transpose()?;
        let default = default.map(scalar_or_list).transpose()?;
        let ignore_case = match fields.get("ignore_case") {
            Some(flag) => flag.truth("`ignore_case`")?,
            None => false,
        };
        let mut found = self.operators(node, &["fact", "default", "ignore_case"], ignore_case)?;
        let operator = match found.len() {
            1 => found.remove(0),
            0 => {
                return Err(
                    Fault::at(node.at, format!("no operator for the fact `{fact}`"))
                        .next("add one, for example `equals: VALUE`"),
                );
            }
            _ => {
                return Err(Fault::at(
                    node.at,
                    format!("more than one operator for the fact `{fact}`"),
                )
                .next("join two predicates with `all:`"));
            }
        };
        if let (Some(_), Operator::Exists(_)) = (&default, &operator) {
            return Err(Fault::at(
                node.at,
                format!("`default` and `exists` contradict each other for `{fact}`"),
            ));
        }
        Ok(Leaf {
            fact,
            default,
            operator,
            ignore_case,
            line: node.at.line,
        })
    }

    /// `sysctl: {key: K, OPERATOR: V}`: the running value and the one kept over a restart.
    fn sysctl(&mut self, node: &Node) -> Result<Predicate, Fault> {
        let mut known = vec!["key"];
        known.extend(OPERATORS);
        let fields = node.fields("`sysctl`", &known)?;
        let key = fields.need_text("key")?;
        let operators = self.operators(node, &["key"], false)?;
        let [operator] = operators.as_slice() else {
            return Err(Fault::at(
                node.at,
                format!(
                    "`sysctl` of `{key}` has {} operators, wanted one",
                    operators.len()
                ),
            ));
        };
        let leaf = |text: String| {
            let fact = Selector::parse(&text).map_err(|what| Fault::at(node.at, what))?;
            let (operator, line) = (operator.clone(), node.at.line);
            Ok(Predicate::Leaf(Leaf {
                fact,
                default: None,
                operator,
                ignore_case: false,
                line,
            }))
        };
        Ok(Predicate::All(vec![
            leaf(format!("sysctl.running[{key}]"))?,
            leaf(format!("sysctl.persistent[{key}].value"))?,
        ]))
    }

    /// Every field of `node` but `others`, as operators.
    fn operators(
        &mut self,
        node: &Node,
        others: &[&str],
        ignore_case: bool,
    ) -> Result<Vec<Operator>, Fault> {
        node.map("operators")?
            .iter()
            .filter(|(key, _)| !others.contains(&key.name.as_str()))
            .map(|(key, operand)| self.operator(&key.name, operand, ignore_case))
            .collect()
    }

    fn operator(&mut self, name: &str, node: &Node, ignore_case: bool) -> Result<Operator, Fault> {
        let node = self.operand(node)?;
        let what = format!("the operand of `{name}`");
        if let Some((_, comparison)) = COMPARISONS.iter().find(|(known, _)| *known == name)
            && !matches!(comparison, Comparison::Equal | Comparison::NotEqual)
        {
            return Ok(Operator::Compare(*comparison, numeric(node, &what)?));
        }
        Ok(match name {
            "equals" => Operator::Equals(scalar(node, &what)?),
            "not_equals" => Operator::NotEquals(scalar(node, &what)?),
            "one_of" => Operator::OneOf(self.scalars(node, &what)?),
            "not_one_of" => Operator::NotOneOf(self.scalars(node, &what)?),
            "mode_at_most" => Operator::ModeAtMost(mode(node, &what)?),
            "version_at_least" => Operator::VersionAtLeast(version(node, &what)?),
            "version_less_than" => Operator::VersionLessThan(version(node, &what)?),
            "matches" => Operator::Matches(pattern(self.patterns, node, &what, ignore_case)?),
            "not_matches" => {
                Operator::NotMatches(pattern(self.patterns, node, &what, ignore_case)?)
            }
            "captures" => self.captures(node, ignore_case)?,
            "contains" => Operator::Contains(scalar(node, &what)?),
            "contains_all" => Operator::ContainsAll(self.scalars(node, &what)?),
            "contains_none" => Operator::ContainsNone(self.scalars(node, &what)?),
            // Nothing but nothing: the list has to be empty. The other list operators would hold
            // for everything or for nothing.
            "subset_of" if node.list(&what)?.is_empty() => Operator::SubsetOf(Vec::new()),
            "subset_of" => Operator::SubsetOf(self.scalars(node, &what)?),
            "exists" => Operator::Exists(node.truth(&what)?),
            "empty" => Operator::Empty(node.truth(&what)?),
            "count" => Operator::Count(self.counts(node)?),
            "older_than_days" => Operator::OlderThanDays(numeric(node, &what)?),
            "newer_than_days" => Operator::NewerThanDays(numeric(node, &what)?),
            _ => {
                return Err(Fault::at(node.at, format!("unknown operator `{name}`"))
                    .next(suggestion(name, OPERATORS)));
            }
        })
    }

    fn captures(&mut self, node: &Node, ignore_case: bool) -> Result<Operator, Fault> {
        let fields = node.fields("`captures`", &["pattern", "where"])?;
        let text = self.operand(fields.need("pattern")?)?;
        let pattern = pattern(self.patterns, text, "`pattern`", ignore_case)?;
        let conditions = fields.need("where")?;
        let mut groups = Vec::new();
        for (key, operators) in conditions.map("`where` of `captures`")? {
            let known: Vec<&str> = pattern.regex().capture_names().flatten().collect();
            if !known.contains(&key.name.as_str()) {
                return Err(
                    Fault::at(key.at, format!("the pattern has no group `{}`", key.name))
                        .next(format!("name it in the pattern: (?<{}>...)", key.name)),
                );
            }
            let operators = self.operators(operators, &[], ignore_case)?;
            if operators.is_empty() {
                return Err(Fault::at(
                    key.at,
                    format!("the group `{}` has no operator", key.name),
                ));
            }
            groups.push((key.name.clone(), operators));
        }
        if groups.is_empty() {
            return Err(
                Fault::at(conditions.at, "`where` of `captures` is empty").next("use `matches`")
            );
        }
        Ok(Operator::Captures(pattern, groups))
    }

    fn counts(&self, node: &Node) -> Result<Vec<(Comparison, f64)>, Fault> {
        let names = COMPARISONS.map(|(name, _)| name);
        node.fields("`count`", &names)?;
        let mut conditions = Vec::new();
        for (key, operand) in node.map("`count`")? {
            let wanted = numeric(
                self.operand(operand)?,
                &format!("`{}` of `count`", key.name),
            )?;
            if let Some((_, comparison)) = COMPARISONS.iter().find(|(known, _)| *known == key.name)
            {
                conditions.push((*comparison, wanted));
            }
        }
        if conditions.is_empty() {
            return Err(Fault::at(node.at, "`count` has no operator")
                .next("add one, for example `at_most: 0`"));
        }
        Ok(conditions)
    }

    fn scalars(&self, node: &Node, what: &str) -> Result<Vec<Value>, Fault> {
        let list = node.list(what)?;
        if list.is_empty() || list.len() > OPERANDS_MAX {
            return Err(Fault::at(
                node.at,
                format!(
                    "{what} has {} values, wanted 1 to {OPERANDS_MAX}",
                    list.len()
                ),
            ));
        }
        list.iter()
            .map(|item| scalar(self.operand(item)?, what))
            .collect()
    }

    /// The node itself, or the value of the variable that it names.
    pub(super) fn operand<'n>(&self, node: &'n Node) -> Result<&'n Node, Fault>
    where
        'v: 'n,
    {
        let Tree::Map(map) = &node.tree else {
            return Ok(node);
        };
        let [(key, name)] = map.as_slice() else {
            return Ok(node);
        };
        if key.name != "var" {
            return Ok(node);
        }
        let name = name.text("`var`")?;
        self.variables.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            Fault::at(node.at, format!("unknown variable `{name}`")).next(if known.is_empty() {
                "declare it under `variables:`".to_owned()
            } else {
                suggestion(name, &known)
            })
        })
    }
}

fn selector(node: &Node, in_quantifier: bool) -> Result<Selector, Fault> {
    let text = node.text("a selector")?;
    let selector = Selector::parse(text).map_err(|what| Fault::at(node.at, what))?;
    if matches!(selector.root, Root::Item | Root::Key) && !in_quantifier {
        return Err(Fault::at(
            node.at,
            format!("`{text}` is used outside `every`, `some` and `none`"),
        ));
    }
    if let Some(what) = improper_path(&selector) {
        return Err(Fault::at(node.at, what).next("write it absolute, without `//`, `.` and `..`"));
    }
    if let Some(what) = secret::forbidden(&selector) {
        return Err(Fault::at(node.at, what).next("ask for owner and mode under `files` instead"));
    }
    Ok(selector)
}

/// A path with two spellings could be asked for under one and forbidden under the other.
fn improper_path(selector: &Selector) -> Option<String> {
    selector
        .collector()
        .filter(|name| OPEN_COLLECTORS.contains(name))?;
    let path = selector.steps().first()?;
    let proper = path.strip_prefix('/').is_some_and(|rest| {
        !rest.is_empty() && rest.split('/').all(|part| !["", ".", ".."].contains(&part))
    });
    (!proper).then(|| format!("`{path}` is not a plain absolute path"))
}

pub(super) fn scalar(node: &Node, what: &str) -> Result<Value, Fault> {
    match node.tree {
        Tree::Bool(_) | Tree::Integer(_) | Tree::Decimal(_) | Tree::Text(_) => Ok(node.to_json()),
        Tree::Null => Err(Fault::at(node.at, format!("{what} is empty"))
            .next("use `exists: false` for what must not be there")),
        Tree::List(_) | Tree::Map(_) => Err(Fault::at(
            node.at,
            format!("{what} is {}, wanted a single value", node.kind()),
        )),
    }
}

fn scalar_or_list(node: &Node) -> Result<Value, Fault> {
    match &node.tree {
        Tree::List(list) => list
            .iter()
            .map(|item| scalar(item, "a value of `default`"))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        _ => scalar(node, "`default`"),
    }
}

fn numeric(node: &Node, what: &str) -> Result<f64, Fault> {
    number(&node.to_json())
        .filter(|number| number.is_finite())
        .ok_or_else(|| {
            Fault::at(
                node.at,
                format!("{what} is {}, wanted a number", node.kind()),
            )
        })
}

pub(super) fn mode(node: &Node, what: &str) -> Result<u32, Fault> {
    match &node.tree {
        Tree::Text(text) => parse_mode(text),
        // A bare 0640 is the decimal number 640 in YAML.
        _ => None,
    }
    .ok_or_else(|| {
        Fault::at(node.at, format!("{what} is no mode"))
            .next("write octal digits in quotes, for example \"0640\"")
    })
}

fn version(node: &Node, what: &str) -> Result<String, Fault> {
    let text = node.text(what)?;
    let plausible = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".+-~:".contains(&b));
    if plausible {
        Ok(text.to_owned())
    } else {
        Err(Fault::at(node.at, format!("{what} is no Debian version")))
    }
}

/// Compiled patterns by text and case. Rules of one pack ask the same of many facts, and compiling
/// is most of what loading costs.
#[derive(Default)]
pub(super) struct Patterns(HashMap<(String, bool), Pattern>);

impl Patterns {
    fn get(&mut self, text: &str, ignore_case: bool) -> Result<Pattern, regex::Error> {
        let key = (text.to_owned(), ignore_case);
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let pattern = Pattern::new(compile(text, ignore_case)?, ignore_case);
        self.0.insert(key, pattern.clone());
        Ok(pattern)
    }
}

fn pattern(
    patterns: &mut Patterns,
    node: &Node,
    what: &str,
    ignore_case: bool,
) -> Result<Pattern, Fault> {
    let text = node.text(what)?;
    patterns.get(text, ignore_case).map_err(|error| {
        let message = error.to_string();
        let last = message
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .trim_start_matches("error: ")
            .to_owned();
        Fault::at(node.at, format!("{what} is no regular expression: {last}"))
            .next("the syntax is that of the Rust crate regex: no look-around, no back-references")
    })
}

fn compile(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .case_insensitive(ignore_case)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
}
