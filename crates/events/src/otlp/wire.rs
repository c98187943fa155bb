//! Protobuf's wire format, read in place.
//!
//! Nothing is copied and nothing is allocated: what a hostile message can make the reader hold is
//! bounded by the message. Generated types are not used here for that reason: an empty log record
//! takes two bytes on the wire and a few hundred as a struct.

use super::Malformed;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order of their coming.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// A varint has seven bits a byte.
const VARINT_LEN_MAX: usize = 10;

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (at, byte) in self.rest.iter().take(VARINT_LEN_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == VARINT_LEN_MAX - 1 && bits > 1 {
                return Err(Malformed::new("a varint of more than 64 bits"));
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Malformed::new("a varint does not end"))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
            .ok_or(Malformed::new("a field is longer than its message"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed::new("a field without a number"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().expect("eight were taken");
                Value::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?.try_into().expect("four were taken");
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            // Groups are from before proto3, and no message of OTLP ever had one.
            _ => return Err(Malformed::new("a field of unknown wire type")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type()),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::new("a string is not UTF-8"))
    }

    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(wrong_type()),
        }
    }

    /// As generated code reads an `int32`, an enumeration or an `int64`: higher bits are ignored.
    pub(super) fn int32(self) -> Result<i32, Malformed> {
        self.varint().map(|value| low_word(value).cast_signed())
    }

    pub(super) fn uint32(self) -> Result<u32, Malformed> {
        self.varint().map(low_word)
    }

    pub(super) fn fixed64(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(wrong_type()),
        }
    }

    pub(super) fn fixed32(self) -> Result<u32, Malformed> {
        match self {
            Self::Fixed32(value) => Ok(value),
            _ => Err(wrong_type()),
        }
    }
}

fn wrong_type() -> Malformed {
    Malformed::new("a field has the wire type of another kind of value")
}

fn low_word(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("masked")
}
