//! The rows that clients write, and what a node has of them.
//!
//! They lie in a table of the product whose rows are looked up by name and never listed, under names that
//! no key of a site has. Each round has rows of its own, so that its history begins with nothing.

use std::collections::BTreeMap;

use store::{Keys, Snapshot, TableId};

/// Of the product's: see above.
pub(super) const TABLE: &str = "site.key";

const MARK: u8 = 0xFF;
const INSERT: u8 = b'i';
const REGISTER: u8 = b'r';
const ACCOUNT: u8 = b'a';
/// What makes a transaction that only reads one that commits.
const SEEN: u8 = b's';

/// Few, so that clients meet in them.
pub(super) const REGISTERS: u8 = 4;
pub(super) const ACCOUNTS: u8 = 6;
pub(super) const OPENING_BALANCE: i64 = 1000;

/// Lengths of rows cycle below this.
const VALUE_LEN_MAX: u64 = 700;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) balance: i64,
    /// Of the transfer that wrote it.
    pub(super) tag: u64,
}

/// All rows of one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// By client and number: whether the bytes are those that were written.
    pub(super) inserts: BTreeMap<(u16, u32), bool>,
    pub(super) registers: BTreeMap<u8, u64>,
    pub(super) accounts: BTreeMap<u8, Account>,
}

impl Held {
    /// What a node has of `round` at one position.
    pub(super) fn read(
        snapshot: &Snapshot,
        table: TableId,
        round: u32,
    ) -> Result<Self, store::Error> {
        let mut held = Self::default();
        for row in snapshot.range(table, &Keys::prefix(&prefix(round)))? {
            let (key, value) = row?;
            let rest = &key[prefix(round).len()..];
            match rest.split_first() {
                Some((&INSERT, name)) => {
                    if let Some((client, number)) = insert_of(name) {
                        let is_sound = value[..] == written(round, client, number)[..];
                        held.inserts.insert((client, number), is_sound);
                    }
                }
                Some((&REGISTER, [register])) => {
                    held.registers.insert(*register, number(&value));
                }
                Some((&ACCOUNT, [account])) => {
                    held.accounts.insert(*account, account_of(&value));
                }
                _ => {}
            }
        }
        Ok(held)
    }

    pub(super) fn count(&self) -> usize {
        self.inserts.len() + self.registers.len() + self.accounts.len()
    }

    /// Where two of them part, in words.
    pub(super) fn beyond(&self, one: &Self, other: &Self) -> String {
        let keys = one.inserts.keys().chain(other.inserts.keys());
        let parted = keys
            .copied()
            .find(|key| one.inserts.get(key) != other.inserts.get(key));
        match parted {
            Some(key) => format!("row {key:?}: {:?}", self.inserts.get(&key)),
            None => format!("{:?} {:?}", self.registers, self.accounts),
        }
    }
}

fn prefix(round: u32) -> Vec<u8> {
    [&[MARK][..], b"proof", &round.to_be_bytes()].concat()
}

pub(super) fn insert(round: u32, client: u16, number: u32) -> Vec<u8> {
    let name = [&client.to_be_bytes()[..], &number.to_be_bytes()].concat();
    [&prefix(round)[..], &[INSERT], &name].concat()
}

fn insert_of(name: &[u8]) -> Option<(u16, u32)> {
    let (client, number) = name.split_first_chunk()?;
    let number = number.try_into().ok()?;
    Some((u16::from_be_bytes(*client), u32::from_be_bytes(number)))
}

pub(super) fn register(round: u32, register: u8) -> Vec<u8> {
    [&prefix(round)[..], &[REGISTER, register]].concat()
}

pub(super) fn account(round: u32, account: u8) -> Vec<u8> {
    [&prefix(round)[..], &[ACCOUNT, account]].concat()
}

pub(super) fn seen(round: u32, client: u16) -> Vec<u8> {
    [&prefix(round)[..], &[SEEN], &client.to_be_bytes()].concat()
}

pub(super) fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(u64::MAX, u64::from_le_bytes)
}

pub(super) fn account_of(value: &[u8]) -> Account {
    let (balance, tag) = value.split_at(value.len().min(8));
    Account {
        balance: balance.try_into().map_or(i64::MIN, i64::from_le_bytes),
        tag: number(tag),
    }
}

pub(super) fn account_bytes(account: Account) -> Vec<u8> {
    [account.balance.to_le_bytes(), account.tag.to_le_bytes()].concat()
}

/// Bytes that follow from a row's name alone, of a length that does too.
pub(super) fn written(round: u32, client: u16, number: u32) -> Vec<u8> {
    let seed = (u64::from(round) << 32 | u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ u64::from(client);
    let len = usize::try_from(seed % VALUE_LEN_MAX + 1).expect("below VALUE_LEN_MAX");
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64: any fixed sequence would do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
