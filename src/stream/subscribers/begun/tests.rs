use std::io::Read;
use std::os::unix::net::UnixStream;

use super::super::testing::{Unsaid, everything};
use super::super::wire::{Source, Wire};
use super::*;
use crate::stream::chunk::Chunk;
use crate::stream::subscription::Subscription;

fn view() -> View {
    View::new(everything(), Rc::new(Unsaid), Offset::ZERO, 0)
}

fn begun_chunks(bytes_max: usize) -> Rc<BegunChunks> {
    Rc::new(BegunChunks::new(bytes_max))
}

fn chunk(at: u64, bytes: usize) -> Chunk {
    let bytes: Vec<u8> = (at..).take(bytes).map(|n| n.to_le_bytes()[0]).collect();
    Chunk::whole(Offset::new(at), Offset::new(at + 1), bytes.into())
}

/// A subscriber whose socket took a part of `chunk`.
fn stalled(view: &View, begun: &Rc<BegunChunks>, chunk: &Chunk) -> (Wire, UnixStream) {
    let (socket, client) = UnixStream::pair().expect("a pair of sockets");
    socket.set_nonblocking(true).expect("a socket does not block");
    let bytes = 4096 + 8 * usize::try_from(chunk.start.get()).expect("small");
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, bytes).expect("a size");
    let mut wire = Wire::new(socket.into());
    let mut place = Subscription::new(chunk.start);
    let chunks = std::iter::once(chunk);
    let is_taken = wire.push(&mut place, view, begun, None, chunks).expect("it is sent");
    assert!(!is_taken && wire.is_full && !wire.is_drained(), "a part of it");
    assert_eq!(place.next(), chunk.end);
    (wire, client)
}

/// What `wire` has asked for is encoded anew.
fn come_back(wire: &mut Wire, begun: &Rc<Begun>, of: &Chunk) {
    let again = Bytes::copy_from_slice(&of.bytes);
    assert!(begun.is_of(&again) && !begun.is_of(&again[1..]));
    assert!(wire.is_waiting() && wire.ask().is_none(), "it has asked");
    let sent = wire.go_on().expect("it is owed it");
    begun.come_back(&again, sent);
    assert!(!wire.is_waiting());
}

/// Reads what `wire` has for its client until nothing is left of it, encoding anew what has gone.
fn read_on(wire: &mut Wire, client: &mut UnixStream, of: &Chunk) -> (Vec<u8>, usize) {
    let (mut got, mut came_back) = (Vec::new(), 0);
    loop {
        let mut part = vec![0; 1 << 20];
        let count = client.read(&mut part).expect("bytes");
        got.extend_from_slice(&part[..count]);
        wire.is_full = false;
        if let Some(begun) = wire.ask() {
            assert!(!wire.flush().expect("nothing is sent") && !wire.is_full);
            come_back(wire, &begun, of);
            came_back += 1;
        }
        if wire.flush().expect("it is sent") {
            break;
        }
    }
    let mut rest = vec![0; of.bytes.len() - got.len()];
    client.read_exact(&mut rest).expect("the rest");
    got.extend_from_slice(&rest);
    (got, came_back)
}

/// Each kept its whole chunk, for as long as it stalled: a thousand of large events a gigabyte.
#[test]
fn a_thousand_that_stall_in_chunks_of_their_own_keep_no_more_than_may_be_kept() {
    const BYTES_MAX: usize = 4 * 1024 * 1024;
    let (view, begun) = (view(), begun_chunks(BYTES_MAX));
    let chunks: Vec<Chunk> = (0..1000).map(|at| chunk(at, 100_000)).collect();
    // Two descriptors each.
    crate::runtime::raise_file_limit();
    let mut all = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        all.push(stalled(&view, &begun, chunk));
        if at % 100 == 99 {
            let held = chunks.iter().filter(|chunk| !chunk.bytes.is_unique());
            let held: usize = held.map(|chunk| chunk.bytes.len()).sum();
            assert!(held <= BYTES_MAX, "{held} bytes are held for {}", at + 1);
            assert!(held > BYTES_MAX / 2, "room is used: {held}");
            assert!(begun.kept.borrow().bytes <= BYTES_MAX);
        }
    }
    let mut came_back = 0;
    for ((mut wire, mut client), chunk) in all.into_iter().zip(&chunks) {
        let (got, again) = read_on(&mut wire, &mut client, chunk);
        assert!(got == chunk.bytes, "{:?}", chunk.start);
        came_back += again;
    }
    assert!(came_back > 900, "{came_back}");
    let kept = begun.kept.borrow();
    assert_eq!((kept.bytes, kept.here.len(), kept.by_address.len()), (0, 0, 0));
}

#[test]
fn a_chunk_is_kept_once_for_all_who_stand_in_it() {
    let (view, begun) = (view(), begun_chunks(250_000));
    let (one, other) = (chunk(1, 100_000), chunk(2, 100_000));
    let mut all: Vec<_> = (0..50).map(|_| stalled(&view, &begun, &one)).collect();
    assert_eq!(begun.kept.borrow().bytes, 100_000 + BEGUN_COST_BYTES);
    let _other = stalled(&view, &begun, &other);
    assert!(!one.bytes.is_unique() && !other.bytes.is_unique());
    let third = chunk(3, 100_000);
    let _third = stalled(&view, &begun, &third);
    assert!(one.bytes.is_unique() && !other.bytes.is_unique(), "the oldest goes, once");
    let mut came_back = 0;
    for (wire, client) in &mut all {
        wire.is_full = false;
        let (got, again) = read_on(wire, client, &one);
        assert!(got == one.bytes);
        came_back += again;
    }
    assert_eq!(came_back, 1, "and comes back once");
    assert!(one.bytes.is_unique() && other.bytes.is_unique() != third.bytes.is_unique());
}

#[test]
fn a_short_rest_lets_go_of_its_chunk() {
    let (view, begun, chunk) = (view(), begun_chunks(0), chunk(1, 100_000));
    let (mut wire, _client) = stalled(&view, &begun, &chunk);
    let source = &Source { view: &view, begun: &begun };
    wire.keep_rest(source, chunk.start..chunk.end, &chunk.bytes, chunk.bytes.len() - 513);
    assert!(!chunk.bytes.is_unique());
    wire.keep_rest(source, chunk.start..chunk.end, &chunk.bytes, chunk.bytes.len() - 512);
    assert!(chunk.bytes.is_unique());
}

#[test]
fn words_stand_behind_a_chunk_that_has_gone() {
    let (view, begun) = (view(), begun_chunks(1));
    let (one, other) = (chunk(1, 100_000), chunk(2, 100_000));
    let (mut wire, mut client) = stalled(&view, &begun, &one);
    let _other = stalled(&view, &begun, &other);
    assert!(one.bytes.is_unique(), "it has gone");
    assert!(!wire.append(b"goodbye").expect("it waits"));
    assert!(wire.ask().is_none(), "nobody takes it yet");
    let (got, again) = read_on(&mut wire, &mut client, &one);
    assert_eq!(again, 2, "in two parts");
    assert!(got[..] == one.bytes[..]);
    let mut words = [0; 7];
    client.read_exact(&mut words).expect("the words");
    assert_eq!(&words, b"goodbye");
}

/// Each put out what another was to be sent next, and was encoded anew for each time that its socket took
/// a few kilobytes: 50 times a chunk here.
#[test]
fn those_who_read_in_turns_do_not_put_out_each_other() {
    const BYTES_MAX: usize = 4 * 1024 * 1024;
    let (view, begun) = (view(), begun_chunks(BYTES_MAX));
    let chunks: Vec<Chunk> = (0..20).map(|at| chunk(at, 500_000)).collect();
    let mut readers: Vec<_> = chunks
        .iter()
        .map(|chunk| {
            let (wire, client) = stalled(&view, &begun, chunk);
            client.set_nonblocking(true).expect("a socket does not block");
            (wire, client, Vec::new(), chunk)
        })
        .collect();
    let (mut part, mut came_back, mut rounds) = (vec![0; 1 << 20], 0, 0);
    while readers.iter().any(|(_, _, got, chunk)| got.len() < chunk.bytes.len()) {
        for (wire, client, got, chunk) in &mut readers {
            let Ok(count) = client.read(&mut part) else { continue };
            got.extend_from_slice(&part[..count]);
            wire.is_full = false;
            while !wire.flush().expect("it is sent") && !wire.is_full {
                let begun = wire.ask().expect("it has gone");
                come_back(wire, &begun, chunk);
                came_back += 1;
            }
            assert!(begun.kept.borrow().bytes <= BYTES_MAX);
        }
        rounds += 1;
    }
    assert!(readers.iter().all(|(_, _, got, chunk)| *got == chunk.bytes));
    assert!(rounds > 30, "a few kilobytes at a time: {rounds}");
    // A fifth of a chunk is their share.
    assert!(came_back < 20 * 6, "{came_back} times");
}

#[test]
fn whoever_is_sent_nothing_for_long_makes_room_for_all_that_is_owed() {
    let (view, begun) = (view(), begun_chunks(250_000));
    let chunks = [1, 2, 3].map(|at| chunk(at, 100_000));
    let [first, second, third] = &chunks;
    let (mut wire, _client) = stalled(&view, &begun, first);
    let (mut other, mut other_client) = stalled(&view, &begun, second);
    let _third = stalled(&view, &begun, third);
    let is_here =
        |chunk: &Chunk| begun.kept.borrow().by_address.contains_key(&address(&chunk.bytes));
    assert!(!is_here(first) && is_here(second) && is_here(third));
    let bring_back = |wire: &mut Wire| {
        wire.is_full = false;
        let begun = wire.ask().expect("it has gone");
        come_back(wire, &begun, first);
        let here = begun.here.borrow().as_ref().expect("it is here").bytes.len();
        begun.let_go();
        here
    };
    // The second is sent some: the third was sent of longest ago, and yet just now.
    other.is_full = false;
    assert!(other_client.read(&mut [0; 64_000]).expect("bytes") > 0);
    assert!(!other.flush().expect("it is sent"));
    assert!((PART_BYTES_MIN..84_000).contains(&bring_back(&mut wire)), "its share");
    assert!(is_here(second) && !is_here(third));
    let _third = stalled(&view, &begun, third);
    begun.set_tick(ticks(IDLE_MS));
    assert!(bring_back(&mut wire) < 84_000, "not yet");
    assert!(!is_here(second) && is_here(third));
    let _second = stalled(&view, &begun, second);
    begun.set_tick(2 * ticks(IDLE_MS) + 1);
    assert!(bring_back(&mut wire) > 84_000, "all that is owed");
    assert!(!is_here(third) && is_here(second));
}
