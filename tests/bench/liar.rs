//! Servers that do not do what they promise, each in its own way.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
                        event: connection.established\ndata: {\"state\":\"live\"}\n\n";

/// What a [`Liar`] does to one event of the stream.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    LeaveOut,
    SendTwice,
    Swap,
    ChangeByte,
}

/// A server that takes every append and streams them to one subscriber, but for one lie.
pub struct Liar {
    pub address: SocketAddr,
}

impl Liar {
    pub fn start(lie: Lie) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut subscriber, _) = listener.accept().expect("a subscriber");
            read_head(&mut subscriber);
            subscriber.write_all(STREAM).expect("it reads");
            let (mut publisher, _) = listener.accept().expect("a publisher");
            let mut held = Vec::new();
            for number in 0.. {
                let Some(payload) = read_append(&mut publisher) else { return };
                let mut event = [b"data: ", &payload[..], b"\n\n"].concat();
                if number == 5 {
                    match lie {
                        Lie::LeaveOut => event.clear(),
                        Lie::SendTwice => event = event.repeat(2),
                        Lie::Swap => held = std::mem::take(&mut event),
                        Lie::ChangeByte => event[100] = b'~',
                    }
                } else {
                    event.append(&mut held);
                }
                if subscriber.write_all(&event).is_err() || publisher.write_all(&answer(1)).is_err()
                {
                    return;
                }
            }
        });
        Liar { address }
    }
}

fn answer(count: usize) -> Vec<u8> {
    let body = format!("{{\"offset\":1,\"count\":{count}}}");
    format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn read_append(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let head = read_head(stream)?;
    read_body(stream, &head)
}

fn read_body(stream: &mut TcpStream, head: &str) -> Option<Vec<u8>> {
    let length = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// A server that takes an append in its time, streams events that come to who was there before them, and to who comes
/// later what it likes of the others.
pub struct Late {
    address: SocketAddr,
}

/// The events so far as a stream has them, and who was there before them.
#[derive(Default)]
struct Taken {
    events: Vec<Vec<u8>>,
    early: Vec<TcpStream>,
    later: usize,
}

/// What those who come later get, by their number and the events so far.
pub type Shown = fn(usize, &[Vec<u8>]) -> Vec<u8>;

impl Late {
    pub fn start(answer_takes: Duration, shown: Shown) -> Late {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let taken = Arc::new(Mutex::new(Taken::default()));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (stream, taken) = (connection.expect("a client"), taken.clone());
                thread::spawn(move || serve(stream, &taken, answer_takes, shown));
            }
        });
        Late { address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Serves a connection until its client goes.
fn serve(
    mut stream: TcpStream,
    taken: &Mutex<Taken>,
    answer_takes: Duration,
    shown: Shown,
) -> Option<()> {
    let mut head = read_head(&mut stream)?;
    if head.starts_with("GET") {
        // What comes once it knows that it is there comes behind it.
        let mut taken = taken.lock().expect("no panic");
        stream.write_all(STREAM).ok()?;
        if taken.events.is_empty() {
            taken.early.push(stream);
            return None;
        }
        let text = shown(taken.later, &taken.events);
        taken.later += 1;
        drop(taken);
        stream.write_all(&text).ok()?;
        // It stays as long as its client does, and has heartbeats, which are no events.
        loop {
            thread::sleep(Duration::from_millis(300));
            stream.write_all(b":\n\n").ok()?;
        }
    }
    loop {
        let body = read_body(&mut stream, &head)?;
        let lines: Vec<_> =
            body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        thread::sleep(answer_takes);
        {
            let mut taken = taken.lock().expect("no panic");
            for line in &lines {
                let id = format!("id: {}.t\ndata: ", taken.events.len() + 1);
                let event = [id.as_bytes(), line, b"\n\n"].concat();
                // Who is gone needs nothing.
                taken.early.iter_mut().for_each(|stream| drop(stream.write_all(&event)));
                taken.events.push(event);
            }
        }
        stream.write_all(&answer(lines.len())).ok()?;
        head = read_head(&mut stream)?;
    }
}
