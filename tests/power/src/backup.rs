//! Backups of the running server, on the same disk: hard links of what never changes. At any moment the last one that
//! was made, or the one before it, is there and whole, whatever the log and its clients have done since, and a power
//! cut may come at any operation of the next.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    ledger::{EventName, Ledger},
    server::Server,
};

/// Makes a backup again and again in one place.
pub struct Backups {
    program: PathBuf,
    data: PathBuf,
    to: PathBuf,
    /// Every offset below it is in the backup.
    holds: Option<u64>,
    /// How many were made, and how often one was verified.
    pub made: u64,
    pub verified: u64,
    /// How often a log was restored of one, and read.
    pub restored: u64,
}

impl Backups {
    /// Of a data directory, beside it.
    pub fn new(program: &Path, data: &Path) -> Backups {
        let (program, data) = (program.to_owned(), data.to_owned());
        let to = data.with_file_name("backup");
        Backups { program, data, to, holds: None, made: 0, verified: 0, restored: 0 }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.holds.is_some()
    }

    /// Takes away what is there.
    pub fn remove(&mut self) -> io::Result<()> {
        self.holds = None;
        match fs::remove_dir_all(&self.to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes one beside the running server, or renews it: of all that was `promised` until now. Says what went wrong,
    /// if anything did.
    pub fn make(&mut self, server: &Server, promised: u64) -> io::Result<Result<(), String>> {
        let output = Command::new(&self.program)
            .args(["backup", "--fast", "--url", &format!("http://{}", server.address)])
            .arg("--data")
            .arg(&self.data)
            .arg(&self.to)
            .output()?;
        if !output.status.success() {
            return Ok(Err(told(&output)));
        }
        self.holds = Some(promised.max(self.holds.unwrap_or(0)));
        self.made += 1;
        Ok(Ok(()))
    }

    /// Verifies what is there, which is the last that was made unless the power went while that was renewed.
    pub fn check(&mut self) -> io::Result<()> {
        match self.holds {
            Some(holds) => self.verify(holds),
            None => Ok(()),
        }
    }

    /// What is there after one of all that was `promised` was refused, which may be that very one: the last step has failed. Else
    /// there is nothing where nothing was.
    pub fn check_refused(&mut self, promised: u64) -> io::Result<()> {
        match self.is_there() {
            true => self.check(),
            false if self.to.try_exists()? => self.verify(promised),
            false => Ok(()),
        }
    }

    /// Restores a log of what is there in `scratch`, on another disk, and compares its events with what clients know.
    pub fn check_restored(&mut self, scratch: &Path, ledger: &Ledger) -> io::Result<()> {
        let Some(holds) = self.holds else { return Ok(()) };
        let restored = scratch.join("restored");
        match fs::remove_dir_all(&restored) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.told_by(&["restore".as_ref(), &self.to, "--data".as_ref(), &restored])?;
        let exported = self.told_by(&["export".as_ref(), "--data".as_ref(), &restored])?;
        let events = exported.lines().map(event_of).collect::<io::Result<Vec<_>>>()?;
        ledger.check_copy(&events, holds).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("of what a backup gives: {error}"))
        })?;
        self.restored += 1;
        Ok(())
    }

    /// What a command of the program prints if it ends well.
    fn told_by(&self, arguments: &[&Path]) -> io::Result<String> {
        let output = Command::new(&self.program).args(arguments).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("{arguments:?}: {}", told(&output))));
        }
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }

    fn verify(&mut self, holds: u64) -> io::Result<()> {
        let output =
            Command::new(&self.program).args(["verify", "--json"]).arg(&self.to).output()?;
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let end = found["logs"][0]["end"].as_u64();
        if !output.status.success() || end.is_none_or(|end| end < holds) {
            let what = format!("the backup does not hold all below {holds}: {}", told(&output));
            return Err(io::Error::other(what));
        }
        self.verified += 1;
        Ok(())
    }
}

/// The offset and the name of a line of an export.
fn event_of(line: &str) -> io::Result<(u64, EventName)> {
    let event: serde_json::Value = serde_json::from_str(line)?;
    let name = EventName::of_data(&event["data"]);
    event["offset"]
        .as_u64()
        .zip(name)
        .ok_or_else(|| io::Error::other(format!("no event of ours: {line}")))
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{} {} {}", output.status, out.trim(), err.trim())
}
