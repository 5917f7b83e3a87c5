//! What the commands that take a while show meanwhile: a bar on standard error if that is a terminal, and
//! nothing otherwise.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use strandline_storage::verify::Progress;

/// How often the bar is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// A bar over bytes; a spinner if nobody knows how many. Hidden where there is no terminal.
pub fn bytes_bar(size_bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size_bytes {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {bytes}/{total_bytes} {msg}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg}, {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is well-formed"))
}

/// A check whose progress is drawn by a thread of its own until this is dropped.
pub struct Watched {
    progress: Arc<Progress>,
    bar: ProgressBar,
    drawing: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Watched {
    /// Begins to draw.
    pub fn start() -> Watched {
        let progress = Arc::new(Progress::default());
        let bar = bytes_bar(Some(0));
        let (stop, stopped) = mpsc::channel();
        let (seen, drawn) = (progress.clone(), bar.clone());
        let draw = move || {
            while stopped.recv_timeout(DRAW_EVERY) == Err(RecvTimeoutError::Timeout) {
                drawn.set_length(seen.bytes_total());
                drawn.set_position(seen.bytes());
            }
        };
        let drawing = (!bar.is_hidden()).then(|| (stop, thread::spawn(draw)));
        Watched { progress, bar, drawing }
    }

    /// What the check tells.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Writes something without the bar in between.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some((stop, drawing)) = self.drawing.take() {
            drop(stop);
            drawing.join().ok();
        }
        self.bar.finish_and_clear();
    }
}

/// What a write to standard output came to, if it is no failure that nobody reads it any more.
pub fn nobody_reads_is_fine(written: io::Result<()>) -> io::Result<()> {
    let said =
        |error: io::Error| io::Error::new(error.kind(), format!("writing the result: {error}"));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(said(error)),
        _ => Ok(()),
    }
}
