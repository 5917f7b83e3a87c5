//! The index of a segment whose events are all gone: a stub. It says which offsets are missing on
//! purpose, so that a hole that retention made is not taken for a lost file, and it keeps what the
//! segment had added to the state of the log.
//!
//! It is the index as it was, with one more section, STUB, of 8 bytes: `retired\0`. Where a stub stands
//! beside its log file, a removal was cut short, and is finished by the next start.

use crate::{
    index::{INDEX_HEADER_BYTES, IndexError, IndexHeader, Section, SectionKind},
    offset::Position,
};

const CONTENT: [u8; 8] = *b"retired\0";

impl IndexHeader {
    /// Whether the events are gone on purpose.
    pub fn is_stub(&self) -> bool {
        self.sections.iter().any(|section| section.kind == SectionKind::STUB)
    }
}

/// The stub of an index, which is given whole.
pub fn make_stub(bytes: &[u8]) -> Result<Vec<u8>, IndexError> {
    let mut header = IndexHeader::decode(bytes)?;
    if header.is_stub() {
        return Ok(bytes.to_vec());
    }
    if header.index_bytes != bytes.len() as u64 {
        let bytes_expected = header.index_bytes;
        return Err(IndexError::Length { bytes: bytes.len() as u64, bytes_expected });
    }
    let section = Section {
        kind: SectionKind::STUB,
        checksum: header.seed().crc(&CONTENT),
        position: Position::new(header.index_bytes),
        bytes: CONTENT.len() as u64,
    };
    header.sections.push(section);
    header.index_bytes = section.end().get();
    let mut stub = header.encode().to_vec();
    stub.extend_from_slice(&bytes[INDEX_HEADER_BYTES..]);
    stub.extend_from_slice(&CONTENT);
    Ok(stub)
}
