//! Compressed event streams, of chunks that are compressed once and shared.
//!
//! ```text
//!            once for each subscriber      shared, from whichever chunk it begins with         end
//!          +-------------------------+----------------------------+----------------------+-----------+
//! gzip     | 1f 8b 08 .. (10 bytes)  | deflate blocks,            | deflate blocks, ..   | nothing   |
//!          |                         |  empty block 00 00 00 ff ff|                      |           |
//! zstd     | 28 b5 2f fd 00 50       | blocks of a frame,         | blocks of a frame,   | 01 00 00  |
//!          |                         |  28 b5 2f fd 00 50         |  28 b5 2f fd 00 50   |           |
//!          +-------------------------+----------------------------+----------------------+-----------+
//! ```
//! - **gzip**: one member. A chunk ends with a full flush: on a byte, all of it readable, and what comes
//!   later refers to nothing before. (Browsers stop behind the first member, so chunks are not members.)
//! - **zstd**: a chunk is a frame of its own, sent without its header and with the next one's behind it:
//!   no read ends exactly where a frame does, at which one client's decoder fails. That works because
//!   all frames have the same header: neither size, checksum nor dictionary, and one window.

use flate2::{Compress, Compression, FlushCompress, Status};
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

/// How the bytes of a stream are coded (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A gzip header that says nothing: no name, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The header of all our zstd frames: the magic number, a descriptor without any flag, a window.
const ZSTD_HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, ZSTD_WINDOW_DESCRIPTOR];

/// An exponent in the upper five bits, counted from 2^10, and no mantissa.
const ZSTD_WINDOW_DESCRIPTOR: u8 = 0x50;

/// A decoder keeps this much of what it decoded: 1 MiB, where browsers refuse more than 8.
const ZSTD_WINDOW_LOG: u32 = 20;

const _: () = assert!(ZSTD_WINDOW_LOG == 10 + (ZSTD_WINDOW_DESCRIPTOR >> 3) as u32);

/// A last block, raw, of no bytes: completes the frame whose header went out last.
const ZSTD_END: [u8; 3] = [0x01, 0x00, 0x00];

/// What a full flush ends with: the length, and its complement, of an empty stored block.
const FLUSHED: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Measured (docs/PERFORMANCE.md): level 1 saves next to nothing of a single event, and 3 a twentieth
/// more than 2 for a fifth more time.
const GZIP_LEVEL: u32 = 2;

/// Measured (docs/PERFORMANCE.md): higher levels cost more and save a few hundredths.
const ZSTD_LEVEL: i32 = 1;

impl Encoding {
    /// Its name as a content coding; none for what has none.
    pub fn content_coding(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// What each subscriber is sent once, before its first chunk.
    pub fn stream_head(self) -> &'static [u8] {
        match self {
            Self::Identity => &[],
            Self::Gzip => &GZIP_HEADER,
            Self::Zstd => &ZSTD_HEADER,
        }
    }

    /// What each subscriber is sent behind its last chunk, or behind the head if there was none.
    ///
    /// Of gzip nothing: its trailer is a checksum over all that this subscriber was sent.
    pub fn stream_end(self) -> &'static [u8] {
        match self {
            Self::Identity | Self::Gzip => &[],
            Self::Zstd => &ZSTD_END,
        }
    }
}

/// Makes the chunks of one encoding, with memory that it keeps: 330 KiB for gzip, 200 for zstd. One a shard suffices.
pub struct Compressor(Kind);

enum Kind {
    Identity,
    Gzip(Compress),
    Zstd(CCtx<'static>),
}

impl Compressor {
    /// A compressor for `encoding`.
    pub fn new(encoding: Encoding) -> Self {
        Self(match encoding {
            Encoding::Identity => Kind::Identity,
            Encoding::Gzip => Kind::Gzip(Compress::new(Compression::new(GZIP_LEVEL), false)),
            Encoding::Zstd => Kind::Zstd(zstd_context()),
        })
    }

    /// Appends the chunk that carries `plain`. It stands for itself: which chunks a subscriber got
    /// before does not matter, and all of `plain` can be read as soon as the chunk is there.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        // An empty frame, or a second flush behind one, would be bytes for nothing.
        if plain.is_empty() {
            return;
        }
        match &mut self.0 {
            Kind::Identity => out.extend_from_slice(plain),
            Kind::Gzip(state) => deflate(state, plain, out),
            Kind::Zstd(context) => zstd_shifted_frame(context, plain, out),
        }
    }
}

/// Appends `plain` as deflate blocks up to a full flush.
fn deflate(state: &mut Compress, plain: &[u8], out: &mut Vec<u8>) {
    let (start, before) = (out.len(), state.total_in());
    let mut rest = plain;
    // Whether everything is out is only known once room was left.
    let mut was_filled = true;
    while was_filled {
        // More than stored blocks take, so that one round is the rule.
        out.reserve(rest.len() + rest.len() / 64 + 256);
        let taken_before = state.total_in();
        let status = state.compress_vec(rest, out, FlushCompress::Full);
        // It complains when it is asked for more and there is none: the last bytes just fitted.
        let is_fine = match status {
            Ok(Status::Ok) => true,
            Ok(Status::BufError) => rest.is_empty(),
            Ok(Status::StreamEnd) | Err(_) => false,
        };
        assert!(is_fine, "deflate takes everything: {status:?}");
        let taken = usize::try_from(state.total_in() - taken_before).expect("at most the rest");
        rest = &rest[taken..];
        was_filled = out.len() == out.capacity();
    }
    assert_eq!(state.total_in() - before, plain.len() as u64, "all was taken");
    assert!(out[start..].ends_with(&FLUSHED), "a flush ends on a byte");
}

fn zstd_context() -> CCtx<'static> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(ZSTD_LEVEL),
        CParameter::WindowLog(ZSTD_WINDOW_LOG),
        CParameter::ContentSizeFlag(false),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).expect("the parameter is within its bounds");
    }
    context
}

/// Appends `plain` as a frame without its header, and a frame's header.
fn zstd_shifted_frame(context: &mut CCtx<'static>, plain: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    // With that much room the library writes straight into it, and needs one call.
    out.reserve(zstd_safe::compress_bound(plain.len()));
    let mut room = OutBuffer::around_pos(out, start);
    let mut step = |input: &[u8], directive| {
        let mut input = InBuffer::around(input);
        let left = context.compress_stream2(&mut room, &mut input, directive);
        assert!(left == Ok(0) && input.pos() == input.src.len(), "a frame in one call: {left:?}");
    };
    // A frame that is begun before its length is known has the whole window, which the header states;
    // else the window would shrink to the content, and the header would change.
    step(&[], ZSTD_EndDirective::ZSTD_e_continue);
    step(plain, ZSTD_EndDirective::ZSTD_e_end);
    let frame = &mut out[start..];
    assert_eq!(frame[..ZSTD_HEADER.len()], ZSTD_HEADER, "all frames have one header");
    frame.rotate_left(ZSTD_HEADER.len());
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;
    use zstd_safe::DCtx;

    use super::*;

    const COMPRESSED: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    /// What a client has: a decoder that sees bytes as they come.
    enum Client {
        Gzip(Decompress),
        Zstd(DCtx<'static>),
    }

    impl Client {
        /// One that has read the head of its stream.
        fn of(encoding: Encoding) -> Self {
            let mut client = match encoding {
                Encoding::Gzip => Self::Gzip(Decompress::new_gzip(15)),
                Encoding::Zstd => Self::Zstd(DCtx::create()),
                Encoding::Identity => unreachable!("nothing to decode"),
            };
            assert_eq!(client.read(encoding.stream_head()), b"");
            client
        }

        /// All that can be known from these bytes and those before.
        fn read(&mut self, mut bytes: &[u8]) -> Vec<u8> {
            let mut text = Vec::new();
            let mut was_filled = false;
            while !bytes.is_empty() || was_filled {
                text.reserve(1 << 16);
                let taken = match self {
                    Self::Gzip(state) => {
                        let before = state.total_in();
                        let flush = FlushDecompress::None;
                        state.decompress_vec(bytes, &mut text, flush).expect("valid deflate");
                        usize::try_from(state.total_in() - before).unwrap()
                    }
                    Self::Zstd(context) => {
                        let position = text.len();
                        let mut room = OutBuffer::around_pos(&mut text, position);
                        let mut input = InBuffer::around(bytes);
                        context.decompress_stream(&mut room, &mut input).expect("valid zstd");
                        input.pos()
                    }
                };
                bytes = &bytes[taken..];
                was_filled = text.len() == text.capacity();
            }
            text
        }
    }

    fn chunk(compressor: &mut Compressor, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compressor.compress(plain, &mut out);
        out
    }

    fn event(number: u64) -> Vec<u8> {
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("id: {number}.k3f9q\ndata: {{\"price\":{noise},\"venue\":\"XNAS\"}}\n\n").into()
    }

    /// Bytes that do not compress.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// No event is held back for the next: each chunk ends in a flush.
    #[test]
    fn a_client_joins_at_any_chunk_and_sees_each_at_once() {
        for encoding in COMPRESSED {
            let mut compressor = Compressor::new(encoding);
            let mut clients: Vec<Client> = Vec::new();
            for number in 0..20_000 {
                if number % 1000 == 0 || number == 1 {
                    clients.push(Client::of(encoding));
                }
                let bytes = chunk(&mut compressor, &event(number));
                for client in &mut clients {
                    assert_eq!(client.read(&bytes), event(number), "{encoding:?} {number}");
                }
            }
        }
    }

    /// The memory of a compressor must not reach from one chunk into the next: a subscriber may have
    /// had other chunks in between, or none.
    #[test]
    fn chunks_come_in_any_order_and_repeat() {
        for encoding in COMPRESSED {
            let mut compressor = Compressor::new(encoding);
            let plain: Vec<_> = (0..50).map(|at| event(at / 2).repeat(1 << (at % 10))).collect();
            let chunks: Vec<_> = plain.iter().map(|text| chunk(&mut compressor, text)).collect();
            let mut client = Client::of(encoding);
            for at in (0..50).rev().chain([7, 7, 7, 3]).chain(0..50) {
                assert_eq!(client.read(&chunks[at]), plain[at], "{encoding:?} {at}");
            }
            let again = chunk(&mut compressor, &plain[9]);
            assert_eq!(again, chunks[9], "no state is kept, so equal chunks are equal bytes");
        }
    }

    #[test]
    fn a_client_may_read_byte_by_byte() {
        for encoding in COMPRESSED {
            let mut compressor = Compressor::new(encoding);
            let mut client = Client::of(encoding);
            for plain in [event(1), noise(1000), event(2).repeat(100)] {
                let bytes = chunk(&mut compressor, &plain);
                let read: Vec<u8> = bytes.chunks(1).flat_map(|byte| client.read(byte)).collect();
                assert!(read == plain, "{encoding:?}");
            }
        }
    }

    /// Text of about so many bytes, as a stream has it: some of it repeats, near and far.
    fn text(bytes: usize, seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes + 100);
        let mut number = seed;
        while out.len() < bytes {
            number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            if number >> 61 == 0 && out.len() > 100 {
                let from = usize::try_from(number >> 8).expect("64 bits") % (out.len() - 100);
                let again = out[from..from + 20 + from % 80].to_vec();
                out.extend_from_slice(&again);
            } else {
                out.extend_from_slice(&event(number >> 40));
            }
        }
        out
    }

    /// A subscriber may be owed the rest of a chunk that is compressed anew (`subscribers::begun`).
    #[test]
    fn a_chunk_is_the_same_bytes_whatever_was_compressed_before() {
        for encoding in COMPRESSED {
            let mut used = Compressor::new(encoding);
            for round in 0..400 {
                let bytes = [50, 700, 9_000, 33_000, 70_000, 300_000, 1_200_000][round % 7];
                let plain = text(bytes, round as u64);
                let wanted = chunk(&mut Compressor::new(encoding), &plain);
                let got = chunk(&mut used, &plain);
                assert!(got == wanted, "{encoding:?} {bytes} bytes in round {round}");
            }
        }
    }

    /// Larger than the windows (32 KiB, 1 MiB) and than any block, compressible or not.
    #[test]
    fn large_chunks() {
        for encoding in COMPRESSED {
            let mut compressor = Compressor::new(encoding);
            for plain in [
                noise(3 << 20),
                event(1).repeat(60_000),
                [noise(1 << 20), noise(1 << 20), event(3), noise(1 << 20)].concat(),
                event(2),
            ] {
                let bytes = chunk(&mut compressor, &plain);
                assert!(Client::of(encoding).read(&bytes) == plain, "{encoding:?}");
                assert!(bytes.len() <= plain.len() + plain.len() / 1000 + 32, "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_chunk_is_appended_whatever_room_there_is() {
        for encoding in COMPRESSED {
            let mut compressor = Compressor::new(encoding);
            let wanted = chunk(&mut compressor, &noise(2000));
            for spare in 0..2 * wanted.len() {
                let mut out = Vec::with_capacity(4 + spare);
                out.extend_from_slice(b"1234");
                compressor.compress(&noise(2000), &mut out);
                assert_eq!((&out[..4], &out[4..]), (&b"1234"[..], &wanted[..]), "{spare}");
            }
            assert_eq!(chunk(&mut compressor, b""), b"", "nothing is nothing");
        }
        let mut identity = Compressor::new(Encoding::Identity);
        assert_eq!(chunk(&mut identity, b"data: x\n\n"), b"data: x\n\n");
        assert_eq!(Encoding::Identity.stream_head(), b"");
    }

    /// What is sent once a subscriber: the constant header of a zstd frame, the 10 bytes of gzip's.
    #[test]
    fn the_bytes_around_chunks() {
        let mut zstd = Compressor::new(Encoding::Zstd);
        for plain in [event(1), event(2).repeat(1000), noise(2 << 20)] {
            let bytes = chunk(&mut zstd, &plain);
            assert!(bytes.ends_with(b"\x28\xb5\x2f\xfd\x00\x50"));
            assert!(!bytes.starts_with(b"\x28\xb5\x2f\xfd"));
            // Unshifted it is a frame by itself.
            let (body, header) = bytes.split_at(bytes.len() - 6);
            let mut text = Vec::with_capacity(plain.len());
            zstd_safe::decompress(&mut text, &[header, body].concat()).expect("one whole frame");
            assert!(text == plain);
        }
        let mut gzip = Compressor::new(Encoding::Gzip);
        assert!(chunk(&mut gzip, &event(1)).ends_with(b"\x00\x00\xff\xff"));
        assert_eq!(Encoding::Gzip.stream_head().len(), 10);
    }

    #[test]
    fn a_zstd_stream_ends_with_a_whole_frame() {
        let mut compressor = Compressor::new(Encoding::Zstd);
        let parts = [Encoding::Zstd.stream_head(), &chunk(&mut compressor, &event(1))].concat();
        for head in [Encoding::Zstd.stream_head(), &parts] {
            let stream = [head, Encoding::Zstd.stream_end()].concat();
            let mut context = DCtx::create();
            let mut text = Vec::with_capacity(1000);
            let mut input = InBuffer::around(&stream);
            let mut hint = 1;
            while input.pos() < stream.len() {
                let position = text.len();
                let mut room = OutBuffer::around_pos(&mut text, position);
                hint = context.decompress_stream(&mut room, &mut input).expect("valid zstd");
            }
            assert_eq!(hint, 0, "nothing is missing");
            assert_eq!(text.is_empty(), head.len() == 6);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks(
            chunks in prop::collection::vec(prop::collection::vec(0u8..20, 1..3000), 1..20),
            first in 0usize..20,
        ) {
            for encoding in COMPRESSED {
                let mut compressor = Compressor::new(encoding);
                let mut client = Client::of(encoding);
                for (at, plain) in chunks.iter().enumerate() {
                    let bytes = chunk(&mut compressor, plain);
                    if at >= first {
                        prop_assert_eq!(&client.read(&bytes), plain);
                    }
                }
            }
        }
    }
}
