//! Heads of appends that a server knows, or thinks that it knows by their shape: they say what parsing them says.
//!
//! The input is cut at each `|` into what is put into a head of a plain append, one after the other: what stands before a
//! `^` goes into its path, what stands behind it into its fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline::append::assert_known_heads_agree;

fn head(text: &[u8]) -> Vec<u8> {
    let at = text.iter().position(|byte| *byte == b'^').unwrap_or(text.len());
    let (topic, fields) = text.split_at(at);
    let fields = fields.strip_prefix(b"^").unwrap_or_default();
    [
        b"POST /api/v1/topics/",
        topic,
        b"/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n",
        fields,
        b"\r\n\r\n\"a\"",
    ]
    .concat()
}

fuzz_target!(|input: &[u8]| {
    // As they are, and each in a row of heads of which two are of the plainest shape.
    let texts: Vec<_> = input.split(|byte| *byte == b'|').take(16).collect();
    assert_known_heads_agree(texts.iter().copied().flat_map(|text| [text, text, text]));
    let heads: Vec<_> = texts.iter().map(|text| head(text)).collect();
    assert_known_heads_agree(heads.iter().map(Vec::as_slice));
    let twice = heads.iter().flat_map(|head| [head, head]).chain(&heads);
    assert_known_heads_agree(twice.map(Vec::as_slice));
});
