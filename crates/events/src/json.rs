//! Whether a text is one JSON value that whoever is sent it can read: nested no deeper than a bound,
//! every number a finite one, every string valid Unicode. The text itself is kept as it is.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Says what is wrong, for people.
pub(crate) fn check(text: &str, depth_max: usize) -> Result<(), String> {
    let too_deep = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Value {
        depth_left: depth_max,
        too_deep: &too_deep,
    };
    let read = value.deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Ok(()) => Ok(()),
        Err(_) if too_deep.get() => Err(format!("is nested deeper than {depth_max} levels")),
        Err(error) => Err(format!("is not a JSON value: {error}")),
    }
}

#[derive(Clone, Copy)]
struct Value<'a> {
    depth_left: usize,
    too_deep: &'a Cell<bool>,
}

impl Value<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => {
                self.too_deep.set(true);
                Err(E::custom("too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while map.next_key_seed(Key)?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// A key of an object: a string, and nothing is kept of it.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = IgnoredAny;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<IgnoredAny, D::Error> {
        // `str` and not `ignored_any`: the latter does not look at escapes.
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = IgnoredAny;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, _: &str) -> Result<IgnoredAny, E> {
        Ok(IgnoredAny)
    }
}

/// Compacts nothing and changes nothing but line breaks between tokens, which would end a line of
/// JSON lines. Inside a string JSON allows none.
pub(crate) fn push_on_one_line(out: &mut String, text: &str) {
    if text.contains(['\n', '\r']) {
        out.extend(text.chars().map(|c| match c {
            '\n' | '\r' => ' ',
            c => c,
        }));
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, expected: Result<(), &str>) {
        let found = check(text, 3);
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn one_json_value_that_every_reader_can_read_and_nothing_else() {
        let not = Err("is not a JSON value");
        for (text, expected) in [
            ("null", Ok(())),
            ("[[[1]]]", Ok(())),
            ("[[[[1]]]]", Err("deeper than 3")),
            (r#"{"a":{"b":{"c":[]}}}"#, Err("deeper than 3")),
            (r#"{"a":{"b":{"c":"[[[[["}}}"#, Ok(())),
            ("12345678901234567890123", Ok(())),
            ("-0.1e-7", Ok(())),
            ("1e400", not),
            (r#""\ud800""#, not),
            (r#"{"\ud800":1}"#, not),
            (r#"{"\ud83d\ude00":"\u0000"}"#, Ok(())),
            ("\"a\nb\"", not),
            ("", not),
            ("{} {}", not),
            ("NaN", not),
            ("{a:1}", not),
            ("[1,]", not),
            (r#"{"a":1,"a":2}"#, Ok(())),
        ] {
            check_text(text, expected);
        }
    }

    #[test]
    fn a_body_as_deep_as_it_is_long_ends_no_stack() {
        let text = "[".repeat(1 << 20);
        check_text(&text, Err("deeper than 3"));
    }
}
