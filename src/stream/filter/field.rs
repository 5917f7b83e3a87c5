//! What a filter looks at: a part of the event beside its data, or a place in its data.

use std::fmt;

use crate::{
    input::quoted,
    json::{check::DEPTH_MAX, write},
};

/// A field of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Its topic.
    Topic,
    /// Its type.
    Type,
    /// Its key.
    Key,
    /// Its id.
    Id,
    /// Its time.
    Time,
    /// A header, in lower case.
    Header(Box<str>),
    /// A value in its JSON data: the names of members, or indexes of elements, on the way there; none
    /// for the data itself.
    Data(Box<[Box<str>]>),
}

impl Field {
    /// The field that is spelt with dots: `data.venue.name`, `headers.trace-id`.
    pub fn parse(text: &str) -> Result<Field, String> {
        match text.split_once('.') {
            // A header's name may itself hold dots, and there is nothing inside a header.
            Some((root @ "headers", name)) => Field::of_names(&[root, name]),
            _ => Field::of_names(&text.split('.').collect::<Vec<_>>()),
        }
        .map_err(|what| format!("field {} {what}", quoted(text)))
    }

    /// The field that is spelt as a list of names: `["data","a.b"]`. The error goes behind `field ..`.
    pub fn of_names(names: &[impl AsRef<str>]) -> Result<Field, String> {
        let mut names = names.iter().map(AsRef::as_ref);
        let root = names.next().unwrap_or_default();
        let rest: Vec<&str> = names.collect();
        let field = match (root, &*rest) {
            ("topic", []) => Field::Topic,
            ("type", []) => Field::Type,
            ("key", []) => Field::Key,
            ("id", []) => Field::Id,
            ("time", []) => Field::Time,
            ("headers", [name]) if !name.is_empty() => {
                Field::Header(name.to_ascii_lowercase().into())
            }
            ("headers", _) => return Err("needs one name: headers.NAME".to_owned()),
            ("data", path) if path.len() > DEPTH_MAX => {
                return Err(format!("goes more than {DEPTH_MAX} deep, which no data does"));
            }
            ("data", path) => Field::Data(path.iter().map(|name| Box::from(*name)).collect()),
            ("topic" | "type" | "key" | "id" | "time", _) => {
                return Err(format!("does not exist: there is nothing inside {root}"));
            }
            _ => {
                return Err(
                    "does not exist: there are topic, type, key, id, time, headers.NAME, data and data.NAME"
                        .to_owned(),
                );
            }
        };
        Ok(field)
    }

    /// Its names, the first of them what stands before the first dot.
    fn names(&self) -> Vec<&str> {
        match self {
            Field::Topic => vec!["topic"],
            Field::Type => vec!["type"],
            Field::Key => vec!["key"],
            Field::Id => vec!["id"],
            Field::Time => vec!["time"],
            Field::Header(name) => vec!["headers", name],
            Field::Data(path) => {
                std::iter::once("data").chain(path.iter().map(|name| &**name)).collect()
            }
        }
    }
}

impl fmt::Display for Field {
    /// The list of names, which is a spelling for every field.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::new();
        for name in self.names() {
            out.push(if out.is_empty() { b'[' } else { b',' });
            write::string(&mut out, name);
        }
        out.push(b']');
        formatter.write_str(std::str::from_utf8(&out).expect("JSON is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(names: &[&str]) -> Field {
        Field::Data(names.iter().map(|name| Box::from(*name)).collect())
    }

    /// API §6: "`field`: `topic`, `type`, `key`, `id`, `time`, `headers.NAME`, `data`, `data.A.B.0`, or
    /// an array of names where a key holds a dot".
    #[test]
    fn fields_in_both_spellings() {
        for (text, field) in [
            ("topic", Field::Topic),
            ("type", Field::Type),
            ("key", Field::Key),
            ("id", Field::Id),
            ("time", Field::Time),
            ("headers.Trace-Id", Field::Header("trace-id".into())),
            ("headers.a.b", Field::Header("a.b".into())),
            ("data", data(&[])),
            ("data.A.B.0", data(&["A", "B", "0"])),
            ("data.a..b", data(&["a", "", "b"])),
        ] {
            assert_eq!(Field::parse(text), Ok(field.clone()), "{text}");
            let names: Vec<String> = serde_json::from_str(&field.to_string()).unwrap();
            assert_eq!(Field::of_names(&names), Ok(field), "{text}");
        }
        assert_eq!(Field::of_names(&["data", "a.b", ""]), Ok(data(&["a.b", ""])));
    }

    #[test]
    fn what_is_no_field_is_refused_with_what_there_is() {
        for text in
            ["", "Topic", "price", "offset", "topic.a", "time.ms", "headers", "headers.", ".data"]
        {
            assert!(Field::parse(text).is_err(), "{text}");
        }
        let error = Field::parse("price").unwrap_err();
        assert!(error.starts_with("field \"price\" does not exist") && error.contains("data.NAME"));
        assert!(Field::of_names(&[""; 0]).is_err());
        let path = |depth: usize| format!("data{}", ".a".repeat(depth));
        assert!(Field::parse(&path(64)).is_ok());
        assert!(Field::parse(&path(65)).is_err());
    }
}
