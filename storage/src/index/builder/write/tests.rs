//! The topics of an index against what its format says, written in the simplest way.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::{
    frame::Seed,
    index::{
        IndexBuilder, IndexHeader, SectionKind, TopicFrame, TopicSummary, filter,
        topics::TOPIC_BLOCK_BYTES, varint,
    },
    offset::Offset,
    testing::TestLog,
};

const LIST_BYTES_INLINE_MAX: usize = 64;

/// TOPICS, LISTS and FENCE.
#[derive(Default)]
struct Written {
    topics: Vec<u8>,
    lists: Vec<u8>,
    fence: Vec<u8>,
}

/// What each entry is told relative to.
struct Context {
    base: Offset,
    first_time_ms: u64,
    seed: Seed,
}

impl Context {
    fn write(&self, builder: &IndexBuilder) -> (Written, Vec<u8>) {
        let mut topics: Vec<(&str, TopicSummary)> = builder.topics().collect();
        topics.sort_unstable_by_key(|(name, _)| *name);
        let mut written = Written::default();
        let mut blocks: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut before = "";
        for (name, summary) in &topics {
            let details =
                self.details(summary, &builder.topic_frames(summary.number), &mut written);
            let shared = before.bytes().zip(name.bytes()).take_while(|(one, other)| one == other);
            let shared = shared.count();
            let entry = [head(name, shared), details.clone()].concat();
            match blocks.last_mut() {
                Some((count, block)) if 8 + block.len() + entry.len() <= TOPIC_BLOCK_BYTES => {
                    *count += 1;
                    block.extend(entry);
                }
                _ => {
                    let fence = if before.is_empty() { "" } else { name }.as_bytes();
                    let fence = &fence[..fence.len().min(shared + 1)];
                    written.fence.extend(u16::try_from(fence.len()).unwrap().to_le_bytes());
                    written.fence.extend(fence);
                    blocks.push((1, [head(name, 0), details].concat()));
                }
            }
            before = name;
        }
        for (number, (count, entries)) in (0_u32..).zip(blocks) {
            let used = u16::try_from(8 + entries.len()).unwrap();
            let mut block = [count.to_le_bytes(), used.to_le_bytes()].concat();
            block.extend(entries);
            block.resize(TOPIC_BLOCK_BYTES - 4, 0);
            let crc = self.seed.crc(&[&number.to_le_bytes()[..], &block].concat());
            written.topics.extend(crc.to_le_bytes());
            written.topics.extend(block);
        }
        let filter = filter::encode(topics.len(), topics.iter().map(|(name, _)| name.as_bytes()));
        (written, filter)
    }

    /// What an entry says behind a topic's name.
    fn details(
        &self,
        summary: &TopicSummary,
        frames: &[TopicFrame],
        written: &mut Written,
    ) -> Vec<u8> {
        let mut list = Vec::new();
        let (mut last_block, mut last_first) = (0, frames[0].first_offset);
        for frame in frames {
            let block = frame.position.get() / 4096;
            varint::write(&mut list, block - last_block);
            varint::write(&mut list, frame.first_offset.since(last_first));
            varint::write(&mut list, frame.event_count - 1);
            (last_block, last_first) = (block, frame.first_offset);
        }
        let mut details = Vec::new();
        for value in [
            u64::from(summary.number.get()),
            summary.event_count,
            summary.first_offset.since(self.base),
            summary.last_offset.since(summary.first_offset),
            summary.last_time_ms - self.first_time_ms,
            list.len() as u64,
        ] {
            varint::write(&mut details, value);
        }
        if list.len() <= LIST_BYTES_INLINE_MAX {
            details.extend(list);
        } else {
            varint::write(&mut details, written.lists.len() as u64);
            details.extend(self.seed.crc(&list).to_le_bytes());
            written.lists.extend(list);
        }
        details
    }
}

/// How an entry begins.
fn head(name: &str, shared: usize) -> Vec<u8> {
    let mut head = Vec::new();
    varint::write(&mut head, shared as u64);
    varint::write(&mut head, (name.len() - shared) as u64);
    head.extend(&name.as_bytes()[shared..]);
    head
}

/// Names of all kinds, or of one: they begin alike for eight bytes and more behind what all have in common,
/// end within those, are longer than what is copied, or begin as no other does.
fn names() -> impl Strategy<Value = BTreeSet<String>> {
    let kinds = ["rooms/[0-9]{8}/messages", "rooms/[0-9]{0,2}x", "rooms/abcdefghijkl[0-9]{1,4}"];
    let kinds = kinds.into_iter().chain(["rooms/[0-9]{4}y{30,50}", "[a-z]{1,3}", "[a-zé/]{1,60}z"]);
    let one = kinds.clone().map(|kind| prop::collection::btree_set(kind, 1..200).boxed());
    let any = prop::strategy::Union::new(kinds);
    let any = prop::collection::btree_set(any, 1..400).boxed();
    let names = prop::strategy::Union::new(one.chain([any]));
    let is_name = |name: &String| crate::topic::Topic::parse(name).is_ok();
    names.prop_map(move |names| names.into_iter().filter(is_name).collect())
}

/// The numbers of the topics of each event of each frame: each of some has one event, others come again,
/// and one is in all frames.
fn frames() -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 1..20), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn topics_are_written_as_the_format_says(
        names in names().prop_filter("no name", |names| !names.is_empty()),
        frames in frames(),
        (is_each, has_hot) in any::<(bool, bool)>(),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // In an order that has nothing to do with that of names.
        let each = (0..names.len()).map(|at| names[at * 7919 % names.len()]);
        let mut plan: Vec<Vec<&str>> = Vec::new();
        if is_each {
            plan.extend(each.collect::<Vec<_>>().chunks(30).map(<[_]>::to_vec));
        }
        for frame in &frames {
            let hot = has_hot.then_some(names[0]);
            plan.push(hot.into_iter().chain(frame.iter().map(|at| *at.get(&names))).collect());
        }
        let plan: Vec<Vec<(&str, Vec<u8>)>> = plan
            .into_iter()
            .map(|frame| frame.into_iter().map(|name| (name, b"1".to_vec())).collect())
            .collect();
        let (_, builder, end) = TestLog::new(1).add_log(&plan);
        let bytes = builder.finish(&end);
        let header = IndexHeader::decode(&bytes).expect("a header");
        let context = Context {
            base: header.base_offset,
            first_time_ms: header.first_time_ms,
            seed: Seed::of(&header.incarnation),
        };
        let (written, filter) = context.write(&builder);
        for (kind, wanted) in [
            (SectionKind::TOPICS, &written.topics),
            (SectionKind::LISTS, &written.lists),
            (SectionKind::FENCE, &written.fence),
            (SectionKind::FILTER, &filter),
        ] {
            prop_assert!(bytes[header.section(kind).range()] == **wanted, "{}", kind);
        }
    }
}
