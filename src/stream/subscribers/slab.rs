//! Places for the connections of a shard: numbered, used again, and never moved.
//!
//! Places come in blocks, so that a shard that grows never copies its connections, nor holds twice
//! what they need while it does. A place that is used again has another generation: whoever still
//! holds the old one's [`SlotId`] finds nothing.

/// Places of one block.
const BLOCK: usize = 64;

/// Names what was put into a slab, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SlotId {
    /// As one number, for the kernel to hand back.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The reverse of [`SlotId::to_bits`].
    pub(super) fn from_bits(bits: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
        SlotId { index: half(bits), generation: half(bits >> 32) }
    }
}

/// What a place costs whose value is a `T`.
pub(super) const fn place_bytes<T>() -> usize {
    size_of::<Place<T>>()
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by number.
pub(super) struct Slab<T> {
    blocks: Vec<Box<[Place<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { blocks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a value into a free place.
    pub(super) fn insert(&mut self, value: T) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| self.add_block());
        let place = &mut self.blocks[index as usize / BLOCK][index as usize % BLOCK];
        place.value = Some(value);
        self.len += 1;
        SlotId { index, generation: place.generation }
    }

    /// The value that was put in as `id`, if it is still there.
    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let place = &mut self.blocks[id.index as usize / BLOCK][id.index as usize % BLOCK];
        if place.generation == id.generation { place.value.as_mut() } else { None }
    }

    /// The value at a place, and its full name.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<(SlotId, &mut T)> {
        let place = &mut self.blocks[index as usize / BLOCK][index as usize % BLOCK];
        let id = SlotId { index, generation: place.generation };
        place.value.as_mut().map(|value| (id, value))
    }

    /// Takes a value out; its place may be used again, by another name.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<T> {
        let place = &mut self.blocks[id.index as usize / BLOCK][id.index as usize % BLOCK];
        if place.generation != id.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        self.len -= 1;
        Some(value)
    }

    /// The names of all values.
    pub(super) fn ids(&self) -> Vec<SlotId> {
        let places = self.blocks.iter().flat_map(|block| block.iter()).zip(0_u32..);
        places
            .filter(|(place, _)| place.value.is_some())
            .map(|(place, index)| SlotId { index, generation: place.generation })
            .collect()
    }

    /// Adds a block and returns the first of its places; the others are free.
    fn add_block(&mut self) -> u32 {
        let first = self.blocks.len() * BLOCK;
        let block = (0..BLOCK).map(|_| Place { generation: 0, value: None }).collect();
        self.blocks.push(block);
        let number = |index: usize| u32::try_from(index).expect("fewer than 2^32 connections");
        self.free.extend((first + 1..first + BLOCK).rev().map(number));
        number(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_by_another_name() {
        let mut slab = Slab::default();
        let ids: Vec<SlotId> = (0..200).map(|value| slab.insert(value)).collect();
        assert!(ids.iter().zip(0..).all(|(id, value)| slab.get_mut(*id) == Some(&mut { value })));
        assert_eq!((slab.len(), slab.remove(ids[7]), slab.remove(ids[7])), (200, Some(7), None));
        assert_eq!(slab.at_mut(7), None);
        let again = slab.insert(1000);
        assert_eq!((again.index, slab.get_mut(ids[7])), (ids[7].index, None));
        assert_eq!(slab.at_mut(7), Some((again, &mut 1000)));
        assert_eq!((slab.ids().len(), slab.blocks.len()), (200, 4));
        assert_eq!(SlotId::from_bits(again.to_bits()), again);
    }
}
