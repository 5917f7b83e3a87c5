//! A frame at another place: a repair and a restore copy frames to other segments, whole or cut short.

use std::sync::Arc;

use super::{
    FRAME_HEADER_BYTES, Frame, FrameFlags, FrameMeta, Seed, compressed::encode_compressed,
    encode::encode,
};
use crate::{
    append::ProducerClaim,
    buffer::DiskBuffer,
    event::{EventView, StagedEvent, archive::PRODUCER_HEADER},
    offset::Offset,
    topic::Topic,
};

impl Frame {
    /// Its events below `end_offset` as a frame of another segment, or at another place of the chain: as it
    /// is read, and the bytes to be stored. A frame that stays whole and is not compressed keeps its body.
    /// An append of a producer that is cut in two is nobody's any more: sent again it is appended. (Compaction spreads an
    /// append over frames, so it may begin in one that stays whole.)
    /// `None` if a topic is spelled as no topic is.
    pub fn rewritten(
        &self,
        end_offset: Offset,
        seed: Seed,
        previous_checksum: u32,
    ) -> Option<(Frame, DiskBuffer)> {
        let mut header = self.header;
        let is_as_it_was = end_offset >= header.end_offset
            && !header.flags.has(FrameFlags::COMPRESSED)
            && !self.events().any(|event| is_cut_in_two(&event, end_offset));
        if !is_as_it_was {
            let names: Option<Vec<Topic>> =
                self.topics().map(|(_, name)| Topic::parse_reserved(name).ok()).collect();
            let names = names?;
            let staged = |event: EventView<'_>| {
                let mut new = event.to_new(&names[event.topic_index()]);
                if is_cut_in_two(&event, end_offset) {
                    new.headers.retain(|(name, _)| &**name != PRODUCER_HEADER);
                }
                StagedEvent {
                    offset: event.offset(),
                    time_ms: event.time_ms(),
                    topic_number: event.topic_number(),
                    event: new,
                }
            };
            let below = self.events().take_while(|event| event.offset() < end_offset);
            let events: Vec<StagedEvent> = below.map(staged).collect();
            let meta = FrameMeta {
                base_offset: header.base_offset,
                commit_time_ms: header.commit_time_ms,
                synced_offset: header.synced_offset,
                previous_checksum,
                flags: FrameFlags::NONE,
            };
            return Some(match events.is_empty() {
                true => {
                    let frame = encode(&meta, &[], seed, DiskBuffer::default());
                    let stored = (*frame.buffer).clone();
                    (frame, stored)
                }
                false => {
                    let end_offset = end_offset.min(header.end_offset);
                    encode_compressed(&meta, end_offset, &events, seed)
                }
            });
        }
        let body = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.body_bytes;
        let mut buffer = DiskBuffer::default();
        buffer.extend_from_slice(self.as_bytes());
        // That of a damaged file is not always what was written.
        buffer.as_mut_slice()[body.end..].fill(0);
        header.previous_checksum = previous_checksum;
        header.body_checksum = seed.crc(&buffer.as_slice()[body]);
        let header_bytes = header.encode(seed);
        buffer.as_mut_slice()[..FRAME_HEADER_BYTES].copy_from_slice(&header_bytes);
        let stored = buffer.clone();
        let body_bytes = self.body_bytes;
        Some((Frame { header, buffer: Arc::new(buffer), start: 0, body_bytes }, stored))
    }
}

/// Whether an event begins an append of a producer that goes on behind `end_offset`.
fn is_cut_in_two(event: &EventView<'_>, end_offset: Offset) -> bool {
    let append = event.producer().and_then(ProducerClaim::decode);
    append.is_some_and(|(_, events)| event.offset().plus(events.into()) > end_offset)
}
