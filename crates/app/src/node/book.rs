//! The book of a cluster: where each node is found, and which ones were removed. Every node has one, and
//! they tell each other theirs.
//!
//! Merging takes of each node the entry with the higher number, and a removal over any entry; so whoever
//! merges the same books in whatever order has the same in the end. A node's own address is its own to
//! say: what others have of it is overtaken by a higher number. Whoever is heard here showed a certificate
//! of the cluster and is not removed; such a node is believed.

use std::net::SocketAddr;

use replica::machine::NodeId;
use serde::{Deserialize, Serialize};

use super::settings::{MEMBERS_MAX, Member, REMOVED_MAX, Removed, Settings, is_name};

/// Numbers rise by one with each change. One that is near the end of them was made up, and would stand for ever.
const NUMBER_MAX: u64 = u64::MAX / 2;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    nodes: Vec<Entry>,
}

/// Of one node. Also what `node list --output json` prints: [`Book`]s are carried by hand as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    node: String,
    name: String,
    /// None once it was removed.
    address: Option<SocketAddr>,
    /// None in lists that earlier programs printed: below every other.
    #[serde(default)]
    number: u64,
    #[serde(default)]
    is_removed: bool,
    #[serde(default)]
    is_founder: bool,
}

impl Book {
    pub(crate) fn of(settings: &Settings) -> Self {
        let members = settings.members.iter().map(|member| Entry {
            node: hex(member.node),
            name: member.name.clone(),
            address: Some(member.address),
            number: member.number,
            is_removed: false,
            is_founder: member.is_founder,
        });
        let removed = settings.removed.iter().map(|removed| Entry {
            node: hex(removed.node),
            name: removed.name.clone(),
            address: None,
            number: 0,
            is_removed: true,
            is_founder: false,
        });
        Self {
            nodes: members.chain(removed).collect(),
        }
    }

    /// From a list that `node list` printed.
    pub(crate) fn listed(text: &[u8]) -> Result<Self, String> {
        let nodes: Vec<Entry> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        nodes.iter().try_for_each(|entry| entry.check().map(drop))?;
        Ok(Self { nodes })
    }

    /// Takes over what is news. Entries that make no sense are passed over.
    pub(crate) fn merge_into(&self, settings: &mut Settings) {
        let checked = || {
            let entries = self.nodes.iter();
            entries.filter_map(|entry| Some((entry.check().ok()?, entry)))
        };
        // First: a removed node gives back its name.
        for (node, entry) in checked().filter(|(_, entry)| entry.is_removed) {
            remove(settings, node, &entry.name);
        }
        for (node, entry) in checked().filter(|(_, entry)| !entry.is_removed) {
            if let Some(address) = entry.address {
                take(
                    settings,
                    Member {
                        node,
                        name: entry.name.clone(),
                        address,
                        number: entry.number,
                        is_founder: entry.is_founder,
                    },
                );
            }
        }
    }
}

impl Entry {
    fn check(&self) -> Result<NodeId, String> {
        let node = u128::from_str_radix(&self.node, 16)
            .map_err(|_| format!("`{}` is no id of a node", crate::present::safe(&self.node)))?;
        if self.number > NUMBER_MAX {
            let number = self.number;
            return Err(format!(
                "{number} is no number of an entry: nothing could be above it"
            ));
        }
        match is_name(&self.name) {
            true => Ok(NodeId(node)),
            false => Err(format!(
                "`{}` is no name of a node",
                crate::present::safe(&self.name)
            )),
        }
    }
}

/// Removed once is removed for ever. Nobody is told by others that it is gone itself: they refuse it.
pub(crate) fn remove(settings: &mut Settings, node: NodeId, name: &str) {
    let is_known = settings.removed.iter().any(|removed| removed.node == node);
    if is_known || node == settings.node || settings.removed.len() >= REMOVED_MAX {
        return;
    }
    settings.members.retain(|member| member.node != node);
    settings.removed.push(Removed {
        node,
        name: name.to_owned(),
    });
}

fn take(settings: &mut Settings, told: Member) {
    if settings.removed.iter().any(|it| it.node == told.node) {
        return;
    }
    let own = settings.node;
    let found = settings.members.iter_mut().find(|it| it.node == told.node);
    let Some(known) = found else {
        if settings.members.len() < MEMBERS_MAX {
            settings.members.push(told);
        }
        return;
    };
    // Once and for ever, whatever number the entry has: an earlier program does not tell it on.
    known.is_founder |= told.is_founder;
    if known.node == own {
        // Out of an older copy of this directory, or a life before: the address is where it is.
        let is_answered = (known.number..NUMBER_MAX).contains(&told.number);
        if is_answered && told.address != known.address {
            known.number = told.number + 1;
        }
        return;
    }
    let order = |member: &Member| (member.number, member.address, member.name.clone());
    if order(&told) > order(known) {
        let is_founder = known.is_founder;
        *known = Member { is_founder, ..told };
    }
}

fn hex(node: NodeId) -> String {
    format!("{:032x}", node.0)
}

#[cfg(test)]
mod tests {
    use wal::{Generation, Identity, JournalId};

    use super::*;

    fn member(node: u128, port: u16, number: u64) -> Member {
        Member {
            node: NodeId(node),
            name: format!("n{node}"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            number,
            is_founder: false,
        }
    }

    fn of(node: u128, members: &[Member]) -> Settings {
        Settings {
            cluster: 9,
            node: NodeId(node),
            listen: SocketAddr::from(([127, 0, 0, 1], 1)),
            journal: Identity {
                journal: JournalId([1; 16]),
                generation: Generation(1),
            },
            is_founder: false,
            members: members.to_vec(),
            removed: Vec::new(),
        }
    }

    fn told(mut settings: Settings, books: &[&Settings]) -> Settings {
        for other in books {
            Book::of(other).merge_into(&mut settings);
        }
        settings.members.sort_by_key(|member| member.node);
        settings.removed.sort_by_key(|removed| removed.node);
        settings
    }

    #[test]
    fn an_entry_is_taken_from_a_higher_number_only() {
        let known = || of(1, &[member(1, 1, 1), member(2, 20, 5)]);
        for (port, number, wanted) in [(21, 6, 21), (21, 4, 20), (22, 5, 22), (19, 5, 20)] {
            let other = of(3, &[member(2, port, number)]);
            let found = told(known(), &[&other]);
            assert_eq!(found.members[1].address.port(), wanted, "{port} {number}");
        }
    }

    #[test]
    fn books_in_any_order_come_to_the_same() {
        let mut removing = of(4, &[member(4, 4, 1)]);
        remove(&mut removing, NodeId(2), "n2");
        let books = [
            of(2, &[member(2, 20, 7), member(3, 30, 1)]),
            of(3, &[member(2, 21, 3), member(3, 31, 2), member(5, 5, 1)]),
            removing,
        ];
        let [a, b, c] = &books;
        let base = || of(1, &[member(1, 1, 1)]);
        let wanted = told(base(), &[a, b, c]);
        assert_eq!(wanted.members.len(), 4, "{wanted:?}");
        assert_eq!(wanted.removed.len(), 1, "{wanted:?}");
        for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            assert_eq!(told(base(), &order), wanted);
            assert_eq!(told(told(base(), &order), &order), wanted, "again");
        }
    }

    #[test]
    fn a_removed_node_comes_back_by_no_number() {
        let mut settings = of(1, &[member(1, 1, 1), member(2, 2, 1)]);
        remove(&mut settings, NodeId(2), "n2");
        let other = of(3, &[member(2, 2, u64::MAX), member(3, 3, 1)]);
        let found = told(settings, &[&other]);
        let nodes: Vec<u128> = found.members.iter().map(|it| it.node.0).collect();
        assert_eq!(nodes, [1, 3]);
    }

    #[test]
    fn a_node_knows_its_own_address_best() {
        let other = of(2, &[member(1, 99, 8), member(2, 2, 1)]);
        let found = told(of(1, &[member(1, 1, 3)]), &[&other]);
        assert_eq!(
            (found.members[0].address.port(), found.members[0].number),
            (1, 9)
        );
        let mut removing = of(2, &[member(2, 2, 1)]);
        removing.removed.push(Removed {
            node: NodeId(1),
            name: "n1".to_owned(),
        });
        let found = told(found, &[&removing]);
        assert_eq!(
            found.members[0].node,
            NodeId(1),
            "it stays among its members"
        );
    }

    /// One more than the highest number there is ended the thread that hears of other nodes, at each start; and
    /// nothing overtook a wrong address with it.
    #[test]
    fn a_number_that_nothing_could_be_above_is_passed_over() {
        for number in [u64::MAX, u64::MAX - 1, NUMBER_MAX + 1] {
            let other = of(3, &[member(1, 99, number), member(2, 99, number)]);
            let found = told(of(1, &[member(1, 1, 1), member(2, 2, 1)]), &[&other]);
            let kept = found
                .members
                .iter()
                .map(|it| (it.address.port(), it.number));
            assert_eq!(kept.collect::<Vec<_>>(), [(1, 1), (2, 1)], "{number}");
        }
        // What a node answers with is taken by everybody.
        for (number, answered) in [(NUMBER_MAX - 1, NUMBER_MAX), (NUMBER_MAX, 1)] {
            let other = of(3, &[member(1, 99, number)]);
            let found = told(of(1, &[member(1, 1, 1)]), &[&other]);
            assert_eq!(found.members[0].number, answered);
            let everybody = told(of(4, &[]), &[&found]);
            assert_eq!(everybody.members[0].number, answered);
        }
    }

    #[test]
    fn who_made_the_cluster_is_told_on_and_never_forgotten() {
        let founder = |number| Member {
            is_founder: true,
            ..member(2, 2, number)
        };
        let later = of(3, &[member(2, 22, 9)]);
        let earlier = of(4, &[founder(1)]);
        for books in [[&later, &earlier], [&earlier, &later]] {
            let found = told(of(1, &[member(1, 1, 1)]), &books);
            let wanted = Member {
                address: SocketAddr::from(([127, 0, 0, 1], 22)),
                ..founder(9)
            };
            assert_eq!(found.members[1], wanted);
        }
    }

    #[test]
    fn a_book_without_end_fills_nothing() {
        let many: Vec<Member> = (2..2000).map(|node| member(node, 7, 1)).collect();
        let mut removing = of(2, &many);
        for node in 3000..6000 {
            removing.removed.push(Removed {
                node: NodeId(node),
                name: "x".to_owned(),
            });
        }
        let found = told(of(1, &[member(1, 1, 1)]), &[&removing]);
        assert_eq!(found.members.len(), MEMBERS_MAX);
        assert_eq!(found.removed.len(), REMOVED_MAX);
        let len = serde_json::to_vec(&Book::of(&found)).unwrap().len();
        assert!(len < replica::transport::NOTE_LEN_MAX / 2, "{len}");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "{}",
            r#"[{"node":"xyz","name":"a","address":"127.0.0.1:1"}]"#,
            r#"[{"node":"1","name":"a b","address":"127.0.0.1:1"}]"#,
            r#"[{"node":"1","name":"a","address":"nowhere"}]"#,
        ] {
            assert!(Book::listed(text.as_bytes()).is_err(), "{text}");
        }
        // As an earlier program printed it.
        let old = r#"[{"node":"2","name":"b","address":"127.0.0.1:2","is_this":false}]"#;
        let mut settings = of(1, &[member(1, 1, 1)]);
        Book::listed(old.as_bytes())
            .unwrap()
            .merge_into(&mut settings);
        assert_eq!(
            settings.members[1],
            Member {
                name: "b".to_owned(),
                ..member(2, 2, 0)
            }
        );
    }
}
