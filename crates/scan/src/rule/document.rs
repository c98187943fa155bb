//! One rule file: decoded, its variables replaced, its digest taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    canonical_json,
    decode::{Decoder, Patterns},
    fault::{Fault, Place, suggestion},
    operator::parse_mode,
    predicate::Predicate,
    step::{self, Step},
    yaml::{self, Key, Node},
};
use crate::judge::Outcome;

/// Values of variables by name, from a site's settings; a rule's own defaults stand for the others.
pub type Variables = BTreeMap<String, Value>;

/// Characters of an id: it is a file name and a key of the ledger.
pub(super) const ID_BYTES_MAX: usize = 80;
/// The moment of a test's facts when the test gives none; its day is 20,454.
const TEST_COLLECTED_AT: &str = "2026-01-01T00:00:00Z";

const FIELDS: [&str; 12] = [
    "id",
    "title",
    "description",
    "rationale",
    "severity",
    "platforms",
    "references",
    "variables",
    "applies",
    "check",
    "fix",
    "tests",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Critical,
    High,
    Medium,
    Low,
}

impl Severity {
    /// Worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `debian-12`: the id of os-release and its version, or the version up to the first dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub id: String,
    pub version: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, self.version)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableType {
    Int,
    String,
    List,
    Mode,
    Bool,
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub kind: VariableType,
    pub default: Value,
    pub description: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fix {
    /// One line: what to do.
    pub summary: String,
    /// Shown, never run.
    pub commands: Vec<String>,
    /// What `fix --apply` does; empty when only a person can mend it.
    pub apply: Vec<Step>,
}

/// Facts and the verdict they must give.
#[derive(Clone, Debug)]
pub struct RuleTest {
    pub name: String,
    pub facts: Map<String, Value>,
    pub expect: Outcome,
    pub collected_at: jiff::Timestamp,
    pub variables: Variables,
    pub line: u32,
    /// The system of the facts when they name none: the rule's first platform.
    platform: Platform,
}

/// A rule's tests, or the text that holds them.
#[derive(Clone, Debug)]
enum Tests {
    Parsed(Vec<RuleTest>),
    Text(&'static str, OnceLock<Vec<RuleTest>>),
}

/// A rule that can be judged.
#[derive(Clone, Debug)]
pub struct Rule {
    pub id: String,
    pub title: String,
    pub description: String,
    pub rationale: String,
    pub severity: Severity,
    pub platforms: Vec<Platform>,
    /// Framework to ids, e.g. `nist_800_53` to `SC-7`.
    pub references: BTreeMap<String, Vec<String>>,
    pub variables: BTreeMap<String, Variable>,
    pub applies: Option<Predicate>,
    pub check: Predicate,
    pub fix: Fix,
    tests: Tests,
    /// Directory below the pack, e.g. `kernel`; empty for a rule at the top.
    pub category: String,
    /// As it was named when it was opened.
    pub file: String,
    /// SHA-256 in hexadecimal of everything but the tests, with the values of variables in use.
    pub digest: String,
    /// The same with the defaults of its variables: the rule as it is written.
    pub definition: String,
    /// Values in use that are not defaults.
    pub site_values: Variables,
    document: Node,
}

impl Rule {
    /// Parses one file with the defaults of its variables. `file` is only named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, Fault> {
        Self::parse_with(text, file, &mut Patterns::default())
    }

    pub(super) fn parse_with(
        text: &str,
        file: &str,
        patterns: &mut Patterns,
    ) -> Result<Self, Fault> {
        yaml::parse(text)
            .and_then(|document| decode_rule(document, &Variables::new(), patterns))
            .map(|rule| Self {
                file: file.to_owned(),
                ..rule
            })
            .map_err(|fault| fault.in_file(file))
    }

    /// Parses a file of the built-in pack without its tests, which are two thirds of its text and
    /// which judging never needs. They are parsed when somebody asks for them.
    pub(super) fn parse_embedded(
        text: &'static str,
        file: &str,
        patterns: &mut Patterns,
    ) -> Result<Self, Fault> {
        let Some(head) = before_tests(text) else {
            return Self::parse_with(text, file, patterns);
        };
        let rule = Self::parse_with(&format!("{head}tests: []\n"), file, patterns)?;
        Ok(Self {
            tests: Tests::Text(text, OnceLock::new()),
            ..rule
        })
    }

    pub fn tests(&self) -> &[RuleTest] {
        match &self.tests {
            Tests::Parsed(tests) => tests,
            Tests::Text(text, parsed) => parsed.get_or_init(|| {
                let rule = Self::parse(text, &self.file);
                match rule.map(|rule| rule.tests) {
                    Ok(Tests::Parsed(tests)) => tests,
                    // A test of this program reads the tests of every embedded rule.
                    Ok(Tests::Text(..)) | Err(_) => Vec::new(),
                }
            }),
        }
    }

    /// The same rule with other values of its variables. Names it does not declare are refused.
    pub fn with_variables(&self, values: &Variables) -> Result<Self, Fault> {
        decode_rule(self.document.clone(), values, &mut Patterns::default())
            .map(|rule| Self {
                file: self.file.clone(),
                category: self.category.clone(),
                definition: self.definition.clone(),
                site_values: values.clone(),
                tests: self.tests.clone(),
                ..rule
            })
            .map_err(|fault| fault.in_file(&self.file))
    }

    /// Where a field of the rule stands.
    pub(super) fn place_of(&self, field: &str) -> Place {
        let node = self
            .document
            .fields("the rule", &FIELDS)
            .ok()
            .and_then(|fields| fields.get(field).map(|n| n.at));
        node.unwrap_or(self.document.at)
    }

    pub(super) fn unused_variables(&self) -> Vec<&str> {
        let mut used = BTreeSet::new();
        self.document.variables_used(&mut used);
        self.variables
            .keys()
            .map(String::as_str)
            .filter(|name| !used.contains(name))
            .collect()
    }

    /// The file as data, without the tests of an embedded rule.
    pub fn to_json(&self) -> Value {
        self.document.to_json()
    }

    /// Every predicate of the rule: `applies` and `check`.
    pub fn predicates(&self) -> impl Iterator<Item = &Predicate> {
        self.applies.iter().chain([&self.check])
    }
}

impl RuleTest {
    /// Everything the test gives, on the rule's first platform unless it names a system.
    pub fn bundle(&self) -> crate::facts::Facts {
        let mut facts = self.facts.clone();
        facts.entry("os").or_insert_with(
            || json!({"id": self.platform.id, "version_id": self.platform.version}),
        );
        crate::facts::Facts {
            host: crate::facts::Host {
                hostname: "test".to_owned(),
                machine_id: None,
            },
            collected_at: self.collected_at,
            collector: "test".to_owned(),
            facts,
            timings_ms: BTreeMap::new(),
        }
    }
}

/// The text before `tests:`, when that is the last field.
fn before_tests(text: &str) -> Option<&str> {
    let at = text.find("\ntests:\n")? + 1;
    let (head, tail) = text.split_at(at);
    let inside = |line: &str| line.is_empty() || line.starts_with([' ', '-', '#']);
    tail.lines().skip(1).all(inside).then_some(head)
}

fn decode_rule(document: Node, values: &Variables, patterns: &mut Patterns) -> Result<Rule, Fault> {
    let fields = document.fields("the rule", &FIELDS)?;
    let variables = match fields.get("variables") {
        Some(node) => variables(node)?,
        None => BTreeMap::new(),
    };
    let nodes = bind(
        &variables,
        fields.get("variables").unwrap_or(&document),
        values,
    )?;
    let digest = digest(&document, &nodes);
    let mut decoder = Decoder::new(&nodes, patterns);
    let applies = fields
        .get("applies")
        .map(|node| decoder.predicate(node))
        .transpose()?;
    let check = decoder.predicate(fields.need("check")?)?;
    let platforms = platforms(fields.need("platforms")?)?;
    let first = platforms.first().expect("an empty list was refused");
    let tests = tests(fields.need("tests")?, first)?;
    Ok(Rule {
        id: id(fields.need("id")?)?,
        title: fields.need_text("title")?,
        description: fields.need_text("description")?,
        rationale: fields.need_text("rationale")?,
        severity: one_of(
            fields.need("severity")?,
            "`severity`",
            &Severity::ALL.map(|s| (s.name(), s)),
        )?,
        platforms,
        references: references(fields.get("references"))?,
        applies,
        check,
        fix: fix(fields.need("fix")?, &decoder)?,
        tests: Tests::Parsed(tests),
        category: String::new(),
        file: String::new(),
        definition: digest.clone(),
        digest,
        site_values: Variables::new(),
        variables,
        document,
    })
}

/// Over the rule without its tests, so that a better test is not a changed rule, and over the
/// values in use, so that another value is.
fn digest(document: &Node, values: &BTreeMap<String, Node>) -> String {
    let Value::Object(mut rule) = document.to_json() else {
        return String::new();
    };
    rule.shift_remove("tests");
    let values: Map<_, _> = values
        .iter()
        .map(|(name, node)| (name.clone(), node.to_json()))
        .collect();
    let whole = json!({"rule": rule, "values": values});
    crate::judge::hex(&Sha256::digest(canonical_json(&whole)))
}

/// Lower case words joined by hyphens.
pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_BYTES_MAX
        && text.split('-').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

fn id(node: &Node) -> Result<String, Fault> {
    let text = node.text("`id`")?;
    if is_id(text) {
        return Ok(text.to_owned());
    }
    Err(Fault::at(
        node.at,
        format!(
            "the id `{text}` is not lower case words joined by hyphens, at most {ID_BYTES_MAX} bytes"
        ),
    ))
}

fn one_of<T: Copy>(node: &Node, what: &str, known: &[(&str, T)]) -> Result<T, Fault> {
    let text = node.text(what)?;
    known
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Fault::at(node.at, format!("{what} is `{text}`")).next(suggestion(text, &names))
        })
}

fn platforms(node: &Node) -> Result<Vec<Platform>, Fault> {
    let list = node.texts("`platforms`")?;
    if list.is_empty() {
        return Err(Fault::at(node.at, "`platforms` is empty")
            .next("name at least one, for example debian-12"));
    }
    list.iter()
        .map(|text| match text.split_once('-') {
            Some((id, version)) if !id.is_empty() && !version.is_empty() => Ok(Platform {
                id: id.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err(Fault::at(node.at, format!("`{text}` is no platform"))
                .next("write ID-VERSION, for example debian-12")),
        })
        .collect()
}

fn references(node: Option<&Node>) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let Some(node) = node else {
        return Ok(BTreeMap::new());
    };
    node.map("`references`")?
        .iter()
        .map(|(key, ids)| Ok((key.name.clone(), ids.texts(&format!("`{}`", key.name))?)))
        .collect()
}

fn fix(node: &Node, decoder: &Decoder<'_>) -> Result<Fix, Fault> {
    let fields = node.fields("`fix`", &["summary", "commands", "apply"])?;
    let summary = fields.need_text("summary")?;
    let commands = match fields.get("commands") {
        Some(commands) => commands.texts("`commands`")?,
        None => Vec::new(),
    };
    let apply = match fields.get("apply") {
        Some(steps) => step::steps(steps, decoder)?,
        None => Vec::new(),
    };
    Ok(Fix {
        summary,
        commands,
        apply,
    })
}

const TYPES: [(&str, VariableType); 5] = [
    ("int", VariableType::Int),
    ("string", VariableType::String),
    ("list", VariableType::List),
    ("mode", VariableType::Mode),
    ("bool", VariableType::Bool),
];

fn variables(node: &Node) -> Result<BTreeMap<String, Variable>, Fault> {
    let mut variables = BTreeMap::new();
    for (Key { name, .. }, body) in node.map("`variables`")? {
        let what = format!("the variable `{name}`");
        let fields = body.fields(&what, &["type", "default", "description"])?;
        let kind = one_of(fields.need("type")?, &format!("the type of {what}"), &TYPES)?;
        let default = fields.need("default")?;
        let value = default.to_json();
        if !kind.admits(&value) {
            return Err(Fault::at(
                default.at,
                format!("the default of {what} is {}, wanted {kind}", default.kind()),
            ));
        }
        let description = match fields.get("description") {
            Some(text) => text.text("`description`")?.to_owned(),
            None => String::new(),
        };
        variables.insert(
            name.clone(),
            Variable {
                kind,
                default: value,
                description,
            },
        );
    }
    Ok(variables)
}

/// Each variable's value as a node, standing where the variables are declared.
fn bind(
    declared: &BTreeMap<String, Variable>,
    section: &Node,
    values: &Variables,
) -> Result<BTreeMap<String, Node>, Fault> {
    if let Some(name) = values.keys().find(|name| !declared.contains_key(*name)) {
        let known: Vec<&str> = declared.keys().map(String::as_str).collect();
        return Err(
            Fault::at(section.at, format!("the rule has no variable `{name}`"))
                .next(suggestion(name, &known)),
        );
    }
    declared
        .iter()
        .map(|(name, variable)| {
            let value = values.get(name).unwrap_or(&variable.default);
            if !variable.kind.admits(value) {
                let what = format!("the variable `{name}` is {value}, wanted {}", variable.kind);
                return Err(Fault::at(section.at, what));
            }
            Ok((name.clone(), Node::from_json(value, section.at)))
        })
        .collect()
}

impl VariableType {
    fn admits(self, value: &Value) -> bool {
        match self {
            Self::Int => value.is_i64(),
            Self::String => value.is_string(),
            Self::List => value.is_array(),
            Self::Mode => value.as_str().and_then(parse_mode).is_some(),
            Self::Bool => value.is_boolean(),
        }
    }
}

impl fmt::Display for VariableType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "a whole number",
            Self::String => "text",
            Self::List => "a list",
            Self::Mode => "an octal mode in quotes",
            Self::Bool => "true or false",
        })
    }
}

fn tests(node: &Node, platform: &Platform) -> Result<Vec<RuleTest>, Fault> {
    let tests = node.list("`tests`")?.iter();
    tests.map(|node| test(node, platform)).collect()
}

fn test(node: &Node, platform: &Platform) -> Result<RuleTest, Fault> {
    let fields = node.fields(
        "a test",
        &["name", "facts", "expect", "collected_at", "variables"],
    )?;
    let facts = fields.need("facts")?;
    facts.map("`facts`")?;
    let Value::Object(facts) = facts.to_json() else {
        unreachable!("a mapping becomes an object")
    };
    let collected_at = match fields.get("collected_at") {
        Some(time) => {
            let text = time.text("`collected_at`")?;
            text.parse()
                .map_err(|_| Fault::at(time.at, format!("`{text}` is no RFC 3339 time")))?
        }
        None => TEST_COLLECTED_AT
            .parse()
            .expect("the constant is an RFC 3339 time"),
    };
    let variables = match fields.get("variables") {
        Some(values) => {
            let map = values.map("`variables`")?;
            map.iter()
                .map(|(key, value)| (key.name.clone(), value.to_json()))
                .collect()
        }
        None => Variables::new(),
    };
    Ok(RuleTest {
        name: fields.need_text("name")?,
        facts,
        expect: one_of(
            fields.need("expect")?,
            "`expect`",
            &Outcome::ALL.map(|o| (o.name(), o)),
        )?,
        collected_at,
        variables,
        line: node.at.line,
        platform: platform.clone(),
    })
}
