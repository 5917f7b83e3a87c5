//! Numbers on the command line: what is none is told which ones there are.

use std::{fmt::Display, num::NonZeroUsize, ops::RangeInclusive, str::FromStr};

/// The numbers that options have. Not `i32`: a range of mere digits would be one of those, whatever the
/// option is, which only its use would tell.
pub trait Number: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static {}

impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}
impl Number for NonZeroUsize {}

/// Parses a number within `range`, which has the type of the option.
pub fn number<N: Number>(
    range: RangeInclusive<N>,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<N>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("give a whole number from {} to {}", range.start(), range.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_the_range() {
        let parse = number(1..=1024_u16);
        assert_eq!((parse("1"), parse("1024")), (Ok(1), Ok(1024)));
        for text in ["", "x", "-1", "0", "1025", "1.5", "1 ", "99999999999999999999"] {
            assert_eq!(parse(text), Err("give a whole number from 1 to 1024".to_owned()), "{text}");
        }
    }
}
