//! A server whose log nobody takes: its disk is full, or its reader is gone.

use std::{
    fs::File,
    io::{self, Write},
    net::TcpStream,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{append_request, member, read_answer};
use crate::places::Apart;

/// Standard errors to which nothing can be written.
fn dead_ends() -> [Stdio; 2] {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let full = File::options().write(true).open("/dev/full").expect("the kernel has it");
    [full.into(), writer.into()]
}

impl Apart {
    fn append(&self) -> u64 {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(append_request("a", "1").as_bytes()).expect("sent");
        let (status, body) = read_answer(&mut stream, &mut Vec::new());
        assert_eq!(status, 201, "{body}");
        member(&body, "offset")
    }

    /// Stops it in order.
    fn stop(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends")
    }
}

/// What is lost of its log is lost. `debug` has a line for much of what happens; `off` leaves what to try next.
#[test]
fn a_server_goes_on_when_its_log_cannot_be_written() {
    for level in ["debug", "off"] {
        for stderr in dead_ends() {
            let environment = [("STRANDLINE_LOG", level)];
            // An origin of all pages is warned of before it listens.
            let mut server = Apart::start_with(&["--cors-origin", "*"], &environment, stderr);
            for offset in 0..3 {
                assert_eq!(server.append(), offset);
            }
            assert_eq!(server.stop().code(), Some(0));
        }
    }
}

/// So it is with what is wrong in the variable that says what is logged.
#[test]
fn a_wrong_rust_log_is_told_to_nobody() {
    for stderr in dead_ends() {
        let mut server = Apart::start_with(&[], &[("RUST_LOG", "info,=loud,hyper=x")], stderr);
        assert_eq!(server.append(), 0);
        assert_eq!(server.stop().code(), Some(0));
    }
}
