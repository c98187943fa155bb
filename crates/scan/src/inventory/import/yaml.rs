//! Ansible's inventory as YAML: groups with `hosts`, `vars` and `children`.

use super::{
    At, FILE_LEN_MAX, HOSTS_MAX, Read,
    ansible::{Groups, Variables, is_kept},
    range,
};
use crate::rule::yaml::{Key, Node, Tree, parse_within};

/// Nodes of a file: a host has a name and a handful of variables.
const NODES_MAX: usize = HOSTS_MAX * 32;
/// Groups within groups, while reading: two levels of nesting each.
const DEPTH_MAX: usize = 12;

pub(super) fn read(file: &str, text: &str, read: &mut Read) {
    let at = |line| At {
        file: file.to_owned(),
        line,
    };
    let bytes = usize::try_from(FILE_LEN_MAX).unwrap_or(usize::MAX);
    let root = match parse_within(text, bytes, NODES_MAX) {
        Ok(root) => root,
        Err(fault) => return read.refuse(&at(fault.place.line), fault.what, "mend the file"),
    };
    let Tree::Map(top) = &root.tree else {
        return read.refuse(
            &at(root.at.line),
            "an inventory is a mapping of groups",
            "begin with `all:`",
        );
    };
    let mut reader = Reader {
        file,
        groups: Groups::default(),
        read,
    };
    for (name, node) in top {
        reader.group(&name.name, node, 0);
    }
    reader.groups.into_drafts(reader.read);
}

struct Reader<'a> {
    file: &'a str,
    groups: Groups,
    read: &'a mut Read,
}

impl Reader<'_> {
    fn at(&self, line: u32) -> At {
        At {
            file: self.file.to_owned(),
            line,
        }
    }

    fn group(&mut self, name: &str, node: &Node, depth: usize) {
        let at = self.at(node.at.line);
        if depth > DEPTH_MAX || self.groups.is_full() {
            let what = "too many groups or hosts, or groups too deep within each other";
            return self.read.refuse(&at, what, "split the file");
        }
        for (key, node) in self.map(node, name) {
            let at = self.at(key.at.line);
            match key.name.as_str() {
                "hosts" => self.hosts(name, node),
                "vars" => {
                    for (variable, node) in self.map(node, "vars") {
                        let at = self.at(variable.at.line);
                        let value = text(node);
                        if is_kept(&variable.name, &value, &at, self.read) {
                            self.groups.variable(name, &variable.name, value, &at);
                        }
                    }
                }
                "children" => {
                    for (child, node) in self.map(node, "children") {
                        self.groups.child(name, &child.name);
                        self.group(&child.name, node, depth + 1);
                    }
                }
                other => {
                    let what = format!(
                        "`{}` in group `{}` is not known",
                        other.escape_debug(),
                        name.escape_debug()
                    );
                    self.read
                        .refuse(&at, what, "a group has hosts, vars and children");
                }
            }
        }
    }

    fn hosts(&mut self, group: &str, node: &Node) {
        for (key, node) in self.map(node, "hosts") {
            let at = self.at(key.at.line);
            let mut variables = Variables::new();
            for (variable, node) in self.map(node, &key.name) {
                let at = self.at(variable.at.line);
                let value = text(node);
                if is_kept(&variable.name, &value, &at, self.read) {
                    variables.insert(variable.name.clone(), (value, at));
                }
            }
            match range::expand(&key.name) {
                Ok(names) if !self.groups.is_full() => {
                    for name in names {
                        self.groups.host(group, &name, &at, variables.clone());
                    }
                }
                Ok(_) => {
                    return self.read.refuse(
                        &at,
                        "too many hosts for one import",
                        "split the file",
                    );
                }
                Err(fault) => {
                    let what = format!("host `{}`: {fault}", key.name.escape_debug());
                    self.read.refuse(&at, what, "mend this line");
                }
            }
        }
    }

    /// Nothing is an empty mapping.
    fn map<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Key, Node)] {
        match &node.tree {
            Tree::Map(map) => map,
            Tree::Null => &[],
            _ => {
                let what = format!("`{}` is not a mapping", what.escape_debug());
                let at = self.at(node.at.line);
                self.read.refuse(&at, what, "end each name with a colon");
                &[]
            }
        }
    }
}

/// What a scalar says; lists and mappings are of plays and say nothing of a host.
fn text(node: &Node) -> String {
    match &node.tree {
        Tree::Text(text) => text.clone(),
        Tree::Integer(number) => number.to_string(),
        Tree::Bool(flag) => flag.to_string(),
        Tree::Null | Tree::Decimal(_) | Tree::List(_) | Tree::Map(_) => String::new(),
    }
}
