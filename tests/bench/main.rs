//! `strandline bench` against a real server, every mode for a moment; and against a server that lies,
//! which it must notice.

mod liar;

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use liar::{Late, Liar, Lie, Shown};

const BINARY: &str = env!("CARGO_BIN_EXE_strandline");

/// A run of so little that it is over within a second or two.
const SHORT: [&str; 6] = ["--seconds", SHORT_S, "--warmup", "0.1", "--interval", "0.1"];
const SHORT_S: &str = "0.4";
/// No run is longer.
const LONGEST_S: f64 = 60.0;

fn bench(arguments: &[&str]) -> Output {
    Command::new(BINARY).arg("bench").args(arguments).output().expect("it runs")
}

/// What a run says as JSON; it must have ended well.
fn outcome(arguments: &[&str]) -> Value {
    outcome_in(SHORT_S, arguments)
}

/// The same of one that measures for as long as it takes until its points `have_enough` to say something: on a machine with
/// other work nothing may come to anybody in a part of a second, and what is to be quick waits for others.
fn outcome_with(have_enough: impl Fn(&Value) -> bool, arguments: &[&str]) -> Value {
    outcome_that(|outcome| have_enough(&outcome["points"]), arguments)
}

fn outcome_that(is_enough: impl Fn(&Value) -> bool, arguments: &[&str]) -> Value {
    let mut seconds: f64 = SHORT_S.parse().expect("a number");
    loop {
        let outcome = outcome_in(&seconds.to_string(), arguments);
        seconds *= 2.0;
        if is_enough(&outcome) || seconds > LONGEST_S {
            return outcome;
        }
    }
}

fn outcome_in(seconds: &str, arguments: &[&str]) -> Value {
    let how = [&SHORT[2..], &["--seconds", seconds, "--patience", "60", "--json"]].concat();
    let output = bench(&[arguments, &how].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert!(!errors.contains("curl"), "what can be tried is for people: {errors}");
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
    let have_enough = |points: &Value| number(&points[0]["appends"]) > 10.0;
    let closed = outcome_with(have_enough, &["append", "--publishers", "4", "--pipeline", "2"]);
    let point = &closed["points"][0];
    assert!(number(&point["appends"]) > 10.0, "{closed}");
    assert!(number(&point["ack"]["p99_ms"]) > 0.0);
    assert!(number(&point["server"]["resident_max_kib"]) > 1000.0);
    assert!(!point["series"].as_array().expect("a list").is_empty());

    // Bodies that fit a buffer, and some that do not.
    for body in [50.0, 3000.0] {
        let have_enough = |points: &Value| number(&points[0]["appends"]) >= body;
        let arguments = ["append", "--publishers", "2", "--ndjson", &body.to_string()];
        let lines = outcome_with(have_enough, &arguments);
        let appends = number(&lines["points"][0]["appends"]);
        assert!(appends >= body && appends % body == 0.0, "whole bodies of {body}: {appends}");
    }

    let rates = [200.0, 400.0];
    let is_close = |run: &Value, at: usize| {
        let (point, asked_s) = (&run["points"][at], run["options"]["seconds"].as_str());
        let seconds = number(&point["seconds"]);
        // What this machine was late with before and behind it counts as well.
        let acks = point["ack"]["count"].as_f64().unwrap_or(0.0);
        let due = rates[at] * seconds;
        let asked_s: f64 = asked_s.and_then(|text| text.parse().ok()).expect("a number");
        (acks - due).abs() < due / 2.0 && seconds < 2.0 * asked_s
    };
    let arguments = ["append", "--publishers", "3", "--rates", "200,400"];
    let open = outcome_that(|run| (0..2).all(|at| is_close(run, at)), &arguments);
    for (at, rate) in rates.into_iter().enumerate() {
        let point = &open["points"][at];
        assert_eq!(number(&point["rate_per_s"]), rate);
        assert!(is_close(&open, at), "at {rate}/s: {point}");
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
        let have_enough = |points: &Value| number(&points[0]["deliveries"]) >= 400.0;
        let fan_out = outcome_with(have_enough, &[&load[..], how].concat());
        let point = &fan_out["points"][0];
        let (acks, receipts) = (number(&point["ack"]["count"]), number(&point["receipt"]["count"]));
        assert!(acks > 10.0, "{point}");
        assert_eq!(receipts, acks * 20.0, "{how:?}");
        wire_bytes.push(number(&point["wire_bytes_per_delivery"]));
    }
    let [socket, plain, gzip, zstd] = wire_bytes[..] else { panic!("four runs") };
    assert!(socket > plain && plain > 256.0, "{wire_bytes:?}");
    assert!(gzip < plain && zstd < plain, "compressed: {wire_bytes:?}");
    let deliveries = |point: &Value| number(&point["deliveries"]);
    let unthrottled = ["fanout", "--subscribers", "10", "--publishers", "4"];
    let unthrottled = outcome_with(|points| deliveries(&points[0]) > 100.0, &unthrottled);
    assert!(deliveries(&unthrottled["points"][0]) > 100.0);
}

#[test]
fn the_stalled_get_everything_in_the_end() {
    let load = ["--publishers", "2", "--bytes", "20000"];
    let arguments = [&["fanout", "--subscribers", "6", "--stall", "3"], &load[..]].concat();
    // Something was published, and came to the others, once three of them had stalled.
    let stalled = outcome_with(|points| !points[0]["receipt"].is_null(), &arguments);
    let extra = &stalled["points"][0]["extra"];
    assert!(number(&extra["caught_up_deliveries"]) > 0.0, "{extra}");
    assert!(number(&extra["others_p99_after_ms"]) > 0.0, "{extra}");
}

#[test]
fn the_load_goes_on_while_the_stalled_catch_up() {
    let load = ["--rate", "2000", "--bytes", "5000"];
    let arguments = [&["fanout", "--subscribers", "6", "--stall", "3"], &load[..]].concat();
    let have_enough = |points: &Value| number(&points[0]["extra"]["others_p99_catch_up_ms"]) > 0.0;
    let stalled = outcome_with(have_enough, &arguments);
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
        let arguments =
            ["idle", "--subscribers", "100", "--hang-ups", "30", "--transport", transport];
        // A heartbeat would notice them too, in 15 s.
        let are_noticed =
            |points: &Value| number(&points[0]["extra"]["hang_ups_noticed_in_ms"]) < 1000.0;
        let idle = outcome_with(are_noticed, &arguments);
        let extra = &idle["points"][0]["extra"];
        assert!(number(&extra["held_kib_each"]).is_finite(), "{extra}");
        assert!(number(&extra["hang_ups_noticed_in_ms"]) < 1000.0, "{extra}");
        assert_eq!(number(&extra["hung_up_on_by_server"]), 0.0);
    }
}

/// Half a KiB each is what is promised. Of so few, some 100 bytes each are what the first one costs.
#[test]
fn an_idle_subscriber_takes_half_a_kib_at_most() {
    for transport in ["sse", "ws"] {
        let idle = outcome(&[
            "idle",
            "--subscribers",
            "8000",
            "--hang-ups",
            "0",
            "--transport",
            transport,
        ]);
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
    let connects = |points: &Value| number(&points[0]["extra"]["connects"]);
    let have_enough = |points: &Value| connects(points) >= 60.0;
    let churn = outcome_with(have_enough, &["storm", "--subscribers", "20", "--churn", "200"]);
    let extra = &churn["points"][0]["extra"];
    assert!(number(&extra["connects"]) >= 60.0, "{extra}");
    let grown_mib = number(&extra["resident_after_mib"]) - number(&extra["resident_before_mib"]);
    assert!(grown_mib < 8.0, "{extra}");
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
        &["append", "--data", "/"],
        &[],
    ] {
        let output = bench(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(!errors.is_empty(), "{arguments:?} says why");
    }
}

#[test]
fn a_server_that_does_not_start_says_why_and_leaves_nothing() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("bench-scratch-{}", std::process::id()));
    fs::create_dir(&scratch).expect("a free name");
    for (arguments, why) in
        [(["--server-args", "--bogus"], "--bogus"), (["--server-core", "1000"], "core 1000")]
    {
        let mut command = Command::new(BINARY);
        command.args(["bench", "append"]).args(arguments).env("TMPDIR", &scratch);
        let output = command.output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(why) && errors.contains("error: "), "{errors}");
        assert_eq!(fs::read_dir(&scratch).expect("a directory").count(), 0, "{arguments:?}");
    }
    fs::remove_dir(&scratch).expect("it is empty");
}

#[test]
fn a_server_that_is_not_there_is_a_failure() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let output = bench(&["append", "--url", &format!("http://{free}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("refused"));
}

#[test]
fn a_server_that_lies_is_found_out() {
    for (lie, word) in [
        (Lie::LeaveOut, "gap"),
        (Lie::SendTwice, "repeat"),
        (Lie::Swap, "gap"),
        (Lie::ChangeByte, "changed"),
    ] {
        let url = || format!("http://{}", Liar::start(lie).address);
        found_out(url, &["fanout", "--subscribers", "1", "--rate", "100"], word);
    }
}

/// How a run says that its patience was over.
const IMPATIENT: [&str; 5] = [
    "connections are not made",
    "are still not subscribed",
    "is not taken",
    "appends got no answer",
    "missing: subscriber",
];

/// What fails with an error that has this word, within a patience of so many seconds: in a shorter one a busy machine may
/// have answered nobody.
fn found_out(url: impl Fn() -> String, arguments: &[&str], word: &str) {
    let mut lasts = Vec::new();
    for patience in ["1", "4", "16", "60"] {
        let url = url();
        let how = [&["--url", &url], &SHORT[..], &["--patience", patience]].concat();
        let output = bench(&[arguments, &how].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        if last.contains(word) {
            return;
        }
        let is_impatient = IMPATIENT.iter().any(|said| last.contains(said));
        assert!(is_impatient, "{arguments:?}, {word}: {last}");
        lasts.push(last.to_owned());
    }
    panic!("{arguments:?}, {word}: {lasts:#?}");
}

/// The second reading would have begun anew, and found all.
#[test]
fn a_reading_that_never_ends_is_found_out() {
    let shown: Shown = |reading, events| match reading {
        0 => events.split_last().expect("there are some").1.concat(),
        _ => events.concat(),
    };
    let url = || Late::start(Duration::ZERO, shown).url();
    found_out(url, &["replay", "--events", "100", "--readers", "1", "--readings", "2"], "missing");
}

/// The publisher goes on, so that there is news for ever.
#[test]
fn a_storm_in_which_somebody_gets_nothing_ends() {
    let url = || Late::start(Duration::ZERO, |_, _| Vec::new()).url();
    found_out(url, &["storm", "--subscribers", "1", "--history", "100"], "missing");
}

/// Nobody can come back to events whose cursors never came.
#[test]
fn a_storm_without_its_history_ends() {
    let url = || {
        let url = Late::start(Duration::ZERO, |_, _| Vec::new()).url();
        // There is one event, and so whoever comes now is late.
        outcome_with(
            |points| number(&points[0]["appends"]) > 0.0,
            &["append", "--url", &url, "--publishers", "1"],
        );
        url
    };
    found_out(url, &["storm", "--subscribers", "1", "--history", "100"], "missing: of a history");
}

/// Each event is due at its time, whatever the server does; what it had no time for is the latest of all.
#[test]
fn what_was_due_and_not_sent_is_measured() {
    let late = Late::start(Duration::from_millis(10), |_, _| Vec::new());
    let url = late.url();
    let one = ["--publishers", "1", "--pipeline", "1"];
    let arguments = [&["append", "--url", &url, "--rate", "200"][..], &one].concat();
    let point = &outcome(&arguments)["points"][0];
    let due = 200.0 * number(&point["seconds"]);
    assert!(number(&point["ack"]["count"]) > 0.9 * due, "{point}");
}

/// Who gets nothing at all notices no gap.
#[test]
fn events_that_are_missing_are_found_out_where_people_come_and_go() {
    let url = || Late::start(Duration::ZERO, |_, _| Vec::new()).url();
    found_out(url, &["storm", "--subscribers", "2", "--churn", "20"], "missing");
}
