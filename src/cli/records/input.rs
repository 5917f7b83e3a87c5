//! Reads an input record by record.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use serde::{
    Deserializer as _,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Format;

/// Hands over each record of an input, with its number from 1, until `take` refuses one: lines, or the
/// elements of a JSON array, which is read as it comes.
pub fn for_each(
    input: impl BufRead,
    format: Format,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    match format {
        Format::Ndjson => for_each_line(input, take),
        Format::Cloudevents => for_each_element(input, take),
    }
}

/// Why an input was not read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// It could not be read, or is not what it was said to be.
    Input(String),
    /// A record was refused, with its number.
    Record(u64, String),
}

fn for_each_line(
    mut input: impl BufRead,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        match input.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {
                take(number, line.trim_ascii()).map_err(|what| ReadError::Record(number, what))?
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ReadError::Record(number, "not UTF-8".to_owned()));
            }
            Err(error) => return Err(ReadError::Input(error.to_string())),
        }
    }
    Ok(())
}

fn for_each_element(
    input: impl Read,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut refused = None;
    let elements = Elements { take, refused: &mut refused };
    let mut reader = serde_json::Deserializer::from_reader(input);
    let end = reader.deserialize_seq(elements).and_then(|()| reader.end());
    match (refused, end) {
        (Some((number, what)), _) => Err(ReadError::Record(number, what)),
        (None, Err(error)) => {
            Err(ReadError::Input(format!("not an array of CloudEvents: {error}")))
        }
        (None, Ok(())) => Ok(()),
    }
}

struct Elements<'a> {
    take: &'a mut dyn FnMut(u64, &str) -> Result<(), String>,
    refused: &'a mut Option<(u64, String)>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for number in 1.. {
            let Some(element) = elements.next_element::<Box<RawValue>>()? else { break };
            if let Err(what) = (self.take)(number, element.get()) {
                *self.refused = Some((number, what));
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_arrays_are_read_record_by_record() {
        let read = |format, input: &str| {
            let mut records = Vec::new();
            let end = for_each(input.as_bytes(), format, &mut |number, record| {
                records.push((number, record.to_owned()));
                if record.contains("bad") { Err("it is bad".to_owned()) } else { Ok(()) }
            });
            (records.iter().map(|(number, _)| *number).collect::<Vec<_>>(), end)
        };
        assert!(
            matches!(read(Format::Ndjson, "{}\n\n{}"), (numbers, Ok(())) if numbers == [1, 2, 3])
        );
        assert!(matches!(read(Format::Cloudevents, " [ {} , 1\n]\n"), (n, Ok(())) if n == [1, 2]));
        assert!(matches!(read(Format::Cloudevents, "[]"), (numbers, Ok(())) if numbers.is_empty()));
        let (_, end) = read(Format::Ndjson, "1\nbad\n3");
        assert!(matches!(end, Err(ReadError::Record(2, _))), "{end:?}");
        let (numbers, end) = read(Format::Cloudevents, "[1,\"bad\",3]");
        assert!(matches!(end, Err(ReadError::Record(2, _))) && numbers == [1, 2], "{end:?}");
        for broken in ["[1", "{}", "[1] 2", ""] {
            let (_, end) = read(Format::Cloudevents, broken);
            assert!(matches!(end, Err(ReadError::Input(_))), "{broken}: {end:?}");
        }
    }
}
