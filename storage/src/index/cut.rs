//! The state delta of a segment that is cut: what it said of the events before the cut, be they gone, and no
//! more.

use std::collections::{BTreeMap, HashMap};

use crate::{
    index::{
        Carried, IndexBuilder, IndexError, IndexHeader,
        delta::{self, IDS_MAX},
        gone,
    },
    offset::Offset,
    once::{NameHash, ProducerEntry},
};

/// What of `carried`, which the index with this header says, holds for a segment that ends at `cut` and whose
/// frames are those of `kept`.
///
/// A producer whose last append lies behind the cut is known by what its frames before it say: compaction keeps
/// no more than the last one beside them.
pub(crate) fn carried_below(
    carried: &Carried,
    header: &IndexHeader,
    cut: Offset,
    kept: &IndexBuilder,
) -> Result<Carried, IndexError> {
    let (base, end) = (header.base_offset, header.end_offset);
    let of_frames = kept.delta();

    let mut ids: BTreeMap<Offset, _> =
        of_frames.ids().map(|entry| (entry.offset, *entry)).collect();
    for entry in delta::decode_ids(&carried.ids, base, end)? {
        if entry.offset < cut {
            ids.insert(entry.offset, entry);
        }
    }
    let too_many = ids.len().saturating_sub(IDS_MAX);
    let ids: Vec<_> = ids.into_values().skip(too_many).collect();

    let of_frames_producers = of_frames.producers();
    let mut producers: HashMap<NameHash, ProducerEntry> =
        of_frames_producers.into_iter().map(|entry| (entry.hash, entry)).collect();
    for entry in delta::decode_producers(&carried.producers, end)? {
        if entry.first.plus(u64::from(entry.events)) <= cut {
            producers.insert(entry.hash, entry);
        }
    }
    let mut producers: Vec<_> = producers.into_values().collect();
    producers.sort_unstable_by_key(|entry| (entry.first, entry.hash));

    let mut controls = delta::decode_controls(&carried.controls, base, end)?;
    controls.retain(|control| control.offset < cut);
    let mut gone = gone::decode_gone(&carried.gone, base, end)?;
    gone.retain(|topic| topic.last_offset < cut);

    let times = gone.iter().map(|topic| topic.last_time_ms);
    let times = times.chain(ids.iter().map(|entry| entry.time_ms));
    Ok(Carried {
        ids: delta::encode_ids(ids.iter(), base),
        producers: delta::encode_producers(producers.iter()),
        controls: delta::encode_controls(&controls, base),
        gone: gone::encode_gone(&gone, base),
        last_time_ms: times.fold(kept.last_time_ms(), u64::max),
    })
}
