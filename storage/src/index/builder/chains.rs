//! Lists that grow at their ends in one table, many at the same time. Pure.

use crate::pieces::Pieces;

/// None of the places that there are.
const NONE: u32 = u32::MAX;

const LINK_BYTES: u32 = 12;

/// Bytes that grow at their end, many at the same time.
#[derive(Debug, Default)]
pub(super) struct Chains {
    links: Pieces<Link>,
}

#[derive(Debug)]
struct Link {
    bytes: [u8; LINK_BYTES as usize],
    /// The next link; of the last one, how many bytes it has, from [`NONE`] down.
    next: u32,
}

const _: () = assert!(size_of::<Link>() == 16);

impl Link {
    /// How many bytes it has, if it is the last.
    fn used(&self) -> Option<u32> {
        let used = NONE - self.next;
        (used <= LINK_BYTES).then_some(used)
    }
}

/// Where some bytes in [`Chains`] begin and end.
#[derive(Debug)]
pub(super) struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { first: NONE, last: NONE }
    }
}

impl Chains {
    /// Puts bytes behind those of a chain.
    pub fn extend(&mut self, chain: &mut Chain, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let has_last = chain.last != NONE;
            let used = if has_last { self.links.get(chain.last).used() } else { Some(LINK_BYTES) };
            let mut used = used.expect("it is the last");
            if used == LINK_BYTES {
                let link = self.links.push(Link { bytes: Default::default(), next: NONE });
                assert!(link < NONE - LINK_BYTES, "fewer than 2^32 - 13 links");
                match has_last {
                    true => self.links.get_mut(chain.last).next = link,
                    false => chain.first = link,
                }
                (chain.last, used) = (link, 0);
            }
            let count = bytes.len().min((LINK_BYTES - used) as usize);
            let (fits, rest) = bytes.split_at(count);
            let link = self.links.get_mut(chain.last);
            link.bytes[used as usize..used as usize + count].copy_from_slice(fits);
            link.next = NONE - used - u32::try_from(count).expect("at most a link's");
            bytes = rest;
        }
    }

    /// Looks at where a chain ends, so that it is near when it grows.
    pub fn look(&self, chain: &Chain) -> u32 {
        if chain.last == NONE { 0 } else { self.links.get(chain.last).next }
    }

    /// Looks at where a chain begins, so that it is near when it is read.
    pub fn look_first(&self, chain: &Chain) -> u32 {
        if chain.first == NONE { 0 } else { self.links.get(chain.first).next }
    }

    /// Appends the bytes of a chain to `out`.
    pub fn read(&self, chain: &Chain, out: &mut Vec<u8>) {
        let mut at = chain.first;
        while at != NONE {
            let link = self.links.get(at);
            let used = link.used();
            out.extend_from_slice(&link.bytes[..used.unwrap_or(LINK_BYTES) as usize]);
            at = if used.is_some() { NONE } else { link.next };
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.links.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_grow_in_turn_are_read_whole() {
        let mut chains = Chains::default();
        let mut all: Vec<(Chain, Vec<u8>)> = Vec::new();
        all.resize_with(50, Default::default);
        for turn in 0..2_000_usize {
            let (chain, bytes) = &mut all[turn * 7 % 50];
            let more: Vec<u8> = (0..turn % 31).map(|byte| u8::try_from(byte).unwrap()).collect();
            chains.extend(chain, &more);
            bytes.extend(more);
        }
        for (chain, bytes) in &all {
            let mut read = Vec::new();
            chains.read(chain, &mut read);
            assert_eq!(&read, bytes);
        }
    }
}
