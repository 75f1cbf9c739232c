// SPDX-License-Identifier: GPL-2.0

//! The output: a title, fields, and parts, as text or as JSON.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// A structure that is shown: the text for people, and the same as values for programs.
pub struct Node {
    what: &'static str,
    title: String,
    text: Vec<(&'static str, String)>,
    values: Vec<(String, Value)>,
    /// `None`: it has none, whatever its content.
    parts: Option<Vec<Node>>,
}

impl Node {
    /// `what` names the kind of structure in JSON, `title` is the first line of the text.
    pub fn new(what: &'static str, title: impl Into<String>) -> Self {
        Node {
            what,
            title: title.into(),
            text: Vec::new(),
            values: Vec::new(),
            parts: None,
        }
    }

    /// Adds a field to the text only.
    pub fn text(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.text.push((name, text.into()));
        self
    }

    /// Adds a field to the JSON only: the text has it in a title, or says it in other words.
    pub fn value(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.push((name.into(), value.into()));
        self
    }

    /// Adds a field that is written alike in both.
    pub fn field(self, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let text = value.as_str().map_or(value.to_string(), str::to_owned);
        self.text(name, text).value(name, value)
    }

    /// Adds a number that the text shows in hexadecimal digits.
    pub fn hex(self, name: &'static str, value: u64) -> Self {
        self.text(name, format!("{value:#x}")).value(name, value)
    }

    /// Adds a number that the text shows only if it is not zero.
    pub fn nonzero(self, name: &'static str, value: u64) -> Self {
        match value {
            0 => self.value(name, value),
            value => self.field(name, value),
        }
    }

    /// Adds something that the text shows only if it is true.
    pub fn flag(self, name: &'static str, value: bool) -> Self {
        match value {
            false => self.value(name, value),
            true => self.field(name, value),
        }
    }

    /// Adds bytes that are text, but of any kind: escaped in the text; in JSON a string, or what is
    /// not UTF-8 as digits, under another name.
    pub fn bytes(self, name: &'static str, bytes: &[u8]) -> Self {
        let node = self.text(name, bytes.escape_ascii().to_string());
        match std::str::from_utf8(bytes) {
            Ok(utf8) => node.value(name, utf8),
            Err(_) => node.value(format!("{name}_hex"), digits(bytes)),
        }
    }

    /// Adds a time.
    pub fn time(self, name: &'static str, sec: i64, nsec: u32) -> Self {
        self.text(name, format!("{sec}.{nsec:09}"))
            .value(format!("{name}_sec"), sec)
            .value(format!("{name}_nsec"), nsec)
    }

    /// Adds the stored checksum and the right one.
    pub fn checksum(self, stored: u32, computed: u32) -> Self {
        let text = match stored == computed {
            true => format!("{stored:#010x}"),
            false => format!("{stored:#010x} WRONG, should be {computed:#010x}"),
        };
        self.text("crc", text)
            .value("crc", stored)
            .value("crc_computed", computed)
    }

    pub fn part(self, part: Node) -> Self {
        self.parts([part])
    }

    pub fn parts(mut self, parts: impl IntoIterator<Item = Node>) -> Self {
        self.parts.get_or_insert_default().extend(parts);
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = depth * 2;
        let parts = self.parts.as_deref().unwrap_or_default();
        write!(f, "{:indent$}{}", "", self.title)?;
        // A node without parts and with few fields is a line of a list.
        let short = parts.is_empty() && depth > 0 && self.text.len() <= 6;
        for (name, value) in &self.text {
            if short {
                write!(f, "  {name} {value}")?;
            } else {
                write!(f, "\n{:indent$}  {name:<14} {value}", "")?;
            }
        }
        writeln!(f)?;
        parts.iter().try_for_each(|part| part.write(f, depth + 1))
    }
}

/// Two hexadecimal digits a byte.
pub fn digits(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    digits.concat()
}

/// As text.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", self.what)?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        if let Some(parts) = &self.parts {
            map.serialize_entry("parts", parts)?;
        }
        map.end()
    }
}
