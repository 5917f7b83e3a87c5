//! What a test leaves to chance, and how it is repeated.

/// Numbers that look like chance, from a seed that a failure prints.
pub struct Chance(pub u64);

impl Chance {
    pub fn new() -> Chance {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .subsec_nanos();
        let given = std::env::var("STRANDLINE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or(u64::from(nanos) | 1);
        eprintln!("STRANDLINE_SEED={seed}");
        Chance(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
