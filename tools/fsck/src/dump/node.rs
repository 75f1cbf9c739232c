// SPDX-License-Identifier: GPL-2.0

//! The output: a title, fields, and parts, as text or as JSON.

use std::fmt;

use serde_json::{Map, Value};

/// Something shown.
pub struct Node {
    title: String,
    fields: Vec<(&'static str, Value)>,
    parts: Vec<Node>,
}

impl Node {
    pub fn new(title: impl Into<String>) -> Self {
        Node {
            title: title.into(),
            fields: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Adds a field.
    pub fn field(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Adds a field if it is not zero.
    pub fn nonzero(self, name: &'static str, value: u64) -> Self {
        match value {
            0 => self,
            value => self.field(name, value),
        }
    }

    /// Adds whether the checksum holds.
    pub fn checksum(self, stored: u32, computed: u32) -> Self {
        if stored == computed {
            return self.field("crc", format!("{stored:#010x}"));
        }
        self.field(
            "crc",
            format!("{stored:#010x} WRONG, should be {computed:#010x}"),
        )
    }

    pub fn part(mut self, part: Node) -> Self {
        self.parts.push(part);
        self
    }

    pub fn parts(mut self, parts: impl IntoIterator<Item = Node>) -> Self {
        self.parts.extend(parts);
        self
    }

    fn value(&self) -> Value {
        let mut map = Map::new();
        map.insert("what".into(), self.title.clone().into());
        for (name, value) in &self.fields {
            map.insert((*name).into(), value.clone());
        }
        if !self.parts.is_empty() {
            let parts = self.parts.iter().map(Node::value);
            map.insert("parts".into(), parts.collect());
        }
        Value::Object(map)
    }

    /// All of it as JSON.
    pub fn json(&self) -> String {
        format!("{:#}", self.value())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = depth * 2;
        write!(f, "{:indent$}{}", "", self.title)?;
        // A node without parts and with few fields is a line of a list.
        let short = self.parts.is_empty() && depth > 0 && self.fields.len() <= 6;
        for (name, value) in &self.fields {
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            if short {
                write!(f, "  {name} {value}")?;
            } else {
                write!(f, "\n{:indent$}  {name:<14} {value}", "")?;
            }
        }
        writeln!(f)?;
        self.parts
            .iter()
            .try_for_each(|part| part.write(f, depth + 1))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}
