//! A log on the disk of this machine: through a disk thread's calls, through an io_uring, and in
//! memory, where direct writes are refused.

use std::{
    cell::RefCell,
    fs,
    future::Future,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use strandline_storage::{
    config::LogConfig,
    event::NewEvent,
    io::{
        Access, BlockingReads, Disk, ReadIo,
        real::RealDisk,
        thread::DiskThread,
        uring::{self, UringFiles, UringReads},
    },
    log::{Log, Now, Op, OpOutcome, WriteMode},
    offset::Offset,
    reader::ReadQuery,
    repair::repair,
    selection::Order,
    topic::Topic,
};

#[path = "simulation/read.rs"]
mod read;

const NOW: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 1_000_000 };

struct TestDir(PathBuf);

impl TestDir {
    fn new(parent: &Path, name: &str) -> Self {
        let dir = parent.join(format!("strandline-{name}-{}", std::process::id()));
        fs::create_dir(&dir).expect("a directory for the test");
        TestDir(dir)
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 256 << 10,
        preallocate_bytes_min: 64 << 10,
        preallocate_bytes_max: 128 << 10,
        ..LogConfig::default()
    }
}

fn open(dir: &Path) -> Log<RealDisk> {
    Log::open(RealDisk, dir, config(), NOW).expect("the log opens").0
}

fn event_at(number: u64) -> NewEvent {
    let topic = Topic::parse(&format!("numbers/{}", number % 10)).expect("a topic");
    let padding = "x".repeat(usize::try_from(number % 3000).expect("small"));
    NewEvent::json(topic, Bytes::from(format!("[{number},\"{padding}\"]")))
}

fn append(log: &mut Log<RealDisk>, number: u64) {
    log.append(vec![event_at(number)], NOW).expect("taken");
}

/// All visible events are the first ones that were appended, in order.
async fn check<I: ReadIo<RealDisk>>(log: &Log<RealDisk>, reads: &I) {
    let end = log.visible();
    let query = ReadQuery { topics: Vec::new(), from: Offset::ZERO, end, order: Order::Ascending };
    let mut expected = 0;
    let (hits, lost) = read::read(log, reads, &query).await;
    assert_eq!(lost, []);
    for event in hits.iter().flat_map(|hits| hits.events()) {
        assert_eq!(event.offset().get(), expected);
        assert_eq!(event.data(), event_at(expected).data);
        expected += 1;
    }
    assert_eq!(Offset::new(expected), end, "all of it was read");
}

/// Runs a future that never waits.
fn now_or_panic<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("blocking reads are ready at once"),
    }
}

fn writes_and_comes_back(dir: &Path) -> WriteMode {
    let mut log = open(dir);
    for number in 0..400 {
        append(&mut log, number);
        if number % 4 == 0 {
            log.run_ops(NOW);
        }
    }
    log.run_ops(NOW);
    assert_eq!((log.visible(), log.synced()), (Offset::new(400), Offset::new(400)));
    assert!(log.segments().end() > Offset::ZERO, "some of it is sealed");
    now_or_panic(check(&log, &BlockingReads));
    let mode = log.write_mode();
    // As if it were killed: nothing says goodbye.
    drop(log);
    let mut log = open(dir);
    now_or_panic(check(&log, &BlockingReads));
    append(&mut log, 400);
    log.begin_close();
    log.run_ops(NOW);
    assert!(log.is_closed());
    drop(log);
    let log = open(dir);
    assert_eq!(log.visible(), Offset::new(401));
    now_or_panic(check(&log, &BlockingReads));
    mode
}

#[test]
fn a_log_on_disk_comes_back() {
    let dir = TestDir::new(&std::env::temp_dir(), "real");
    let takes_direct = RealDisk.create(&dir.0.join("try"), Access::DirectSync).is_ok();
    let mode = writes_and_comes_back(&dir.log());
    assert_eq!(mode == WriteMode::Direct, takes_direct, "and says how it writes");
}

#[test]
fn a_log_in_memory_is_buffered_and_comes_back() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return;
    }
    let dir = TestDir::new(memory, "shm");
    assert_eq!(writes_and_comes_back(&dir.log()), WriteMode::Buffered);
}

/// What a repair takes out is the file itself, under a second name that it had before another took its place.
#[test]
fn what_a_repair_takes_out_is_the_file_itself() {
    let dir = TestDir::new(&std::env::temp_dir(), "repair");
    let log = dir.log();
    writes_and_comes_back(&log);
    let name = "00000000000000000000.1.log";
    let file = fs::OpenOptions::new().read(true).write(true).open(log.join(name)).expect("a file");
    // In the body of the first frame.
    file.write_all_at(&[0xff; 16], 4096 + 100).expect("a disk that works");
    let inode = file.metadata().expect("a file").ino();
    let repaired = repair(&RealDisk, &log, NOW).expect("not in use").expect("it is damaged");
    assert_eq!((&repaired.left[..], repaired.asides.len()), (&[][..], 1));
    let kept = fs::metadata(repaired.asides[0].join(name)).expect("it is kept");
    assert_eq!((kept.ino(), kept.nlink()), (inode, 1));
    assert!(!log.join(name).exists());
    assert_eq!(open(&log).visible(), Offset::new(401));
}

/// As a shard does it: writes and syncs on the ring, jobs on the disk thread, reads on the ring.
#[test]
fn a_log_on_a_ring_comes_back() {
    if let Err(error) = uring::check_available() {
        eprintln!("skipped: no io_uring here: {error}");
        return;
    }
    let dir = TestDir::new(&std::env::temp_dir(), "ring");
    let log_dir = dir.log();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .enable_timer()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut log = open(&log_dir);
        let files = Rc::new(UringFiles::new());
        let thread = DiskThread::start("disk").expect("a thread");
        let done = Rc::new(RefCell::new(Vec::new()));
        let mut under_way = 0;
        let mut number = 0;
        while number < 400 || under_way > 0 || log.visible() < log.next() {
            for _ in 0..3 {
                if number < 400 {
                    append(&mut log, number);
                    number += 1;
                }
            }
            while let Some(op) = log.next_op(NOW) {
                under_way += 1;
                let done = Rc::clone(&done);
                match op {
                    Op::Write { id, file, buffer, position } => {
                        let write = files.write(&file, buffer, position);
                        monoio::spawn(async move {
                            let result = write.await;
                            done.borrow_mut().push(OpOutcome::Write { id, result });
                        });
                    }
                    Op::Sync { id, file } => {
                        let sync = files.sync(&file);
                        monoio::spawn(async move {
                            let result = sync.await;
                            done.borrow_mut().push(OpOutcome::Sync { id, result });
                        });
                    }
                    Op::Job { id, job } => {
                        let call = thread.call(move || job.run(&RealDisk));
                        monoio::spawn(async move {
                            let outcome = call.await;
                            done.borrow_mut().push(OpOutcome::Job { id, outcome });
                        });
                    }
                }
            }
            for outcome in done.take() {
                under_way -= 1;
                log.complete(outcome, NOW);
            }
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(log.poisoned().is_none());
        assert_eq!(log.visible(), Offset::new(400));
        check(&log, &UringReads::new(files)).await;
        drop(log);
        now_or_panic(check(&open(&log_dir), &BlockingReads));
    });
}
