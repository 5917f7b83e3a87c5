//! The `id:` lines of events.

use strandline_storage::{offset::Offset, segment::Tag};

use crate::json::write;

/// The `id:` line of the event that was encoded last. That of the next one differs in a digit, nearly always:
/// who catches up on all of a log gets millions in a row.
#[derive(Debug, Clone)]
pub(super) struct IdLine {
    text: Vec<u8>,
    offset: Offset,
    /// What follows the offset: the tag and the line's end.
    end: Box<[u8]>,
}

impl IdLine {
    const START: &[u8] = b"id: ";

    /// That of no event yet.
    pub(super) fn new(tag: Tag) -> IdLine {
        let end: Box<[u8]> = format!(".{tag}\n").into_bytes().into();
        let mut line = IdLine { text: Vec::new(), offset: Offset::ZERO, end };
        line.write();
        line
    }

    /// The line of the event at `offset`.
    pub(super) fn of(&mut self, offset: Offset) -> &[u8] {
        let is_next = offset.previous() == Some(self.offset);
        self.offset = offset;
        let digits = Self::START.len()..self.text.len() - self.end.len();
        if !(is_next && count_on(&mut self.text[digits])) {
            self.write();
        }
        &self.text
    }

    fn write(&mut self) {
        self.text.clear();
        self.text.extend_from_slice(Self::START);
        write::number(&mut self.text, self.offset.get());
        self.text.extend_from_slice(&self.end);
    }
}

/// Makes a decimal number larger by one; false if it has no room for that.
fn count_on(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return true;
        }
        *digit = b'0';
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_on_and_begin_anew() {
        let mut line = IdLine::new(Tag::parse("k3f9q").unwrap());
        let mut offsets: Vec<u64> = (0..1_200).collect();
        offsets.extend([1_199, 5, 6, 7, 99_998, 99_999, 100_000, 100_001, 9, 10, 11, 0, 1, 1, 2]);
        offsets.extend([u64::MAX - 3, u64::MAX - 2]);
        for offset in offsets {
            let text = String::from_utf8(line.of(Offset::new(offset)).to_vec()).unwrap();
            assert_eq!(text, format!("id: {offset}.k3f9q\n"));
        }
    }
}
