//! Evidence as data, and what it gives.

use wal::{Epoch, Lsn};

use super::super::*;
use crate::machine::{
    EpochId, Mode, Replaced, Version,
    testing::{config, nodes, position, sealed},
};

const EPOCH: Epoch = Epoch(10);

/// Promises of nodes 1, 2, … by their ends, in a group of `members`; node 1 holds epoch 1, and the
/// candidate is the first that answered.
fn evidence(members: u128, mode: Mode, ends: &[(u128, u64, u64)]) -> Evidence {
    let answers = ends
        .iter()
        .map(|&(node, epoch, lsn)| (NodeId(node), sealed(members, mode, position(epoch, lsn))))
        .collect();
    Evidence {
        candidate: NodeId(ends[0].0),
        epoch: EPOCH,
        answers,
        heard: Epoch(9),
        force: None,
    }
}

fn change(evidence: &mut Evidence, node: u128, change: impl FnOnce(&mut Sealed)) {
    change(evidence.answers.get_mut(&NodeId(node)).unwrap());
}

/// The rule that denied, and how; `None`: approved.
fn denied(evidence: &Evidence) -> Option<(Rule, Refusal)> {
    let judgement = judge(evidence);
    let rules: Vec<Rule> = judgement
        .findings
        .iter()
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(rules, Rule::ALL, "every rule is explained");
    for finding in &judgement.findings {
        assert!(!finding.evidence.is_empty(), "{finding:?}");
    }
    match judgement.verdict {
        Verdict::Approved(_) => None,
        Verdict::Denied(denial) => {
            assert!(denial.clause.starts_with("AUT-"));
            Some((denial.rule, denial.refusal))
        }
    }
}

fn failed(evidence: &Evidence) -> Option<Rule> {
    denied(evidence).map(|(rule, _)| rule)
}

/// Who promised, of groups of all sizes and modes, all with the same end; node 1 is the holder.
///
/// Proves: AUT-6
#[test]
fn so_many_promises_are_enough_and_one_less_is_not() {
    use Rule::{Fence, OneAtATime};
    let lost = |count: u128, first: u128| -> Vec<(u128, u64, u64)> {
        (first..first + count).map(|node| (node, 1, 5)).collect()
    };
    for (members, mode, first, count, expected) in [
        // Without the holder.
        (2, Mode::Sync(1), 2, 1, None),
        (2, Mode::All, 2, 1, None),
        (2, Mode::Async, 2, 1, Some(OneAtATime)),
        (3, Mode::Sync(1), 2, 1, Some(OneAtATime)),
        (3, Mode::Sync(1), 2, 2, None),
        (3, Mode::Sync(2), 2, 1, Some(OneAtATime)),
        (3, Mode::Sync(2), 2, 2, None),
        (3, Mode::All, 2, 2, None),
        (3, Mode::Async, 2, 2, Some(Fence)),
        (5, Mode::Sync(1), 2, 3, Some(Fence)),
        (5, Mode::Sync(1), 2, 4, None),
        (5, Mode::Sync(2), 2, 2, Some(OneAtATime)),
        (5, Mode::Sync(2), 2, 3, None),
        (5, Mode::Sync(4), 2, 2, Some(OneAtATime)),
        (5, Mode::Async, 2, 4, Some(Fence)),
        // More copies than there are members: nothing was acknowledged, and one at a time holds.
        (3, Mode::Sync(7), 2, 2, None),
        (2, Mode::Sync(7), 2, 1, Some(OneAtATime)),
        // With the holder.
        (1, Mode::Async, 1, 1, None),
        (1, Mode::All, 1, 1, None),
        (2, Mode::Async, 1, 2, None),
        (3, Mode::Async, 1, 2, None),
        (3, Mode::Sync(1), 1, 1, Some(OneAtATime)),
        (5, Mode::Sync(1), 1, 2, Some(OneAtATime)),
        (5, Mode::Sync(1), 1, 3, None),
        (5, Mode::Async, 1, 3, None),
    ] {
        let evidence = evidence(members, mode, &lost(count, first));
        let story = format!("{count} of {members}, {mode:?}, from node {first}");
        assert_eq!(failed(&evidence), expected, "{story}");
    }
}

/// What is changed in sound evidence, and what that gives.
type Case = (fn(&mut Evidence), Rule, Refusal, &'static str);

fn cases_of_positions() -> Vec<Case> {
    vec![
        (
            |e| change(e, 3, |answer| answer.flushed = position(1, 6)),
            Rule::NothingLost,
            Refusal::ReplicaBehind {
                own: position(1, 5),
                highest: position(1, 6),
            },
            "AUT-8",
        ),
        (
            |e| change(e, 3, |answer| answer.flushed = position(2, 4)),
            Rule::NothingLost,
            Refusal::ReplicaBehind {
                own: position(1, 5),
                highest: position(2, 4),
            },
            "AUT-8",
        ),
        (
            |e| change(e, 2, |answer| answer.committed = Lsn::new(6)),
            Rule::NothingUnseen,
            Refusal::VisibilityViolation {
                committed: Lsn::new(6),
                own: Lsn::new(5),
            },
            "AUT-8",
        ),
        (
            |e| change(e, 3, |answer| answer.flushed_id = EpochId(77)),
            Rule::NothingLost,
            Refusal::AuthorityAmbiguous(format!("{:032x} ends in another epoch 1", 3)),
            "AUT-1",
        ),
    ]
}

fn cases_of_nodes() -> Vec<Case> {
    vec![
        (
            |e| change(e, 2, |answer| answer.is_amnesiac = true),
            Rule::Sound,
            Refusal::InvalidState(
                "its disk has less than it promised, or a rebuild was not finished",
            ),
            "AUT-6",
        ),
        (
            |e| {
                for answer in e.answers.values_mut() {
                    *answer = sealed(5, Mode::Sync(1), position(1, 5));
                }
                let third = e.answers[&NodeId(3)].clone();
                e.answers.insert(NodeId(4), third);
            },
            Rule::Fence,
            Refusal::PrimaryStillActive,
            "AUT-1",
        ),
        (
            |e| {
                for answer in e.answers.values_mut() {
                    answer.holders.clear();
                    answer.config.mode = Mode::Async;
                }
            },
            Rule::Fence,
            Refusal::PrimaryStillActive,
            "AUT-1",
        ),
        (
            |e| e.answers = e.answers.split_off(&NodeId(3)),
            Rule::Answer,
            Refusal::EvidenceMissing(format!("no answer of {:032x} itself", 2)),
            "AUT-6",
        ),
    ]
}

fn cases_of_configurations_and_orders() -> Vec<Case> {
    vec![
        (
            |e| change(e, 3, |answer| answer.config.mode = Mode::Async),
            Rule::Enabled,
            Refusal::AuthorityAmbiguous(
                "two configurations are configuration 0 of epoch 0".to_owned(),
            ),
            "AUT-1",
        ),
        (
            |e| {
                for answer in e.answers.values_mut() {
                    answer.config.members = nodes([1, 3]);
                }
            },
            Rule::Member,
            Refusal::NotAReplica,
            "AUT-6",
        ),
        (
            |e| {
                for answer in e.answers.values_mut() {
                    answer.config.members.clear();
                }
            },
            Rule::Enabled,
            Refusal::ReplicationDisabled,
            "AUT-6",
        ),
        (
            |e| e.force = Some(" \n".to_owned()),
            Rule::Request,
            Refusal::InvalidRequest(
                "a forced promotion needs a statement how the primary was stopped".to_owned(),
            ),
            "AUT-9",
        ),
        (
            |e| e.heard = EPOCH,
            Rule::Number,
            Refusal::EpochStale { highest: EPOCH },
            "AUT-3",
        ),
    ]
}

/// Proves: AUT-7, AUT-8
#[test]
fn a_denial_is_typed_and_names_rule_and_clause() {
    let sound = || evidence(3, Mode::Sync(1), &[(2, 1, 5), (3, 1, 5)]);
    assert_eq!(denied(&sound()), None);
    let cases = [
        cases_of_positions(),
        cases_of_nodes(),
        cases_of_configurations_and_orders(),
    ];
    for (change, rule, refusal, clause) in cases.concat() {
        let mut evidence = sound();
        change(&mut evidence);
        let Verdict::Denied(denial) = judge(&evidence).verdict else {
            panic!("{rule:?} {refusal:?} was not found");
        };
        assert_eq!(
            (denial.rule, &denial.refusal, denial.clause),
            (rule, &refusal, clause)
        );
    }
}

#[test]
fn a_promise_of_an_amnesiac_is_none() {
    let mut evidence = evidence(3, Mode::Sync(1), &[(2, 1, 5), (3, 1, 9)]);
    change(&mut evidence, 3, |answer| answer.is_amnesiac = true);
    let (rule, refusal) = denied(&evidence).unwrap();
    assert_eq!(rule, Rule::OneAtATime, "and its end says nothing");
    let Refusal::EvidenceMissing(text) = refusal else {
        panic!("{refusal:?}");
    };
    assert!(
        text.starts_with("promised by 1 of 3, 2 needed; no promise of 0"),
        "{text}"
    );
}

/// Node 2 asked and was denied, so it never wrote; its promises lie at the nodes that answer here,
/// and above them the holder, node 1, writes on with node 5.
#[test]
fn the_asker_of_the_last_promise_is_not_taken_for_the_only_holder() {
    let mut evidence = evidence(5, Mode::Sync(1), &[(3, 1, 5), (2, 1, 5), (4, 1, 5)]);
    for node in 2..=4 {
        change(&mut evidence, node, |answer| answer.holders = nodes([1, 2]));
    }
    assert_eq!(
        denied(&evidence),
        Some((Rule::Fence, Refusal::PrimaryStillActive))
    );
    for node in 2..=4 {
        change(&mut evidence, node, |answer| answer.holders = nodes([2]));
    }
    assert_eq!(denied(&evidence), None);
}

/// The highest configuration counts, by the epoch it was made under, whoever has it.
#[test]
fn a_stale_configuration_decides_nothing() {
    let of = |epoch, number| Version {
        epoch: Epoch(epoch),
        number,
    };
    for (first, second, expected) in [
        (of(1, 0), of(1, 1), Some(Rule::Fence)),
        (of(1, 9), of(2, 0), Some(Rule::Fence)),
        (of(1, 1), of(1, 0), None),
        (of(2, 0), of(1, 9), None),
    ] {
        let mut evidence = evidence(3, Mode::Sync(1), &[(2, 1, 5), (3, 1, 5)]);
        change(&mut evidence, 2, |answer| answer.config.version = first);
        change(&mut evidence, 3, |answer| {
            answer.config = Config {
                version: second,
                ..config(3, Mode::Async)
            };
        });
        assert_eq!(failed(&evidence), expected, "{first:?}, {second:?}");
    }
}

/// A record that was acknowledged by the old rule may lie on fewer nodes than the new one meets.
#[test]
fn as_long_as_a_configuration_names_what_it_replaces_both_must_be_satisfied() {
    use Mode::{Async, Sync};
    use Rule::{Fence, Member, OneAtATime};
    // Members of a sync(1), then what it replaces, then who promised.
    type Case = (u128, Mode, &'static [u128], &'static [u128], Option<Rule>);
    let cases: [Case; 8] = [
        // Acknowledged by node 1 alone, before sync(1).
        (2, Async, &[1, 2], &[2], Some(OneAtATime)),
        (3, Async, &[1, 2, 3], &[2, 3], Some(Fence)),
        (3, Async, &[1, 2, 3], &[2, 1], None),
        // Acknowledged by nodes 1 and 3, before node 3 was removed.
        (2, Sync(1), &[1, 2, 3], &[2], Some(OneAtATime)),
        (2, Sync(1), &[1, 2, 3], &[2, 3], None),
        // Node 3 is being added: as a primary it would be one more copy than the pair counts.
        (3, Sync(1), &[1, 2], &[3, 2], Some(Member)),
        (3, Sync(1), &[1, 2], &[2, 3], None),
        (3, Sync(1), &[1, 2], &[2], Some(OneAtATime)),
    ];
    for (members, mode, replaced, promised, expected) in cases {
        let ends: Vec<_> = promised.iter().map(|&node| (node, 1, 5)).collect();
        let mut evidence = evidence(members, Sync(1), &ends);
        for answer in evidence.answers.values_mut() {
            let members = nodes(replaced.iter().copied());
            answer.config.previous = Some(Replaced { members, mode });
        }
        let story = format!("{members} instead of {replaced:?} {mode:?}, {promised:?}");
        assert_eq!(failed(&evidence), expected, "{story}");
    }
}

/// Of a pair each may have promised one number to itself: neither had anything acknowledged under it.
#[test]
fn two_epochs_of_one_number_do_not_block_a_pair() {
    let mut evidence = evidence(2, Mode::Sync(1), &[(1, 8, 5), (2, 8, 7)]);
    change(&mut evidence, 2, |answer| answer.flushed_id = EpochId(77));
    assert_eq!(denied(&evidence), None);
    change(&mut evidence, 2, |answer| answer.flushed_id = EpochId(8));
    assert_eq!(failed(&evidence), Some(Rule::NothingLost));
}

#[test]
fn force_stands_in_for_evidence_and_for_nothing_else() {
    let words = "node 1 was switched off at its socket";
    let mut evidence = evidence(3, Mode::Async, &[(2, 1, 5), (3, 1, 8)]);
    change(&mut evidence, 2, |answer| answer.committed = Lsn::new(7));
    evidence.force = Some(words.to_owned());
    let judgement = judge(&evidence);
    let Verdict::Approved(proof) = judgement.verdict else {
        panic!("{judgement:?}");
    };
    let loss = Loss {
        own: position(1, 5),
        committed: Lsn::new(7),
        highest: position(1, 8),
    };
    assert_eq!((proof.epoch, proof.loss), (EPOCH, Some(loss)));
    let waived: Vec<Rule> = judgement
        .findings
        .iter()
        .filter(|finding| matches!(finding.gave, Gave::Waived(_)))
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(
        waived,
        [Rule::Fence, Rule::NothingLost, Rule::NothingUnseen]
    );
    assert!(judgement.findings[0].evidence.ends_with(words));

    evidence.heard = EPOCH;
    assert_eq!(
        failed(&evidence),
        Some(Rule::Number),
        "an epoch is minted all the same"
    );
    evidence.heard = Epoch(0);
    change(&mut evidence, 2, |answer| answer.is_amnesiac = true);
    assert_eq!(failed(&evidence), Some(Rule::Sound));
}

/// Proves: AUT-14
#[test]
fn an_explanation_names_for_each_rule_what_was_used_and_what_it_gave() {
    let mut evidence = evidence(3, Mode::Sync(1), &[(2, 1, 5), (3, 1, 4)]);
    change(&mut evidence, 2, |answer| answer.committed = Lsn::new(3));
    let judgement = judge(&evidence);
    let shown: Vec<String> = judgement
        .findings
        .iter()
        .map(|finding| format!("{:?}: {}", finding.rule, finding.evidence))
        .collect();
    let [one, two, three] = [1, 2, 3].map(|node| format!("{node:032x}"));
    let expected = [
        "Request: not forced".to_owned(),
        "Answer: own end epoch 1 record 5".to_owned(),
        "Sound: its disk has what it promised".to_owned(),
        "Enabled: configuration 0 of epoch 0".to_owned(),
        format!("Member: {one}, {two}, {three} (sync(1))"),
        "Number: asks for 10, 9 was heard of".to_owned(),
        "OneAtATime: promised by 2 of 3, 2 needed".to_owned(),
        format!(
            "Fence: may hold an epoch: {one}; promised by 2 of 3, 2 leave too few to acknowledge; \
             did not promise: {one}"
        ),
        format!("NothingLost: {two} ends at epoch 1 record 5, {three} ends at epoch 1 record 4"),
        "NothingUnseen: committed up to 3, has 5".to_owned(),
    ];
    assert_eq!(shown, expected);
    let Verdict::Approved(proof) = judgement.verdict else {
        panic!("{judgement:?}");
    };
    assert_eq!(
        (proof.previous_end, proof.promised, proof.loss),
        (position(1, 5), nodes([2, 3]), None)
    );
}
