//! Numbers as exact decimals: JSON's have any length, and `0.1` is a tenth.
//!
//! A number is a sign, digits that begin and end with another one than 0, and the power of ten behind
//! which they stand: `0.d1d2d3.. * 10^exponent`. So each value has one form, and order is the order
//! of signs, exponents and digits. Comparing takes time in proportion to the text, never to the value:
//! `1e400` is as cheap as `1`.
//!
//! A filter's number has an exponent of at most [`EXPONENT_MAX`] either way. In an event's data any
//! exponent is taken: one that is too long to count stands beyond every number of a filter.

use std::cmp::Ordering;

/// The largest exponent in a filter, up or down.
pub const EXPONENT_MAX: i64 = 1_000_000_000;

/// Where counting ends: far beyond [`EXPONENT_MAX`], whatever the digits before it add.
const EXPONENT_END: i64 = 1_000_000_000_000_000;

/// A number of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    sign: Sign,
    /// 0 for zero.
    exponent: i64,
    /// 0 to 9 each, the first and the last not 0; none for zero.
    digits: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sign {
    Negative,
    Zero,
    Positive,
}

/// A JSON number in place.
struct Parts<'a> {
    sign: Sign,
    exponent: i64,
    /// The digits before the point and behind it; leading zeros are gone, trailing ones are not.
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl Decimal {
    /// The number that `text` stands for; the error says why it is none for a filter.
    pub fn parse(text: &str) -> Result<Decimal, String> {
        if !is_json_number(text.as_bytes()) {
            return Err("is not a JSON number, such as 100, -0.5 or 1e3".to_owned());
        }
        let parts = Parts::of(text.as_bytes());
        if parts.exponent.abs() > EXPONENT_MAX {
            return Err(format!("has an exponent beyond {EXPONENT_MAX}"));
        }
        let mut digits: Vec<u8> = parts.digits().collect();
        digits.truncate(digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1));
        Ok(Decimal { sign: parts.sign, exponent: parts.exponent, digits: digits.into() })
    }

    /// How the JSON number `text` stands to this one.
    pub fn order_of(&self, text: &[u8]) -> Ordering {
        let parts = Parts::of(text);
        let magnitude = || parts.exponent.cmp(&self.exponent).then_with(|| self.digits_of(&parts));
        parts.sign.cmp(&self.sign).then_with(|| match self.sign {
            Sign::Zero => Ordering::Equal,
            Sign::Positive => magnitude(),
            Sign::Negative => magnitude().reverse(),
        })
    }

    fn digits_of(&self, parts: &Parts<'_>) -> Ordering {
        let mut others = parts.digits();
        for digit in &self.digits {
            // Digits that are not there are zeros, and the last of ours is not.
            match others.next().unwrap_or(0).cmp(digit) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        match others.any(|digit| digit != 0) {
            true => Ordering::Greater,
            false => Ordering::Equal,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let magnitude =
            || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        self.sign.cmp(&other.sign).then_with(|| match self.sign {
            Sign::Negative => magnitude().reverse(),
            Sign::Zero | Sign::Positive => magnitude(),
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.sign == Sign::Zero {
            return formatter.write_str("0");
        }
        let sign = if self.sign == Sign::Negative { "-" } else { "" };
        write!(formatter, "{sign}0.")?;
        for digit in &self.digits {
            write!(formatter, "{digit}")?;
        }
        match self.exponent {
            0 => Ok(()),
            exponent => write!(formatter, "e{exponent}"),
        }
    }
}

impl<'a> Parts<'a> {
    /// Takes a JSON number apart. What is none gives some number: it never came as JSON.
    fn of(text: &'a [u8]) -> Parts<'a> {
        let (is_negative, unsigned) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let whole_end = digits_end(unsigned);
        let (whole, rest) = unsigned.split_at(whole_end);
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => rest.split_at(digits_end(rest)),
            None => (&rest[..0], rest),
        };
        let whole = without_zeros(whole);
        let (fraction, zeros) = match whole {
            [] => {
                let significant = without_zeros(fraction);
                (significant, fraction.len() - significant.len())
            }
            _ => (fraction, 0),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Parts { sign: Sign::Zero, exponent: 0, whole, fraction };
        }
        let places = |count: usize| i64::try_from(count).unwrap_or(EXPONENT_END);
        let exponent = match rest {
            [b'e' | b'E', written @ ..] => exponent(written),
            _ => 0,
        };
        let exponent = exponent + places(whole.len()) - places(zeros);
        let sign = if is_negative { Sign::Negative } else { Sign::Positive };
        Parts { sign, exponent, whole, fraction }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).map(|digit| digit - b'0')
    }
}

fn digits_end(text: &[u8]) -> usize {
    text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len())
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let first = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    &digits[first..]
}

/// The exponent behind an `e`, as far as it is counted.
fn exponent(text: &[u8]) -> i64 {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let value = without_zeros(digits).iter().take_while(|byte| byte.is_ascii_digit()).try_fold(
        0,
        |value: i64, digit| {
            let value = value * 10 + i64::from(digit - b'0');
            (value < EXPONENT_END).then_some(value)
        },
    );
    let value = value.unwrap_or(EXPONENT_END);
    if is_negative { -value } else { value }
}

/// Whether `text` is a number of RFC 8259.
fn is_json_number(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, rest) = unsigned.split_at(digits_end(unsigned));
    if whole.is_empty() || (whole[0] == b'0' && whole.len() > 1) {
        return false;
    }
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(rest) => match digits_end(rest) {
            0 => return false,
            end => &rest[end..],
        },
    };
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => {
            !digits.is_empty() && digits_end(digits) == digits.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).expect(text)
    }

    /// API §6: "numbers compare as exact decimals".
    #[test]
    fn each_value_has_one_form() {
        for same in [
            &["1", "1.0", "1e0", "10e-1", "0.1e1", "1.000", "1E+0", "100e-00002"][..],
            &["0", "-0", "0.0", "0e99999999999999999999", "-0.000E-7"],
            &["0.1", "0.10", "1e-1", "0.001e2"],
            &["1e400", "10e399", "0.0001e404"],
            &["-12.5", "-125e-1", "-1.25e1"],
        ] {
            let forms: HashSet<Decimal> = same.iter().map(|text| number(text)).collect();
            assert_eq!(forms.len(), 1, "{same:?}");
            for text in same {
                assert_eq!(number(same[0]).order_of(text.as_bytes()), Ordering::Equal, "{text}");
            }
        }
    }

    #[test]
    fn order_is_that_of_the_values() {
        let ascending = [
            "-1e400",
            "-123456789012345678901234567891",
            "-123456789012345678901234567890",
            "-1.01",
            "-1",
            "-0.1",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "0.1000000000000000055511151231257827",
            "0.11",
            "1",
            "1.01",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "123456789012345678901234567890",
            "123456789012345678901234567890.000000000000000000001",
            "123456789012345678901234567891",
            "1e400",
            "1.0000000000000000000001e400",
        ];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(
                    number(right).order_of(left.as_bytes()),
                    at.cmp(&other),
                    "{left} {right}"
                );
                assert_eq!(number(left).cmp(&number(right)), at.cmp(&other), "{left} {right}");
            }
        }
    }

    #[test]
    fn exponents_are_bounded_in_filters_and_taken_in_data() {
        assert!(Decimal::parse("1e1000000000").is_err(), "0.1e1000000001");
        let largest = number("0.1e1000000000");
        let nearest_zero = number("1e-1000000000");
        assert_eq!(largest.order_of(b"1e1000000001"), Ordering::Greater);
        let huge = format!("1e{}", "9".repeat(1000));
        let tiny = format!("1e-{}", "9".repeat(1000));
        assert_eq!(largest.order_of(huge.as_bytes()), Ordering::Greater);
        assert_eq!(nearest_zero.order_of(tiny.as_bytes()), Ordering::Less);
        assert_eq!(number("0").order_of(tiny.as_bytes()), Ordering::Greater);
        let long = format!("{}1e-1000000", "0.".to_owned() + &"0".repeat(1_000_000));
        assert_eq!(nearest_zero.order_of(long.as_bytes()), Ordering::Greater);
    }

    #[test]
    fn what_is_not_a_json_number_is_refused() {
        for text in
            ["", "-", "+1", ".5", "5.", "01", "-01", "1e", "1e+", "0x1", "1.e5", "NaN", "1 ", "1,0"]
        {
            assert!(Decimal::parse(text).is_err(), "{text}");
            assert!(
                serde_json::from_str::<serde_json::Number>(text.trim()).is_err() || text == "1 "
            );
        }
    }

    proptest! {
        /// Against whole numbers that are brought to the same power of ten.
        #[test]
        fn agrees_with_whole_numbers(
            left in (-1_000_000i128..1_000_000, -10i32..10),
            right in (-1_000_000i128..1_000_000, -10i32..10),
        ) {
            let text = |(digits, power): (i128, i32)| format!("{digits}e{power}");
            let scaled = |(digits, power): (i128, i32)| {
                digits * 10i128.pow(u32::try_from(power + 10).unwrap())
            };
            let expected = scaled(left).cmp(&scaled(right));
            prop_assert_eq!(number(&text(right)).order_of(text(left).as_bytes()), expected);
            prop_assert_eq!(number(&text(left)).cmp(&number(&text(right))), expected);
            let shown = number(&text(left)).to_string();
            prop_assert_eq!(number(&shown), number(&text(left)));
        }

        #[test]
        fn any_bytes_give_some_order(text in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = number("1.5").order_of(&text);
        }
    }
}
