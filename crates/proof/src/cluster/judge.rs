//! What the histories of a round must be: one acknowledger at a time, one order, nothing lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{
    super::crash::breach::Breach,
    history::{Action, Operation, Told, Transfer, What},
    linear::{self, Step, Verdict},
    rows::{self, Held},
};

/// The end of a round as one node has it.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) node: usize,
    pub(super) asked: Duration,
    pub(super) answered: Duration,
    pub(super) rows: Held,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) registers: u64,
    pub(super) undecided: u64,
    pub(super) transfers: u64,
}

/// When nothing could be acknowledged rightly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barred {
    /// By this node, or by any.
    pub(super) node: Option<usize>,
    pub(super) from: Duration,
    pub(super) until: Duration,
    pub(super) why: Bar,
}

/// Why it could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// The coordinator was out of reach for longer than a lease lives.
    Lease,
    /// No other node had what was sent, or could say so.
    Copies,
}

/// Nobody acknowledges what begins and ends meanwhile.
pub(super) fn nobody_barred_acknowledged(
    operations: &[Operation],
    barred: &[Barred],
) -> Result<(), Breach> {
    for span in barred {
        let acknowledged = operations.iter().find(|it| {
            it.lsn().is_some()
                && span.node.is_none_or(|node| node == it.node)
                && span.from < it.begun
                && it.ended < span.until
        });
        if let Some(operation) = acknowledged {
            let [from, until] = [span.from, span.until].map(|it| it.as_secs_f64());
            let (promise, lacks) = match span.why {
                Bar::Lease => ("without a lease nothing is acknowledged", "lease"),
                Bar::Copies => ("without a copy nothing is acknowledged", "copies"),
            };
            return Err(Breach::new(
                promise,
                format!("no {lacks} from {from:.3} to {until:.3} s"),
                operation.words(),
            ));
        }
    }
    Ok(())
}

/// Compares what clients were told with what every node has after it.
pub(super) fn judge(operations: &[Operation], copies: &[Copy]) -> Result<Judged, Breach> {
    positions_are_in_order(operations)?;
    copies_agree(copies)?;
    let mut judged = Judged::default();
    for operation in operations {
        judged.acknowledged += u64::from(operation.lsn().is_some());
        judged.unknown += u64::from(operation.told == Told::Unknown);
    }
    for copy in copies {
        inserts_are_there(operations, copy)?;
        transfers_have_an_order(operations, copy)?;
    }
    judged.transfers = operations
        .iter()
        .filter(|it| matches!(it.what, What::Transfer(_)) && it.lsn().is_some())
        .count() as u64;
    for register in 0..rows::REGISTERS {
        judged.registers += 1;
        let verdict = register_is_explained(operations, copies, register)?;
        judged.undecided += u64::from(verdict == Verdict::Undecided);
    }
    Ok(judged)
}

/// What was told of positions has one order, whatever the nodes have.
pub(super) fn positions_are_in_order(operations: &[Operation]) -> Result<(), Breach> {
    one_position_each(operations)?;
    positions_follow_time(operations)
}

/// Two nodes that acknowledge at once give the same position to two writes.
fn one_position_each(operations: &[Operation]) -> Result<(), Breach> {
    let mut seen: HashMap<u64, &Operation> = HashMap::new();
    for operation in operations {
        let Some(lsn) = operation.lsn() else { continue };
        if let Some(other) = seen.insert(lsn, operation) {
            return Err(Breach::new(
                "one write has one position",
                other.words(),
                operation.words(),
            ));
        }
    }
    Ok(())
}

/// What begun after another one had been acknowledged has a higher position. An old primary that goes
/// on beside another one breaks it, whatever the positions are.
fn positions_follow_time(operations: &[Operation]) -> Result<(), Breach> {
    let mut ordered: Vec<(u64, &Operation)> = operations
        .iter()
        .filter_map(|it| Some((it.lsn()?, it)))
        .collect();
    ordered.sort_unstable_by_key(|(lsn, _)| *lsn);
    let mut latest: Option<&Operation> = None;
    for (_, operation) in ordered {
        if let Some(earlier) = latest
            && operation.ended < earlier.begun
        {
            return Err(Breach::new(
                "what is acknowledged first has the lower position",
                operation.words(),
                earlier.words(),
            ));
        }
        if latest.is_none_or(|latest| latest.begun < operation.begun) {
            latest = Some(operation);
        }
    }
    Ok(())
}

fn copies_agree(copies: &[Copy]) -> Result<(), Breach> {
    let Some((first, others)) = copies.split_first() else {
        return Ok(());
    };
    for other in others {
        if other.rows != first.rows {
            let words = |copy: &Copy| {
                format!(
                    "node {}: {} rows; {}",
                    copy.node,
                    copy.rows.count(),
                    copy.rows.beyond(&first.rows, &other.rows)
                )
            };
            return Err(Breach::new(
                "every node has the same rows",
                words(first),
                words(other),
            ));
        }
    }
    Ok(())
}

fn inserts_are_there(operations: &[Operation], copy: &Copy) -> Result<(), Breach> {
    let mut asked: BTreeMap<(u16, u32), &Operation> = BTreeMap::new();
    for operation in operations {
        if let What::Insert { number } = operation.what {
            asked.insert((operation.client, number), operation);
            let is_there = copy.rows.inserts.contains_key(&(operation.client, number));
            let fits = match operation.told {
                Told::Acknowledged(_) => is_there,
                Told::NotDone => !is_there,
                Told::Unknown => true,
            };
            if !fits {
                return Err(Breach::new(
                    "what was acknowledged is on every node, and what was refused on none",
                    operation.words(),
                    format!("node {} has it: {is_there}", copy.node),
                ));
            }
        }
    }
    for (key, is_sound) in &copy.rows.inserts {
        if !is_sound || !asked.contains_key(key) {
            return Err(Breach::new(
                "rows are those that were written",
                format!("{:?}", asked.get(key).map(|it| it.words())),
                format!("node {}: other bytes in row {key:?}", copy.node),
            ));
        }
    }
    Ok(())
}

fn register_is_explained(
    operations: &[Operation],
    copies: &[Copy],
    register: u8,
) -> Result<Verdict, Breach> {
    let mut steps = Vec::new();
    for operation in operations {
        if let What::Register {
            register: of,
            action,
        } = operation.what
            && of == register
            && operation.told != Told::NotDone
        {
            steps.push(Step {
                begun: operation.begun,
                ended: operation.lsn().map(|_| operation.ended),
                action,
            });
        }
    }
    for copy in copies {
        let found = copy.rows.registers.get(&register).copied();
        steps.push(Step {
            begun: copy.asked,
            ended: Some(copy.answered),
            action: Action::Read {
                found: found.unwrap_or_default(),
            },
        });
    }
    match linear::explained(&steps) {
        Verdict::Contradictory => Err(Breach::new(
            format!("what is seen of register {register} has an order in time"),
            format!("{} operations", steps.len()),
            steps
                .iter()
                .map(|step| format!("{step:?}"))
                .collect::<Vec<_>>()
                .join("\n    "),
        )),
        verdict => Ok(verdict),
    }
}

/// Each transfer names, in both accounts, whom it found there: from what is there at the end the accounts
/// can be followed back to their beginnings. Every acknowledged one is on the way; the ways of all accounts
/// together, and the positions, have one order.
fn transfers_have_an_order(operations: &[Operation], copy: &Copy) -> Result<(), Breach> {
    let mut by_tag: HashMap<u64, (&Operation, Transfer)> = HashMap::new();
    for operation in operations {
        if let What::Transfer(transfer) = operation.what
            && operation.told != Told::NotDone
        {
            by_tag.insert(transfer.tag, (operation, transfer));
        }
    }
    let sum: i64 = copy.rows.accounts.values().map(|it| it.balance).sum();
    let untouched = i64::from(rows::ACCOUNTS)
        - i64::try_from(copy.rows.accounts.len()).expect("there are a few accounts");
    let sum = sum + untouched * rows::OPENING_BALANCE;
    let wanted = i64::from(rows::ACCOUNTS) * rows::OPENING_BALANCE;
    if sum != wanted {
        let promise = "transfers keep the sum of all accounts";
        let found = format!("{sum} on node {}", copy.node);
        return Err(Breach::new(promise, wanted.to_string(), found));
    }
    let mut before: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for account in 0..rows::ACCOUNTS {
        let last = copy.rows.accounts.get(&account).map_or(0, |it| it.tag);
        follow(account, last, &by_tag, &mut before)?;
    }
    for (operation, transfer) in by_tag.values() {
        if operation.lsn().is_some() && !before.contains_key(&transfer.tag) {
            return Err(Breach::new(
                "no acknowledged transfer is lost",
                operation.words(),
                format!("node {}: none of its accounts was built on it", copy.node),
            ));
        }
    }
    in_one_order(before, &by_tag)
}

/// Follows one account from its last writer back to its first.
fn follow(
    account: u8,
    last: u64,
    by_tag: &HashMap<u64, (&Operation, Transfer)>,
    before: &mut BTreeMap<u64, BTreeSet<u64>>,
) -> Result<(), Breach> {
    let mut at = last;
    let mut passed = HashSet::new();
    while at != 0 {
        let Some((_, transfer)) = by_tag.get(&at) else {
            return Err(Breach::new(
                "an account was written by those who said so",
                "-",
                format!(
                    "account {account} was written by {at:x}, which nobody tried or which was refused"
                ),
            ));
        };
        let place = transfer.accounts.iter().position(|it| *it == account);
        let found = place.map_or(0, |place| transfer.found[place]);
        before.entry(at).or_default();
        if found != 0 {
            before.entry(at).or_default().insert(found);
        }
        if place.is_none() || !passed.insert(at) {
            return Err(Breach::new(
                "an account has one history",
                "-",
                format!("account {account}: {at:x} twice, or not a transfer of it"),
            ));
        }
        at = found;
    }
    Ok(())
}

/// Nobody is before itself, also where positions count.
fn in_one_order(
    mut before: BTreeMap<u64, BTreeSet<u64>>,
    by_tag: &HashMap<u64, (&Operation, Transfer)>,
) -> Result<(), Breach> {
    let mut placed: Vec<(u64, u64)> = before
        .keys()
        .filter_map(|tag| Some((by_tag.get(tag)?.0.lsn()?, *tag)))
        .collect();
    placed.sort_unstable();
    for pair in placed.windows(2) {
        if let [(_, earlier), (_, later)] = pair {
            before.entry(*later).or_default().insert(*earlier);
        }
    }
    let mut behind: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut waits: BTreeMap<u64, usize> = BTreeMap::new();
    for (tag, earlier) in &before {
        waits.insert(*tag, earlier.len());
        for one in earlier {
            behind.entry(*one).or_default().push(*tag);
        }
    }
    let mut free: Vec<u64> = before
        .iter()
        .filter(|(_, earlier)| earlier.is_empty())
        .map(|(tag, _)| *tag)
        .collect();
    let mut done = 0;
    while let Some(tag) = free.pop() {
        done += 1;
        for later in behind.remove(&tag).unwrap_or_default() {
            let left = waits.get_mut(&later).expect("it waits for this one");
            *left -= 1;
            if *left == 0 {
                free.push(later);
            }
        }
    }
    if done == before.len() {
        return Ok(());
    }
    let stuck = waits.iter().find(|(_, left)| **left > 0);
    let words = stuck
        .and_then(|(tag, _)| by_tag.get(tag))
        .map(|it| it.0.words());
    Err(Breach::new(
        "transfers have one order, and it is that of their positions",
        format!("{} transfers", before.len()),
        words.unwrap_or_default(),
    ))
}
