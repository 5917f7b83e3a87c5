//! A log with its owner on a shard without a server, for tests.

use std::{
    cell::RefCell,
    fs,
    future::Future,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use strandline_storage::{
    config::LogConfig,
    io::{
        real::RealDisk,
        uring::{UringFiles, UringReads},
    },
    log::Log,
};

use super::{Follower, Owner};
use crate::{
    clock,
    log_handle::{LogHandle, News, Seat},
    log_shared::{LogFacts, LogShared},
    runtime::{Driver, block_on},
};

/// A log, and its owner's hands.
#[derive(Clone)]
pub(crate) struct OwnedLog {
    pub(crate) log: Rc<LogHandle>,
    owner: Rc<Owner>,
}

impl OwnedLog {
    /// The disk is found full, and has space again at once: what is staged is refused.
    pub(crate) fn find_full(&self) {
        if self.log.is_closed() {
            return;
        }
        let taken = self.owner.log.borrow_mut().refuse_staged();
        self.owner.refuse_taken_back(&taken);
    }

    /// Nothing is appended any more.
    pub(crate) fn close(&self) {
        self.owner.close();
    }
}

/// Does `job` with a new log on a thread of its own: what that comes to, and the data of all events in the end.
pub(crate) fn with_a_log<J, F>(job: J) -> (F::Output, Vec<String>)
where
    J: FnOnce(OwnedLog) -> F + Send + 'static,
    F: Future<Output: Send> + 'static,
{
    let on_thread = move || {
        let (driver, _) = Driver::detect();
        block_on(driver, true, async move {
            let dir = Directory::new();
            let (owned, seen) = open(&dir, driver);
            let running = monoio::spawn(owned.owner.clone().run());
            let outcome = job(owned.clone()).await;
            owned.close();
            running.await;
            (outcome, seen.take())
        })
    };
    std::thread::spawn(on_thread).join().expect("no panic").expect("a runtime")
}

fn open(dir: &Directory, driver: Driver) -> (OwnedLog, Rc<RefCell<Vec<String>>>) {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        preallocate_bytes_min: 64 << 10,
        preallocate_bytes_max: 64 << 10,
        reserve_bytes: 64 << 10,
        ..LogConfig::default()
    };
    let (log, _) = Log::open(RealDisk, &dir.0, config, clock::now()).expect("a log");
    let (shared, files) =
        (Arc::new(LogShared::new(LogFacts::of(&log), 1)), Rc::new(UringFiles::new()));
    let owner = Owner::new(log, RealDisk, driver, files.clone(), shared.clone(), Vec::new());
    let owner = owner.expect("its threads");
    let seat = Seat::Owner(owner.clone());
    let log = Rc::new(LogHandle::new(0, shared, seat, 0, UringReads::new(files)));
    let follower: Rc<dyn Follower> = log.clone();
    owner.set_follower(Rc::downgrade(&follower));
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let sees = seen.clone();
    log.subscribe(Rc::new(move |news| {
        if let News::Frame(frame) = news {
            let data = frame.events().map(|event| String::from_utf8_lossy(event.data()).into());
            sees.borrow_mut().extend(data);
        }
    }));
    (OwnedLog { log, owner }, seen)
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("strandline-owner-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
