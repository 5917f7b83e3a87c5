//! Where a reader begins that names no offset: the last so many events, or a time.

use std::rc::Rc;

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::selection::Order;

use super::catch_up::Turns;
use super::start::StartPlace;
use super::wanted::Wanted;
use super::whole_log::WholeLog;
use crate::log_handle::LogHandle;

/// The offset that `place` stands for, in what is visible below `end`. A part of the log that cannot
/// be read is passed over: the reader will be told of it on its way. Once `is_wanted` says no, nobody is
/// there for the answer, and the search ends with any.
pub async fn find(
    log: &Rc<LogHandle>,
    turns: &Turns,
    wanted: Rc<Wanted>,
    place: StartPlace,
    end: Offset,
    is_wanted: impl Fn() -> bool,
) -> Result<Offset, ReadError> {
    match place {
        StartPlace::Offset(offset) => Ok(offset),
        StartPlace::Time(time_ms) => log.offset_at_time(time_ms).await,
        StartPlace::Last(count) => find_last(log, turns, wanted, count, end, is_wanted).await,
    }
}

/// The offset of the `count`-th last matching event, of the first one if there are fewer, or `end` if
/// there are none.
async fn find_last(
    log: &Rc<LogHandle>,
    turns: &Turns,
    wanted: Rc<Wanted>,
    count: u32,
    end: Offset,
    is_wanted: impl Fn() -> bool,
) -> Result<Offset, ReadError> {
    let mut turn = turns.wait().await.expect("turns outlive their waiters");
    let earliest = log.earliest();
    let mut walk = WholeLog::new(log.clone(), wanted, earliest..end, Order::Descending);
    let mut found = 0;
    let mut first = end;
    loop {
        turn.end_slice_if_over().await;
        if !is_wanted() {
            return Ok(first);
        }
        let hits = match walk.next().await {
            Ok(Some(hits)) => hits,
            Ok(None) => return Ok(first),
            Err(ReadError::Gap { .. }) => continue,
            Err(error) => return Err(error),
        };
        for event in hits.events().filter(|event| walk.wanted().takes(event)) {
            first = event.offset();
            found += 1;
            if found == count {
                return Ok(first);
            }
        }
        drop(hits);
        if walk.is_between_parts() && turn.is_over() {
            walk = walk.anew();
            turn = turn.go_behind().await;
        }
    }
}
