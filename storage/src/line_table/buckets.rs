//! The memory of a table: few buckets in one piece, many in huge pages, since each is looked up alone.

use super::Bucket;
use crate::huge_page::{HUGE_PAGE_BYTES, HugePage};

/// Buckets of a huge page.
const PAGE: usize = HUGE_PAGE_BYTES / size_of::<Bucket>();

/// A fixed number of buckets.
#[derive(Debug)]
pub(super) enum Buckets {
    Few(Box<[Bucket]>),
    Many { len: usize, pages: Vec<Box<HugePage<[Bucket; PAGE]>>> },
}

impl Buckets {
    /// So many empty ones.
    pub fn new(len: usize) -> Buckets {
        if len <= PAGE {
            return Buckets::Few(vec![Bucket::EMPTY; len].into());
        }
        let mut pages: Vec<Box<HugePage<[Bucket; PAGE]>>> = Vec::new();
        pages.resize_with(len.div_ceil(PAGE), HugePage::zeroed);
        Buckets::Many { len, pages }
    }

    /// They are in use: has the kernel make huge pages of them.
    pub fn collapse_soon(&self) {
        if let Buckets::Many { pages, .. } = self {
            pages.iter().for_each(|page| page.collapse_soon());
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Buckets::Few(buckets) => buckets.len(),
            Buckets::Many { len, .. } => *len,
        }
    }

    pub fn get(&self, at: usize) -> Option<&Bucket> {
        (at < self.len()).then(|| self.at(at))
    }

    pub fn at(&self, at: usize) -> &Bucket {
        match self {
            Buckets::Few(buckets) => &buckets[at],
            Buckets::Many { pages, .. } => &pages[at / PAGE].0[at % PAGE],
        }
    }

    pub fn at_mut(&mut self, at: usize) -> &mut Bucket {
        match self {
            Buckets::Few(buckets) => &mut buckets[at],
            Buckets::Many { pages, .. } => &mut pages[at / PAGE].0[at % PAGE],
        }
    }

    /// How much memory they take.
    pub fn memory_bytes(&self) -> usize {
        self.len() * size_of::<Bucket>()
    }
}
