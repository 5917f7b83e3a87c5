//! A count and what it counts, for people.

/// `1 event`, `2 events`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_no_plural() {
        let all = [0, 1, 2].map(|count| counted(count, "event"));
        assert_eq!(all, ["0 events", "1 event", "2 events"]);
    }
}
