//! Streams that the server compressed, in the codings that browsers ask for.

use std::{cell::RefCell, io::Write};

use flate2::write::GzDecoder;
use zstd_safe::{DCtx, InBuffer, OutBuffer};

/// What one piece of received bytes may become: more is an attack, or a mistake.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
/// Room made at once for what comes out.
const ROOM_BYTES: usize = 16 << 10;
/// The shortest zstd frame: a header of 6 bytes and the header of a block.
const ZSTD_FRAME_BYTES_MIN: usize = 9;

thread_local! {
    /// Decoders that are between two frames: any connection may go on with any of them. One takes a
    /// megabyte and more, and ten thousand connections must not.
    static ZSTD_IDLE: RefCell<Vec<DCtx<'static>>> = const { RefCell::new(Vec::new()) };
}

/// What one compressed stream needs between two reads.
pub struct Decompressor(Coding);

enum Coding {
    Gzip(Box<GzDecoder<Vec<u8>>>),
    Zstd {
        /// Of the frame that is under way.
        decoder: Option<DCtx<'static>>,
        /// The beginning of a frame, too short to begin with it: a server may send the next frame's
        /// header behind a frame, and then nothing for hours.
        begin: Vec<u8>,
    },
}

impl Decompressor {
    /// For a content coding by its name; `None` for `identity`.
    pub fn new(coding: &[u8]) -> Result<Option<Decompressor>, String> {
        match coding {
            b"gzip" => Ok(Some(Coding::Gzip(Box::new(GzDecoder::new(Vec::new()))))),
            b"zstd" => Ok(Some(Coding::Zstd { decoder: None, begin: Vec::new() })),
            b"identity" => Ok(None),
            _ => Err(format!("content coding {}", String::from_utf8_lossy(coding))),
        }
        .map(|coding| coding.map(Decompressor))
    }

    /// Decompresses `piece`, the next part of the stream, to the end of `out`.
    pub fn decompress(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match &mut self.0 {
            Coding::Gzip(decoder) => {
                let done = decoder.write_all(piece).and_then(|()| decoder.flush());
                done.map_err(|error| format!("gzip: {error}"))?;
                if decoder.get_ref().len() > DECOMPRESSED_BYTES_MAX {
                    return Err(too_much());
                }
                out.append(decoder.get_mut());
                Ok(())
            }
            Coding::Zstd { decoder, begin } if begin.is_empty() => {
                decompress_zstd(decoder, begin, piece, out)
            }
            Coding::Zstd { decoder, begin } => {
                let mut all = std::mem::take(begin);
                all.extend_from_slice(piece);
                decompress_zstd(decoder, begin, &all, out)
            }
        }
    }
}

fn too_much() -> String {
    format!("a piece that decompresses to more than {DECOMPRESSED_BYTES_MAX} bytes")
}

fn decompress_zstd(
    current: &mut Option<DCtx<'static>>,
    begin: &mut Vec<u8>,
    piece: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let out_bytes_max = out.len() + DECOMPRESSED_BYTES_MAX;
    let mut input = InBuffer::around(piece);
    loop {
        let decoder = match current {
            Some(decoder) => decoder,
            None => {
                let rest = &piece[input.pos..];
                if rest.len() < ZSTD_FRAME_BYTES_MIN {
                    begin.extend_from_slice(rest);
                    return Ok(());
                }
                let idle = ZSTD_IDLE.with_borrow_mut(Vec::pop);
                current.insert(idle.unwrap_or_else(DCtx::create))
            }
        };
        out.reserve(ROOM_BYTES);
        let end = out.len();
        let mut output = OutBuffer::around_pos(out, end);
        let hint = decoder
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| format!("zstd: {}", zstd_safe::get_error_name(code)))?;
        let is_full = output.pos() == output.capacity();
        if hint == 0 {
            ZSTD_IDLE.with_borrow_mut(|idle| idle.extend(current.take()));
        } else if input.pos == piece.len() && !is_full {
            return Ok(());
        }
        if out.len() > out_bytes_max {
            return Err(too_much());
        }
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            Coding::Gzip(_) => "gzip",
            Coding::Zstd { .. } => "zstd",
        })
    }
}

/// One frame around `data`.
#[cfg(test)]
pub fn zstd_frame(data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(data.len()));
    zstd_safe::compress(&mut frame, data, 3).expect("there is room");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decoder_is_held_between_frames() {
        let header = b"\x28\xb5\x2f\xfd\x00\x50";
        let large = vec![b'x'; 300_000];
        let frames = [zstd_frame(b"one"), zstd_frame(&large), header.to_vec()].concat();
        let mut zstd = Decompressor::new(b"zstd").unwrap().unwrap();
        let mut out = Vec::new();
        zstd.decompress(&frames[..5], &mut out).unwrap();
        zstd.decompress(&frames[5..], &mut out).unwrap();
        assert_eq!(out, [b"one", &large[..]].concat());
        let Coding::Zstd { decoder, begin } = &zstd.0 else { panic!("zstd") };
        assert!(decoder.is_none());
        assert_eq!(begin, header);
    }

    #[test]
    fn rubbish_is_refused() {
        for coding in [&b"gzip"[..], b"zstd"] {
            let mut decompressor = Decompressor::new(coding).unwrap().unwrap();
            assert!(decompressor.decompress(&[0x55; 100], &mut Vec::new()).is_err(), "{coding:?}");
        }
        assert!(Decompressor::new(b"br").is_err());
    }
}
