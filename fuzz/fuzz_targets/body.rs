//! Bodies from any bytes: what the decoder makes of them does not depend on how they come, and never
//! exceeds the limit.
//!
//! The first byte says in how large pieces the rest comes, the second whether it is chunked, or how
//! long it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline::http::body::{BodyDecoder, BodyLimit, BodyPiece};
use strandline::http::head::BodyLength;
use strandline::problem::Problem;

const BYTES_MAX: usize = 1000;

/// The data of a body, how many bytes it took, and whether it ended.
fn decode(
    input: &[u8],
    length: BodyLength,
    piece_bytes: usize,
) -> (Vec<u8>, Result<(usize, bool), Problem>) {
    let limit = BodyLimit::Event { bytes_max: BYTES_MAX as u64 };
    let mut decoder = BodyDecoder::new(length, limit).expect("it is no longer than the limit");
    let (mut data, mut taken) = (Vec::new(), 0);
    for came in input.chunks(piece_bytes) {
        let mut rest = came;
        loop {
            match decoder.next(&mut rest) {
                Ok(BodyPiece::Data(piece)) => data.extend_from_slice(piece),
                Ok(BodyPiece::More) => break,
                Ok(BodyPiece::End) => {
                    assert!(decoder.is_ended());
                    return (data, Ok((taken + came.len() - rest.len(), true)));
                }
                Err(problem) => {
                    assert!(problem.closes());
                    return (data, Err(problem));
                }
            }
        }
        taken += came.len();
    }
    (data, Ok((taken, decoder.is_ended())))
}

fuzz_target!(|input: &[u8]| {
    let [pieces, kind, input @ ..] = input else { return };
    let length = match kind {
        0..=127 => BodyLength::Chunked,
        bytes => BodyLength::Sized(u64::from(*bytes)),
    };
    let whole = decode(input, length, input.len().max(1));
    assert_eq!(decode(input, length, usize::from(*pieces).max(1)), whole);
    assert!(whole.0.len() <= BYTES_MAX);
});
