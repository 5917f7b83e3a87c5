//! How long it is known what was deleted or trimmed.

use super::*;
use crate::{
    control::TopicTrimmed,
    reader::Reader,
    settings::{LogRetention, LogSettings},
};

/// A limit of the log that ended inside a segment had the log forget what was trimmed below: who had begun to read there before
/// was given it.
#[test]
fn what_was_trimmed_is_hidden_from_who_reads_on_below_a_limit_of_the_log() {
    let disk = SimDisk::new(6);
    let config = LogConfig { segment_bytes: 4 << 20, frame_bytes_target: 1, ..tiny() };
    let (mut log, _) = open_with(&disk, config.clone());
    for number in 0..200_u64 {
        log.append(vec![event("a", &format!("{number:->5000}"))], now(0)).expect("staged");
        log.run_ops(now(0));
    }
    close(&mut log);
    drop(log);
    let (mut log, _) = open_with(&disk, config);
    let trimmed = TopicTrimmed { topic: "a".into(), before: 20 };
    log.append_control(&Control::Trimmed(trimmed), now(0)).expect("staged");
    log.run_ops(now(0));
    let (from, end) = (Offset::new(5), log.segments().end());
    let query = ReadQuery { topics: Vec::new(), from, end, order: Order::Ascending };
    let mut on_its_way = Reader::new(Arc::clone(log.segments()), &query);
    let retain = LogRetention { count: Some(100), ..LogRetention::default() };
    log.append_control(&Control::Log(LogSettings { retain }), now(1_000)).expect("staged");
    log.run_ops(now(2_000));
    log.run_ops(now(4_000));
    assert!(log.start() > Offset::new(50), "the limit ends in the segment");
    let read = std::iter::from_fn(|| on_its_way.next_blocking().expect("it is all there"));
    let seen = read.flat_map(|hits| {
        let hits = log.rules().floors().filter(hits);
        hits.events().map(|event| event.offset()).collect::<Vec<_>>()
    });
    assert_eq!(seen.min(), Some(Offset::new(20)));
}
