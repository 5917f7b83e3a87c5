//! JSON written straight into the bytes of an answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Appends `text` as a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes every byte");
}

/// Appends a number in decimal digits: the answer to an append has five of them.
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends padded base64, without quotes.
pub fn base64(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    out.resize(start + data.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(data, &mut out[start..]);
    assert_eq!(written, Ok(out.len() - start), "the room was computed");
}

/// Appends `json`, which is known to be valid, on one line: CR and LF become spaces. They stand
/// between tokens only, since inside a JSON string they can only be escaped.
pub fn on_one_line(out: &mut Vec<u8>, json: &[u8]) {
    let start = out.len();
    out.extend_from_slice(json);
    let mut rest = &mut out[start..];
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        rest[at] = b' ';
        rest = &mut rest[at + 1..];
    }
}

/// Appends `,"name":` — or without the comma right after a `{`.
pub fn name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        for value in [0, 9, 10, 99, 100, 64_000, u64::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
        }
    }

    /// API §3: "CR and LF between JSON tokens become spaces".
    #[test]
    fn json_is_kept_on_one_line_and_otherwise_as_it_stands() {
        let json = b"{\r\n  \"a\\n\\r\": [\n1.50,\r\t2]\n}\n";
        let line = written(|out| on_one_line(out, json));
        assert_eq!(line, "{    \"a\\n\\r\": [ 1.50, \t2] } ");
        assert_eq!(line.len(), json.len());
    }

    #[test]
    fn members() {
        let text = written(|out| {
            out.push(b'{');
            name(out, "a");
            number(out, 1);
            name(out, "b");
            string(out, "\"\\\u{0}\r\n\u{2028}é");
            out.push(b'}');
        });
        assert_eq!(text, "{\"a\":1,\"b\":\"\\\"\\\\\\u0000\\r\\n\u{2028}é\"}");
    }

    proptest! {
        #[test]
        fn base64_is_padded(data in prop::collection::vec(any::<u8>(), 0..50)) {
            let text = written(|out| base64(out, &data));
            prop_assert_eq!(text.len() % 4, 0);
            prop_assert_eq!(STANDARD.decode(text).unwrap(), data);
        }
    }
}
