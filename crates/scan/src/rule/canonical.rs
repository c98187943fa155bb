//! One byte form for one JSON value: keys sorted by code point, no white space, numbers and text as
//! `serde_json` prints them. Digests are taken over this form.

use serde_json::Value;

pub(crate) fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_canonical(value, &mut out);
    out
}

pub(crate) fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(list) => {
            out.push(b'[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                scalar(key, out);
                out.push(b':');
                write_canonical(item, out);
            }
            out.push(b'}');
        }
        single => scalar(single, out),
    }
}

/// Text or a number in the canonical form.
pub(crate) fn scalar<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing text or a number to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_does_not_change_the_bytes() {
        let one = canonical_json(&json!({"b": [1, {"z": null, "a": "é\n"}], "a": true}));
        assert_eq!(
            one,
            "{\"a\":true,\"b\":[1,{\"a\":\"é\\n\",\"z\":null}]}".as_bytes()
        );
    }
}
