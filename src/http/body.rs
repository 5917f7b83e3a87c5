//! The body behind a head, of a stated size or in chunks, taken out of the bytes piece by piece.
//!
//! ```text
//! chunked = *( 1*HEXDIG [ ";" extension ] CRLF  data CRLF )  1*"0" [ ";" extension ] CRLF
//!           *( trailer CRLF ) CRLF
//! ```
//! The coding is read as strictly as a head: sizes are hexadecimal digits alone, at most 16 of them,
//! and every line ends in CR LF. Space around a size, which RFC 9112 (7.1.1) asks recipients to
//! forgive, is refused: no client sends it, and parsers have disagreed over it. Extensions and
//! trailers are bounded and dropped.
//!
//! The decoder takes all that it is given, up to the end of the body: nothing has to be kept for it
//! between reads. It copies nothing, and a chunk of one byte costs a few comparisons for each of its
//! six bytes.

use super::head::BodyLength;
use crate::problem::{Problem, ProblemKind};

/// The bytes that all chunk extensions of a body may have together, and so may its trailers. They
/// are dropped, so this only bounds the work that a body without data can make.
pub const EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// The digits of a chunk's size: as many as 64 bits have.
const SIZE_DIGITS_MAX: u8 = 16;

/// How many bytes a body may have, and what is told to who exceeds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    /// The body is the data of one event.
    Event {
        /// The most it may have.
        bytes_max: u64,
    },
    /// The body is an array of events, or something else that is held whole.
    Whole {
        /// The most it may have.
        bytes_max: u64,
    },
    /// The body is a stream, whose parts have limits of their own.
    Endless,
}

impl BodyLimit {
    fn bytes_max(self) -> u64 {
        match self {
            Self::Event { bytes_max } | Self::Whole { bytes_max } => bytes_max,
            Self::Endless => u64::MAX,
        }
    }

    /// The answer to a body of `bytes` bytes; None when it is not known how many they are.
    fn problem(self, bytes: Option<u64>) -> Problem {
        let (kind, what) = match self {
            Self::Event { .. } => (ProblemKind::EventTooLarge, "event"),
            Self::Whole { .. } | Self::Endless => (ProblemKind::BodyTooLarge, "body"),
        };
        let limit = self.bytes_max();
        let detail = match bytes {
            Some(bytes) => format!("{what} of {bytes} bytes exceeds the limit of {limit} bytes"),
            None => format!("{what} exceeds the limit of {limit} bytes"),
        };
        Problem::new(kind, detail).closing()
    }
}

/// A part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPiece<'a> {
    /// Data, never empty.
    Data(&'a [u8]),
    /// All input was taken and the body goes on.
    More,
    /// The body has ended; what is left of the input is behind it.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes remain of a body of stated size.
    Sized {
        left: u64,
    },
    /// In a chunk's size, of which `digits` have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// In a chunk's extension.
    Extension {
        size: u64,
    },
    /// Behind the CR that ends a size's line.
    SizeLf {
        size: u64,
    },
    /// In a chunk's data.
    Data {
        left: u64,
    },
    /// Behind a chunk's data.
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    TrailerStart,
    /// In such a line; `named` once its colon has come.
    Trailer {
        named: bool,
    },
    TrailerLf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
    Ended,
}

/// Takes one body out of the bytes behind its head.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limit: BodyLimit,
    /// Data that may still come.
    bytes_left: u64,
    /// Bytes of extensions and trailers that may still come.
    extension_bytes_left: u32,
}

impl BodyDecoder {
    /// A decoder for the body of a head.
    ///
    /// Fails with `event-too-large` or `body-too-large` when the stated size exceeds the limit.
    pub fn new(length: BodyLength, limit: BodyLimit) -> Result<Self, Problem> {
        let state = match length {
            BodyLength::Unstated => State::Ended,
            BodyLength::Sized(bytes) if bytes > limit.bytes_max() => {
                return Err(limit.problem(Some(bytes)));
            }
            BodyLength::Sized(0) => State::Ended,
            BodyLength::Sized(bytes) => State::Sized { left: bytes },
            BodyLength::Chunked => State::Size { size: 0, digits: 0 },
        };
        let (bytes_left, extension_bytes_left) = (limit.bytes_max(), EXTENSION_BYTES_MAX);
        Ok(Self { state, limit, bytes_left, extension_bytes_left })
    }

    /// Whether the body has ended. Then a further call of `next` takes nothing.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The bytes that are still to come, when the size was stated.
    pub fn sized_bytes_left(&self) -> Option<u64> {
        match self.state {
            State::Sized { left } => Some(left),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// Fails with `invalid-body`, or as [`BodyDecoder::new`] does when chunks exceed the limit; the
    /// connection then ends.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<BodyPiece<'a>, Problem> {
        loop {
            match &mut self.state {
                State::Ended => return Ok(BodyPiece::End),
                _ if input.is_empty() => return Ok(BodyPiece::More),
                State::Sized { left } => {
                    let data = take(input, left);
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                    return Ok(BodyPiece::Data(data));
                }
                State::Data { left } => {
                    let data = take(input, left);
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(BodyPiece::Data(data));
                }
                _ => {
                    let (byte, rest) = input.split_first().expect("the input is not empty");
                    *input = rest;
                    self.state = self.step(*byte)?;
                }
            }
        }
    }

    /// Returns the state behind a byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Problem> {
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(invalid("a chunk's size has too many digits"));
                }
                let digit = char::from(byte).to_digit(16).expect("it is a hexadecimal digit");
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => {
                return Err(invalid("a chunk's size is missing or not hexadecimal"));
            }
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Size { size, .. }, b';') => State::Extension { size },
            (State::Size { .. }, _) => {
                return Err(invalid("a chunk's size is not hexadecimal digits alone"));
            }
            (State::Extension { .. } | State::Trailer { .. }, 0..=8 | 10..=31 | 127)
                if byte != b'\r' =>
            {
                return Err(invalid("a control character in a chunk extension or trailer"));
            }
            (state @ State::Extension { .. }, _) => {
                self.spend_extension_byte()?;
                state
            }
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => {
                let Some(left) = self.bytes_left.checked_sub(size) else {
                    return Err(self.limit.problem(None));
                };
                self.bytes_left = left;
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => {
                return Err(invalid("a chunk is longer than its size"));
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b':') => return Err(invalid("a trailer without a name")),
            (State::TrailerStart, b'!'..=b'~') => {
                self.spend_extension_byte()?;
                State::Trailer { named: false }
            }
            (State::Trailer { named: true }, b'\r') => State::TrailerLf,
            (State::Trailer { named }, _) if named || matches!(byte, b'!'..=b'~') => {
                self.spend_extension_byte()?;
                State::Trailer { named: named || byte == b':' }
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Ended,
            (State::TrailerStart | State::Trailer { .. }, _) => {
                return Err(invalid("a trailer is not `name: value`"));
            }
            (State::SizeLf { .. } | State::TrailerLf | State::EndLf, _) => {
                return Err(invalid("a CR that is not followed by LF"));
            }
            (State::Sized { .. } | State::Data { .. } | State::Ended, _) => {
                unreachable!("data is not framing")
            }
        })
    }

    fn spend_extension_byte(&mut self) -> Result<(), Problem> {
        match self.extension_bytes_left.checked_sub(1) {
            Some(left) => self.extension_bytes_left = left,
            None => return Err(invalid("chunk extensions and trailers exceed 16384 bytes")),
        }
        Ok(())
    }
}

/// Takes up to `left` bytes off the front of `input`, and off `left`.
fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let bytes = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    let (data, rest) = input.split_at(bytes);
    *input = rest;
    *left -= u64::try_from(bytes).expect("a length fits into 64 bits");
    data
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(ProblemKind::InvalidBody, detail).closing()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a whole body out of `input`; returns its data and what is left behind it.
    fn decode(
        length: BodyLength,
        limit: BodyLimit,
        input: &[u8],
    ) -> Result<(Vec<u8>, &[u8], bool), Problem> {
        let mut decoder = BodyDecoder::new(length, limit)?;
        let (mut data, mut rest) = (Vec::new(), input);
        loop {
            match decoder.next(&mut rest)? {
                BodyPiece::Data(piece) => {
                    assert!(!piece.is_empty());
                    data.extend_from_slice(piece);
                }
                BodyPiece::More => return Ok((data, rest, false)),
                BodyPiece::End => return Ok((data, rest, true)),
            }
        }
    }

    /// As [`decode`], of chunks, with one byte of input at a time.
    fn decode_slowly(limit: BodyLimit, input: &[u8]) -> Result<(Vec<u8>, usize, bool), Problem> {
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, limit)?;
        let mut data = Vec::new();
        for (index, byte) in input.iter().enumerate() {
            let mut rest = std::slice::from_ref(byte);
            loop {
                match decoder.next(&mut rest)? {
                    BodyPiece::Data(piece) => data.extend_from_slice(piece),
                    BodyPiece::More => break,
                    BodyPiece::End => return Ok((data, index + 1 - rest.len(), true)),
                }
            }
        }
        Ok((data, input.len(), false))
    }

    fn chunked(input: &[u8]) -> Result<(Vec<u8>, &[u8], bool), Problem> {
        let whole = decode(BodyLength::Chunked, BodyLimit::Endless, input);
        let slow = decode_slowly(BodyLimit::Endless, input);
        match (&whole, &slow) {
            (Ok((data, rest, ended)), Ok((slow_data, taken, slow_ended))) => {
                assert_eq!((data, ended), (slow_data, slow_ended));
                assert_eq!(rest, &&input[*taken..]);
            }
            (whole, slow) => assert_eq!(whole.as_ref().err(), slow.as_ref().err()),
        }
        whole
    }

    #[test]
    fn a_sized_body_ends_where_its_length_says() {
        let (sized, limit) = (BodyLength::Sized(5), BodyLimit::Endless);
        assert_eq!(decode(sized, limit, b"hello").unwrap(), (b"hello".to_vec(), &b""[..], true));
        assert_eq!(decode(sized, limit, b"helloGET").unwrap().1, b"GET");
        assert_eq!(decode(sized, limit, b"hel").unwrap(), (b"hel".to_vec(), &b""[..], false));
        for none in [BodyLength::Sized(0), BodyLength::Unstated] {
            assert_eq!(decode(none, limit, b"GET").unwrap(), (vec![], &b"GET"[..], true));
        }
    }

    #[test]
    fn chunks_are_put_together() {
        for input in [
            &b"5\r\nhello\r\n0\r\n\r\n"[..],
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            b"1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n",
            b"0000000000000005\r\nhello\r\n000\r\n\r\n",
            b"5;a=b;c=\"d e\"\r\nhello\r\n0;last\r\n\r\n",
            b"5\r\nhello\r\n0\r\nExpires: never\r\nX:\r\n\r\n",
        ] {
            let with_next = [input, b"GET / HTTP"].concat();
            let (data, rest, ended) = chunked(&with_next).unwrap();
            let shown = input.escape_ascii();
            assert_eq!(
                (data, rest, ended),
                (b"hello".to_vec(), &b"GET / HTTP"[..], true),
                "{shown}"
            );
        }
        assert_eq!(chunked(b"A\r\n0123456789\r\n0\r\n\r\n").unwrap().0, b"0123456789");
        assert_eq!(chunked(b"a\r\n01234").unwrap(), (b"01234".to_vec(), &b""[..], false));
    }

    /// What is ambiguous is refused and the connection closed.
    #[test]
    fn bad_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5 ;a\r\nhello\r\n",
            b"5\t\r\nhello\r\n",
            b"5,5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5\r\rhello\r\n",
            b"5;a\nhello\r\n",
            b"5;a\0\r\nhello\r\n",
            b"5;a\r\r\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\n\n",
            b"0\n\r\n",
            b"0\r\n\r\r",
            b"0\r\n: a\r\n\r\n",
            b"0\r\n a: b\r\n\r\n",
            b"0\r\na\r\n\r\n",
            b"0\r\na b: c\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\na: b\0\r\n\r\n",
            b"0\r\na: b\rc\r\n\r\n",
            b";a\r\n",
        ] {
            let problem = chunked(input).expect_err(&input.escape_ascii().to_string());
            assert_eq!((problem.status(), problem.slug()), (400, "invalid-body"));
            assert!(problem.closes());
        }
    }

    /// API §9: "event of 1048577 bytes exceeds the limit of 1048576 bytes".
    #[test]
    fn a_body_may_be_as_long_as_its_limit_and_not_a_byte_longer() {
        let limit = BodyLimit::Event { bytes_max: 1_048_576 };
        assert!(BodyDecoder::new(BodyLength::Sized(1_048_576), limit).is_ok());
        let problem = BodyDecoder::new(BodyLength::Sized(1_048_577), limit).unwrap_err();
        assert_eq!((problem.status(), problem.slug()), (413, "event-too-large"));
        assert_eq!(problem.detail(), "event of 1048577 bytes exceeds the limit of 1048576 bytes");
        assert!(problem.closes());

        let limit = BodyLimit::Whole { bytes_max: 4 };
        let length = BodyLength::Chunked;
        assert!(decode(length, limit, b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n").unwrap().2);
        for input in [&b"5\r\n"[..], b"4\r\nabcd\r\n1\r\n", b"ffffffffffffffff\r\n"] {
            let problem = decode(length, limit, input).unwrap_err();
            assert_eq!((problem.status(), problem.slug()), (413, "body-too-large"));
            assert_eq!(problem.detail(), "body exceeds the limit of 4 bytes");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_together() {
        let longest = usize::try_from(EXTENSION_BYTES_MAX).unwrap();
        let extension = |bytes: usize| format!("0;{}\r\n\r\n", "x".repeat(bytes)).into_bytes();
        assert!(chunked(&extension(longest)).unwrap().2);
        assert!(chunked(&extension(longest + 1)).is_err());
        let many = b"1;xxxx\r\na\r\n".repeat(longest / 4 + 1);
        assert!(chunked(&many).is_err(), "also when they come a few at a time");
        let trailer =
            |bytes: usize| format!("0\r\na:{}\r\n\r\n", "x".repeat(bytes - 2)).into_bytes();
        assert!(chunked(&trailer(longest)).unwrap().2);
        assert!(chunked(&trailer(longest + 1)).is_err());
    }

    proptest! {
        /// However a body is cut into chunks, and those into reads, its data is the same.
        #[test]
        fn data_does_not_depend_on_chunks_or_reads(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut input = Vec::new();
            for piece in &pieces {
                input.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                input.extend_from_slice(piece);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\nnext");
            let mut ends: Vec<usize> =
                cuts.iter().map(|cut| cut.index(input.len() + 1)).chain([input.len()]).collect();
            ends.sort_unstable();
            let mut decoder = BodyDecoder::new(BodyLength::Chunked, BodyLimit::Endless).unwrap();
            let (mut start, mut data) = (0, Vec::new());
            for end in ends {
                let mut rest = &input[start..end];
                while let BodyPiece::Data(piece) = decoder.next(&mut rest).unwrap() {
                    data.extend_from_slice(piece);
                }
                start = end - rest.len();
            }
            prop_assert!(decoder.is_ended());
            prop_assert_eq!(&input[start..], b"next");
            prop_assert_eq!(data, pieces.concat());
        }

        /// The server never panics.
        #[test]
        fn any_bytes_are_answered_alike_however_they_come(
            bytes in prop::collection::vec(prop::sample::select(b"0159aF\r\n;: x\0\xff".to_vec()), 0..40),
        ) {
            let _ = chunked(&bytes);
        }
    }
}
