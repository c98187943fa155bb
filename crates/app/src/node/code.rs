//! A code that people read to each other: 128 random bits in seven groups of four.
//!
//! The alphabet is Crockford's: no I, L, O or U, and what is mistaken for each other is the same. The
//! last twelve bits are a check, so that a slip is told from a code for something else.

use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use world::Random;
use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SECRET_LEN: usize = 16;
/// The secret, and twelve bits to check it; the last four are not used.
const BYTES: usize = SECRET_LEN + 2;
const SYMBOLS: usize = 28;
const GROUP: usize = 4;

pub(crate) struct Code(Zeroizing<[u8; SECRET_LEN]>);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

impl Code {
    pub(crate) fn draw(random: &dyn Random) -> std::io::Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        random.fill(secret.as_mut_slice())?;
        Ok(Self(secret))
    }

    /// As people read it.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let bytes = self.checked();
        let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
        for index in 0..SYMBOLS {
            if index > 0 && index.is_multiple_of(GROUP) {
                text.push('-');
            }
            let bit = index * 5;
            let pair = u16::from_be_bytes([bytes[bit / 8], *bytes.get(bit / 8 + 1).unwrap_or(&0)]);
            let value = usize::from(pair >> (11 - bit % 8)) & 31;
            text.push(char::from(ALPHABET[value]));
        }
        text
    }

    /// From what somebody typed: groups, case and spaces do not matter. `None` for what is no code.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0_u8; BYTES]);
        let mut count = 0;
        for symbol in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let plain = match symbol.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let value = ALPHABET.iter().position(|it| char::from(*it) == plain)?;
            if count == SYMBOLS {
                return None;
            }
            for offset in 0..5 {
                let bit = count * 5 + offset;
                if value >> (4 - offset) & 1 == 1 {
                    bytes[bit / 8] |= 128 >> (bit % 8);
                }
            }
            count += 1;
        }
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        secret.copy_from_slice(&bytes[..SECRET_LEN]);
        let code = Self(secret);
        (count == SYMBOLS && code.checked() == bytes).then_some(code)
    }

    /// A key for what is salted so, by HKDF-SHA256: 128 random bits need no slow derivation.
    pub(crate) fn key(&self, salt: &[u8], purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(salt), self.0.as_slice())
            .expand(purpose.as_bytes(), key.as_mut_slice())
            .expect("32 bytes are far below what HKDF-SHA256 expands to");
        key
    }

    fn checked(&self) -> Zeroizing<[u8; BYTES]> {
        let mut check = Sha256::new_with_prefix(b"holdfast code");
        check.update(self.0.as_slice());
        let check = check.finalize();
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[..SECRET_LEN].copy_from_slice(self.0.as_slice());
        bytes[SECRET_LEN] = check[0];
        bytes[SECRET_LEN + 1] = check[1] & 0xF0;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use world::sim;

    use super::*;

    #[test]
    fn a_code_is_read_as_it_was_shown_however_it_is_typed() {
        for seed in 0..200 {
            let code = Code::draw(&sim::Random::new(seed)).unwrap();
            let text = code.text();
            assert_eq!(text.len(), 34, "{}", text.as_str());
            for typed in [
                text.to_string(),
                text.to_lowercase(),
                text.replace('-', " "),
                text.replace('-', "").replace('0', "o").replace('1', "l"),
            ] {
                let read = Code::read(&typed).unwrap();
                assert_eq!(read.0, code.0, "{typed}");
            }
        }
    }

    #[test]
    fn a_slip_is_noticed() {
        let code = Code::draw(&sim::Random::new(1)).unwrap().text();
        let mut swapped: Vec<char> = code.chars().collect();
        let other = (1..swapped.len()).find(|at| {
            swapped[*at] != swapped[at - 1] && swapped[*at] != '-' && swapped[at - 1] != '-'
        });
        let other = other.unwrap();
        swapped.swap(other, other - 1);
        let swapped: String = swapped.into_iter().collect();
        for wrong in [
            "",
            "0000",
            &swapped,
            &code[1..],
            &format!("{}0", code.as_str()),
            &code.replace('-', "U"),
        ] {
            assert!(Code::read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_code_shows_nothing_of_itself() {
        let code = Code::draw(&sim::Random::new(1)).unwrap();
        assert_eq!(format!("{code:?}"), "Code");
        assert_ne!(*code.key(b"a", "x"), *code.key(b"b", "x"));
        assert_ne!(*code.key(b"a", "x"), *code.key(b"a", "y"));
    }
}
