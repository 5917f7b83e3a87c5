//! `strandline bench` against a real server, every mode for a moment; and against a server that lies,
//! which it must notice.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    thread,
};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strandline");

/// A run of so little that it is over within a second or two.
const SHORT: [&str; 6] = ["--seconds", "0.4", "--warmup", "0.1", "--interval", "0.1"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("bench").args(arguments).output().expect("it runs")
}

/// What a run says as JSON; it must have ended well.
fn outcome(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &SHORT, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(outcome["violation_count"], 0, "{outcome}");
    outcome
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number: {value}"))
}

#[test]
fn what_cannot_be_measured_is_told_before() {
    let told = |code, arguments: &[&str]| {
        let output = bench(&[&["append"], arguments, &SHORT[2..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}: nothing was measured");
        errors
    };
    assert!(told(2, &["--seconds", "0"]).contains("at least"));
    let report = told(1, &["--seconds", "9", "--report", "/no/such/directory/report.html"]);
    assert!(report.contains("/no/such/directory/report.html"), "{report}");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}", nobody.expect("a port"));
    let refused = told(1, &["--seconds", "9", "--url", &url]);
    assert!(refused.contains(&format!("error: {url}: ")), "{refused}");
}

#[test]
fn append_counts_acknowledgements() {
    let closed = outcome(&["append", "--publishers", "4", "--pipeline", "2"]);
    let point = &closed["points"][0];
    assert!(number(&point["appends"]) > 10.0, "{closed}");
    assert!(number(&point["ack"]["p99_ms"]) > 0.0);
    assert!(number(&point["server"]["resident_max_kib"]) > 1000.0);
    assert!(!point["series"].as_array().expect("a list").is_empty());

    // Bodies that fit a buffer, and some that do not.
    for body in [50.0, 3000.0] {
        let lines = outcome(&["append", "--publishers", "2", "--ndjson", &body.to_string()]);
        let appends = number(&lines["points"][0]["appends"]);
        assert!(appends >= body && appends % body == 0.0, "whole bodies of {body}: {appends}");
    }

    let open = outcome(&["append", "--publishers", "3", "--rates", "200,400"]);
    for (point, rate) in open["points"].as_array().expect("a list").iter().zip([200.0, 400.0]) {
        assert_eq!(number(&point["rate_per_s"]), rate);
        let acks = number(&point["ack"]["count"]);
        assert!((acks - rate * 0.4).abs() < rate * 0.2, "{acks} at {rate}/s in 0.4 s");
    }
}

#[test]
fn fanout_delivers_everything_to_everybody() {
    let mut wire_bytes = Vec::new();
    for how in [
        &["--transport", "ws"][..],
        &["--transport", "sse"],
        &["--compression", "gzip"],
        &["--compression", "zstd"],
    ] {
        let load = ["fanout", "--subscribers", "20", "--rate", "200"];
        let fan_out = outcome(&[&load[..], how].concat());
        let point = &fan_out["points"][0];
        let (acks, receipts) = (number(&point["ack"]["count"]), number(&point["receipt"]["count"]));
        assert!(acks > 10.0, "{point}");
        assert_eq!(receipts, acks * 20.0, "{how:?}");
        wire_bytes.push(number(&point["wire_bytes_per_delivery"]));
    }
    let [socket, plain, gzip, zstd] = wire_bytes[..] else { panic!("four runs") };
    assert!(socket > plain && plain > 256.0, "{wire_bytes:?}");
    assert!(gzip < plain && zstd < plain, "compressed: {wire_bytes:?}");
    let unthrottled = outcome(&["fanout", "--subscribers", "10", "--publishers", "4"]);
    assert!(number(&unthrottled["points"][0]["deliveries"]) > 100.0);
}

#[test]
fn the_stalled_get_everything_in_the_end() {
    let stalled = outcome(&[
        "fanout",
        "--subscribers",
        "6",
        "--stall",
        "3",
        "--publishers",
        "2",
        "--bytes",
        "20000",
    ]);
    let extra = &stalled["points"][0]["extra"];
    assert!(number(&extra["caught_up_deliveries"]) > 0.0, "{extra}");
    assert!(number(&extra["others_p99_after_ms"]) > 0.0, "{extra}");
}

#[test]
fn the_load_goes_on_while_the_stalled_catch_up() {
    let load = ["--rate", "2000", "--bytes", "5000"];
    let stalled = outcome(&[&["fanout", "--subscribers", "6", "--stall", "3"], &load[..]].concat());
    let extra = &stalled["points"][0]["extra"];
    assert!(number(&extra["others_p99_catch_up_ms"]) > 0.0, "{extra}");
    assert!(number(&extra["caught_up_deliveries"]) > 0.0, "{extra}");
}

#[test]
fn replay_reads_the_whole_history() {
    let replay = outcome(&["replay", "--events", "20000", "--readers", "3"]);
    let point = &replay["points"][0];
    let deliveries = number(&point["deliveries"]);
    assert!(deliveries >= 60_000.0 && deliveries % 3.0 == 0.0, "{point}");
    assert!(number(&point["deliveries_per_s"]) > 1000.0);
}

#[test]
fn idle_subscribers_are_weighed_and_missed() {
    for transport in ["sse", "ws"] {
        let idle = outcome(&[
            "idle",
            "--subscribers",
            "100",
            "--hang-ups",
            "30",
            "--transport",
            transport,
        ]);
        let extra = &idle["points"][0]["extra"];
        assert!(number(&extra["held_kib_each"]).is_finite(), "{extra}");
        assert!(number(&extra["hang_ups_noticed_in_ms"]) > 0.0, "{extra}");
        assert_eq!(number(&extra["hung_up_on_by_server"]), 0.0);
    }
}

/// Half a KiB each is what is promised. Of so few, some 100 bytes each are what the first one costs.
#[test]
fn an_idle_subscriber_takes_half_a_kib_at_most() {
    for transport in ["sse", "ws"] {
        let idle = outcome(&["idle", "--subscribers", "8000", "--transport", transport]);
        let each = number(&idle["points"][0]["extra"]["held_kib_each"]);
        assert!(each <= 0.5, "{transport}: {each} KiB each");
    }
}

#[test]
fn storms_end_with_everybody_live() {
    for transport in ["sse", "ws"] {
        let storm = outcome(&[
            "storm",
            "--subscribers",
            "50",
            "--history",
            "200",
            "--transport",
            transport,
        ]);
        let point = &storm["points"][0];
        assert!(number(&point["extra"]["all_live_in_s"]) > 0.0, "{point}");
        // Spread evenly over 200 events, they miss about half of them each.
        assert!(number(&point["deliveries"]) >= 50.0 * 99.0, "{point}");
    }
    let churn = outcome(&["storm", "--subscribers", "20", "--churn", "200"]);
    let extra = &churn["points"][0]["extra"];
    assert!(number(&extra["connects"]) >= 60.0, "{extra}");
    assert!(number(&extra["resident_after_mib"]) > 0.0, "{extra}");
}

#[test]
fn a_report_is_one_page_and_the_table_is_for_people() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("report-{}.html", std::process::id()));
    let path_text = path.to_str().expect("UTF-8");
    let arguments = ["fanout", "--subscribers", "5", "--rates", "100,200", "--report", path_text];
    let output = bench(&[&arguments[..], &SHORT].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("publish to receipt") && table.contains("no gap, no repeat"), "{table}");
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("measure") && progress.contains("deliveries/s"), "{progress}");
    let page = fs::read_to_string(&path).expect("the page is there");
    fs::remove_file(&path).expect("it is ours");
    assert!(page.contains("Latency against rate") && page.contains("<svg"));
}

/// It was taken for an option that nobody knows.
#[test]
fn a_rate_that_is_none_is_named_in_a_list_as_well() {
    for rates in ["-1,5", "5,-1", "5,x"] {
        let output = bench(&["append", "--rates", rates]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{rates}: {said}");
        let bad = rates.split(',').find(|rate| *rate != "5").expect("one");
        assert!(said.contains(&format!("'{bad}' for '--rates")), "{rates}: {said}");
        assert!(said.contains("give events a second"), "{rates}: {said}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["fanout", "--subscribers", "0"][..],
        &["fanout", "--subscribers", "5", "--stall", "5"],
        &["append", "--rate", "10", "--rates", "10,20"],
        &["append", "--bytes", "10"],
        &["append", "--url", "ftp://localhost"],
        &["fanout", "--transport", "ws", "--compression", "gzip"],
        &["idle", "--subscribers", "5", "--hang-ups", "6"],
        &[],
    ] {
        let output = bench(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(!errors.is_empty(), "{arguments:?} says why");
    }
}

#[test]
fn a_server_that_is_not_there_is_a_failure() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let output = bench(&["append", "--url", &format!("http://{free}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
}

/// What a [`Liar`] does to one event of the stream.
#[derive(Clone, Copy, Debug)]
enum Lie {
    LeaveOut,
    SendTwice,
    Swap,
    ChangeByte,
}

/// A server that takes every append and streams them to one subscriber, but for one lie.
struct Liar {
    address: SocketAddr,
}

impl Liar {
    fn start(lie: Lie) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut subscriber, _) = listener.accept().expect("a subscriber");
            read_head(&mut subscriber);
            subscriber
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
                      event: connection.established\ndata: {\"state\":\"live\"}\n\n",
                )
                .expect("it reads");
            let (mut publisher, _) = listener.accept().expect("a publisher");
            let mut held = Vec::new();
            for number in 0.. {
                let Some(payload) = read_append(&mut publisher) else { return };
                let answer = "{\"offset\":1,\"count\":1}";
                let answer = format!(
                    "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{answer}",
                    answer.len()
                );
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
                if subscriber.write_all(&event).is_err()
                    || publisher.write_all(answer.as_bytes()).is_err()
                {
                    return;
                }
            }
        });
        Liar { address }
    }
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

#[test]
fn a_server_that_lies_is_found_out() {
    for (lie, word) in [
        (Lie::LeaveOut, "gap"),
        (Lie::SendTwice, "repeat"),
        (Lie::Swap, "gap"),
        (Lie::ChangeByte, "changed"),
    ] {
        let url = format!("http://{}", Liar::start(lie).address);
        let arguments = ["fanout", "--url", &url, "--subscribers", "1", "--rate", "100"];
        let output = bench(&[&arguments[..], &SHORT, &["--patience", "1"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{lie:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(last.contains(word), "{lie:?}: {last}");
    }
}

/// A server that takes every append and every subscriber, and tells these nothing.
fn silent_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            thread::spawn(move || serve_silently(&mut stream));
        }
    });
    address
}

fn serve_silently(stream: &mut TcpStream) -> Option<()> {
    loop {
        let head = read_head(stream)?;
        if head.starts_with("GET") {
            let begin = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
                          event: connection.established\ndata: {\"state\":\"live\"}\n\n";
            stream.write_all(begin).ok()?;
            continue;
        }
        read_body(stream, &head)?;
        let answer = "{\"offset\":1,\"count\":1}";
        let length = answer.len();
        let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// Who gets nothing at all notices no gap.
#[test]
fn events_that_are_missing_are_found_out_where_people_come_and_go() {
    let url = format!("http://{}", silent_server());
    let arguments = ["storm", "--url", &url, "--subscribers", "2", "--churn", "20"];
    let output = bench(&[&arguments[..], &SHORT, &["--patience", "1"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.contains("missing"), "{errors}");
}
