//! Many topics: how an event's is chosen, and the first event of each.
//!
//! They are `<topic>/<number>`, the number in 8 lower-case hexadecimal digits, and come at random, each
//! as often: what a server knows of the next one is then seldom near.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{
    http::{Answer, excerpt},
    payload::{hex, xorshift},
};

/// First events go in bodies of so many lines.
const LOAD_LINES: u32 = 10_000;

/// The topics of one publisher's requests.
#[derive(Clone, Debug)]
pub struct Draw {
    count: u32,
    state: u64,
}

impl Draw {
    /// Out of `count` topics, which are some; others for each publisher, the same in every run.
    pub fn new(count: u32, publisher: u32) -> Draw {
        assert!(count > 0, "an event has a topic");
        Draw { count, state: (u64::from(publisher) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// The last level of the next one's name.
    pub fn next_level(&mut self) -> [u8; 8] {
        // The upper half is spread over the topics.
        let number = ((xorshift(&mut self.state) >> 32) * u64::from(self.count)) >> 32;
        hex(u32::try_from(number).expect("below the count"))
    }
}

/// Appends one event to each of the topics below `topic`, so that the server knows them all.
pub fn load(
    address: SocketAddr,
    host: &str,
    topic: &str,
    count: u32,
    payload_bytes: usize,
) -> io::Result<()> {
    let (mut stream, mut answers) = (TcpStream::connect(address)?, Vec::new());
    let (data, mut lines) = (".".repeat(payload_bytes), Vec::new());
    for begin in (0..count).step_by(LOAD_LINES as usize) {
        lines.clear();
        let end = count.min(begin.saturating_add(LOAD_LINES));
        for number in begin..end {
            writeln!(lines, "{{\"topic\":\"{topic}/{number:08x}\",\"data\":\"{data}\"}}")?;
        }
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\n\
             Content-Length: {}\r\n\r\n",
            lines.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&lines)?;
        take_answer(&mut stream, &mut answers)?;
    }
    Ok(())
}

fn take_answer(stream: &mut TcpStream, came: &mut Vec<u8>) -> io::Result<()> {
    let (mut part, odd) = ([0; 4096], |said: String| io::Error::other(said));
    loop {
        if let Some(answer) = Answer::parse(came).map_err(odd)? {
            if answer.status != 201 {
                return Err(odd(format!("answered {}: {}", answer.status, excerpt(answer.body))));
            }
            let bytes = answer.bytes;
            came.drain(..bytes);
            return Ok(());
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => came.extend_from_slice(&part[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_comes_about_as_often_and_in_no_order() {
        let (mut draw, mut counts) = (Draw::new(10, 3), [0; 10]);
        let mut ascents = 0;
        let mut last = 0;
        for _ in 0..10_000 {
            let level = draw.next_level();
            let number = usize::from_str_radix(str::from_utf8(&level).unwrap(), 16).unwrap();
            counts[number] += 1;
            ascents += u32::from(number > last);
            last = number;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert!((4_000..5_000).contains(&ascents), "{ascents}");
    }

    #[test]
    fn publishers_have_topics_of_their_own_in_turn() {
        let levels = |publisher| {
            let mut draw = Draw::new(1_000_000, publisher);
            [(); 4].map(|()| draw.next_level())
        };
        assert_eq!(levels(1), levels(1));
        assert_ne!(levels(1), levels(2));
    }
}
