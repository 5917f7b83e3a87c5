//! Aligned memory that is lent to the kernel.
//!
//! `O_DIRECT` wants memory, length and position on block boundaries. A frame is encoded straight
//! into a [`DiskBuffer`], padded with [`DiskBuffer::pad_to`], written from it while subscribers read
//! from it, and parsed in place when it is read back: event bytes are never copied between.
//!
//! It is the only file of the storage that manages memory with `unsafe` code.

use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error},
    fmt,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use monoio::buf::{IoBuf, IoBufMut};
use zstd_safe::WriteBuf;

/// Memory, lengths and positions of direct I/O are multiples of this: the page, and the physical
/// block of the disks that we know.
pub const ALIGN_BYTES: usize = 4096;

const _: () = assert!(ALIGN_BYTES.is_power_of_two());

/// Growable bytes that begin on an [`ALIGN_BYTES`] boundary.
///
/// Invariants: `start` was returned by the allocator for `layout_of(capacity)` and belongs to this
/// value alone; `capacity` is a multiple of [`ALIGN_BYTES`] and not 0; `len <= capacity`; the first
/// `len` bytes are initialised.
pub struct DiskBuffer {
    start: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the memory belongs to the value alone, as a `Vec<u8>`'s does; nothing in it is bound to a
// thread.
unsafe impl Send for DiskBuffer {}
// SAFETY: `&DiskBuffer` gives shared, read-only access alone.
unsafe impl Sync for DiskBuffer {}

impl DiskBuffer {
    /// An empty buffer with room for `bytes` before it has to grow.
    pub fn with_capacity(bytes: usize) -> Self {
        let layout = layout_of(bytes);
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        DiskBuffer { start, capacity: layout.size(), len: 0 }
    }

    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let layout = layout_of(len);
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        DiskBuffer { start, capacity: layout.size(), len }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes it can hold without growing, a multiple of [`ALIGN_BYTES`].
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes that it holds.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and ours alone, and borrowing `self` keeps
        // them from being freed or changed for as long as the slice lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes that it holds, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the mutable borrow makes it the only access.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Appends `bytes`; grows by at least doubling where there is no room.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        // SAFETY: `reserve` made room for `bytes.len()` bytes behind `len`; `bytes` is borrowed and
        // so cannot lie in our memory, which is borrowed mutably.
        unsafe {
            let end = self.start.as_ptr().add(self.len);
            ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.len += bytes.len();
    }

    /// Appends `count` zero bytes.
    pub fn extend_zeroes(&mut self, count: usize) {
        self.reserve(count);
        // SAFETY: `reserve` made room for `count` bytes behind `len`.
        unsafe { self.start.as_ptr().add(self.len).write_bytes(0, count) };
        self.len += count;
    }

    /// Appends zeroes up to the next multiple of `align`, which is a power of two.
    pub fn pad_to(&mut self, align: usize) {
        assert!(align.is_power_of_two(), "padding to {align} bytes");
        self.extend_zeroes(self.len.next_multiple_of(align) - self.len);
    }

    /// Keeps the first `len` bytes; does nothing if it holds fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `more` bytes behind those that it holds.
    pub fn reserve(&mut self, more: usize) {
        let wanted = self.len.checked_add(more).expect("a buffer stays below 2^63 bytes");
        if wanted > self.capacity {
            let mut grown = DiskBuffer::with_capacity(wanted.max(self.capacity * 2));
            grown.extend_from_slice(self.as_slice());
            *self = grown;
        }
    }
}

/// The memory of a buffer that holds `bytes`: whole blocks, at least one.
fn layout_of(bytes: usize) -> Layout {
    let size = bytes.max(1).checked_next_multiple_of(ALIGN_BYTES);
    size.and_then(|size| Layout::from_size_align(size, ALIGN_BYTES).ok())
        .expect("a buffer stays below 2^63 bytes")
}

impl Drop for DiskBuffer {
    fn drop(&mut self) {
        // SAFETY: `start` came from the allocator with this layout (its size is a multiple of
        // `ALIGN_BYTES` already) and nobody else refers to it.
        unsafe { dealloc(self.start.as_ptr(), layout_of(self.capacity)) };
    }
}

impl Clone for DiskBuffer {
    fn clone(&self) -> Self {
        let mut copy = DiskBuffer::with_capacity(self.len);
        copy.extend_from_slice(self.as_slice());
        copy
    }
}

impl Default for DiskBuffer {
    fn default() -> Self {
        DiskBuffer::with_capacity(0)
    }
}

impl PartialEq for DiskBuffer {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for DiskBuffer {}

impl AsRef<[u8]> for DiskBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for DiskBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DiskBuffer({} of {} bytes)", self.len, self.capacity)
    }
}

// SAFETY: the memory does not move when the value does, and its first `len` bytes are initialised.
unsafe impl IoBuf for DiskBuffer {
    fn read_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len
    }
}

/// A read fills the whole capacity: take a buffer of the capacity that is to be read.
// SAFETY: the memory does not move when the value does, and is ours for `capacity` bytes.
unsafe impl IoBufMut for DiskBuffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity
    }

    unsafe fn set_init(&mut self, len: usize) {
        assert!(len <= self.capacity, "{len} bytes read into {}", self.capacity);
        self.len = len;
    }
}

/// What zstd writes replaces all that it holds; a [`Cursor`](std::io::Cursor) keeps what is before it.
// SAFETY: the memory is ours for `capacity` bytes, and the first `len` of it are initialised.
unsafe impl WriteBuf for DiskBuffer {
    fn as_slice(&self) -> &[u8] {
        self.as_slice()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    unsafe fn filled_until(&mut self, len: usize) {
        assert!(len <= self.capacity, "{len} bytes written into {}", self.capacity);
        self.len = len;
    }
}

/// A finished buffer that the kernel writes from while others read it.
#[derive(Clone, Debug)]
pub struct SharedBuffer(pub Arc<DiskBuffer>);

// SAFETY: the `Arc` keeps the memory alive and unchanged: nobody has it mutably while it is shared,
// and the kernel only reads it.
unsafe impl IoBuf for SharedBuffer {
    fn read_ptr(&self) -> *const u8 {
        self.0.read_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn memory_is_aligned_whatever_its_size() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            for buffer in [DiskBuffer::with_capacity(bytes), DiskBuffer::zeroed(bytes)] {
                assert!((buffer.as_slice().as_ptr() as usize).is_multiple_of(ALIGN_BYTES));
                assert!(buffer.capacity() >= bytes.max(1));
                assert!(buffer.capacity().is_multiple_of(ALIGN_BYTES));
            }
        }
    }

    #[test]
    fn bytes_survive_growth() {
        let mut buffer = DiskBuffer::default();
        let mut expected = Vec::new();
        for round in 0..100_u8 {
            let bytes = vec![round; usize::from(round) * 7];
            buffer.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            buffer.extend_zeroes(3);
            expected.extend_from_slice(&[0; 3]);
        }
        assert_eq!(buffer.as_slice(), expected);
        assert_eq!(buffer.clone(), buffer);
    }

    #[test]
    fn padding_is_zero_even_over_old_bytes() {
        let mut buffer = DiskBuffer::with_capacity(8192);
        buffer.extend_from_slice(&[7; 8192]);
        buffer.truncate(10);
        buffer.pad_to(4096);
        assert_eq!(buffer.len(), 4096);
        assert_eq!(&buffer.as_slice()[..10], &[7; 10]);
        assert!(buffer.as_slice()[10..].iter().all(|byte| *byte == 0));
        buffer.pad_to(4096);
        assert_eq!(buffer.len(), 4096, "already padded");
        buffer.clear();
        buffer.pad_to(512);
        assert!(buffer.is_empty());
    }

    #[test]
    fn zstd_writes_behind_what_is_kept_and_no_further_than_there_is_room() {
        let text = vec![7; 10_000];
        let mut packed = DiskBuffer::with_capacity(zstd_safe::compress_bound(text.len()));
        let packed_bytes = zstd_safe::compress(&mut packed, &text, 1).expect("room");
        assert_eq!(packed.len(), packed_bytes);

        let mut out = Cursor::new(DiskBuffer::with_capacity(64 + text.len()));
        out.get_mut().extend_from_slice(&[1; 64]);
        out.set_position(64);
        assert_eq!(zstd_safe::decompress(&mut out, packed.as_slice()), Ok(text.len()));
        let out = out.into_inner();
        assert_eq!(out.as_slice(), [vec![1; 64], text].concat());

        let mut short = DiskBuffer::with_capacity(8192);
        assert!(zstd_safe::decompress(&mut short, packed.as_slice()).is_err());
        assert!(short.is_empty());
    }

    #[test]
    fn bytes_are_changed_in_place() {
        let mut buffer = DiskBuffer::zeroed(5000);
        buffer.as_mut_slice()[4999] = 1;
        assert_eq!(buffer.as_slice()[4998..], [0, 1]);
        buffer.truncate(9999);
        assert_eq!(buffer.len(), 5000);
    }
}
