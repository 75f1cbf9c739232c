// SPDX-License-Identifier: GPL-2.0

//! JSON and text of `rdax-dump` say the same: each knows every field of the other.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// A structure as the text shows it.
struct Shown<'a> {
    depth: usize,
    title: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// Splits the text. A field on a line of its own is its name, padded to 14, and the value.
fn shown(text: &str) -> Vec<Shown<'_>> {
    let mut found: Vec<Shown<'_>> = Vec::new();
    for line in text.lines() {
        let rest = line.trim_start();
        let depth = (line.len() - rest.len()) / 2;
        let field = rest.split_at_checked(14).and_then(|(name, value)| {
            let name = name.trim_end();
            Some((name, value.strip_prefix(' ')?)).filter(|_| !name.contains(' '))
        });
        if let (Some(field), Some(of)) = (field, found.last_mut()) {
            of.fields.push(field);
            continue;
        }
        let mut pieces = rest.split("  ");
        let title = pieces.next().unwrap_or_default();
        let fields = pieces.filter_map(|piece| piece.split_once(' '));
        found.push(Shown {
            depth,
            title,
            fields: fields.collect(),
        });
    }
    found
}

/// The objects in the order of the text, with their depths.
fn objects<'a>(value: &'a Value, depth: usize, found: &mut Vec<(usize, &'a Object)>) {
    let object = value.as_object().expect("an object");
    found.push((depth, object));
    let parts = object.get("parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        objects(part, depth + 1, found);
    }
}

/// Hexadecimal digits as bytes.
fn decoded(digits: &str) -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// All that the text may show for the field `name`.
fn expected(object: &Object, name: &str) -> Vec<String> {
    let number = |name: &str| object.get(name).and_then(Value::as_u64);
    let text = match (name, object.get(name)) {
        ("crc", _) => {
            let (stored, computed) = (number("crc").unwrap(), number("crc_computed").unwrap());
            match stored == computed {
                true => format!("{stored:#010x}"),
                false => format!("{stored:#010x} WRONG, should be {computed:#010x}"),
            }
        }
        ("state", Some(state)) => match state.as_str().unwrap() {
            "retired" => "quiet".to_owned(),
            "logged" => "to be replayed".to_owned(),
            "torn" => "last transaction was not logged".to_owned(),
            "damaged" => {
                return vec![format!(
                    "damaged journal lane at byte {:#x}",
                    number("at").unwrap()
                )]
            }
            other => panic!("state {other}"),
        },
        ("retired", Some(Value::Bool(retired))) => ["no", "yes"][usize::from(*retired)].to_owned(),
        ("retired", Some(Value::Null)) => {
            format!("{:#x}, which says neither", number("retired_word").unwrap())
        }
        ("not", _) => {
            assert_eq!(object["misplaced"], true);
            "a node of this tree at this place".to_owned()
        }
        ("header", _) => {
            assert_eq!(object["damaged"], true);
            "damaged".to_owned()
        }
        ("words", Some(Value::Array(words))) => {
            let words = words
                .iter()
                .map(|word| format!("{:016x}", word.as_u64().unwrap()));
            words.collect::<Vec<_>>().join(" ")
        }
        ("runs", Some(Value::Array(runs))) => {
            let runs = runs.iter().map(|run| {
                let (block, len) = (run["block"].as_u64().unwrap(), run["len"].as_u64().unwrap());
                match len {
                    1 => block.to_string(),
                    _ => format!("{block}-{}", block + len - 1),
                }
            });
            runs.collect::<Vec<_>>().join(" ")
        }
        (_, Some(Value::Number(value))) => {
            let Some(value) = value.as_u64() else {
                return vec![value.to_string()];
            };
            return vec![
                value.to_string(),
                format!("{value:#x}"),
                format!("{value:#o}"),
            ];
        }
        (_, Some(Value::Bool(value))) => value.to_string(),
        (_, Some(Value::String(value))) => value.as_bytes().escape_ascii().to_string(),
        (_, None) => match object.get(&format!("{name}_hex")) {
            Some(hex) => decoded(hex.as_str().unwrap()).escape_ascii().to_string(),
            None => {
                let sec = object[&format!("{name}_sec")].as_i64().unwrap();
                let nsec = number(&format!("{name}_nsec")).unwrap();
                format!("{sec}.{nsec:09}")
            }
        },
        (_, Some(other)) => panic!("{name} is {other}"),
    };
    vec![text]
}

/// Whether the text need not show a field: it has nothing to say, or the title says it, or another
/// field.
fn is_implied(object: &Object, name: &str, value: &Value, title: &str) -> bool {
    let numbers = || title.split([' ', ',']);
    match (name, value) {
        ("what" | "parts" | "crc_computed" | "retired_word", _) => true,
        ("copy", _) => *value == title.starts_with("copy"),
        ("kind", _) => value == title,
        ("offset", Value::Number(n)) => title == format!("{:#05x}", n.as_u64().unwrap()),
        (_, Value::Number(n)) if n.as_u64() == Some(0) => true,
        (_, Value::Number(n)) => {
            let n = n.as_u64().unwrap();
            numbers().any(|word| word == n.to_string() || word == format!("{n:#x}"))
        }
        (_, Value::Bool(false)) => true,
        ("misplaced" | "damaged", Value::Bool(true)) => object["what"] != "record",
        ("at", Value::Null) => title.ends_with("nowhere"),
        _ => false,
    }
}

/// Panics unless `text` and `json` show the same structures with the same fields.
pub fn agree(text: &str, json: &Value) {
    let shown = shown(text);
    let mut all = Vec::new();
    objects(json, 0, &mut all);
    assert_eq!(shown.len(), all.len(), "structures in\n{text}\n{json:#}");
    for (node, (depth, object)) in shown.iter().zip(all) {
        let place = format!("{}: {object:?}", node.title);
        assert_eq!(node.depth, depth, "{place}");
        for (name, text) in &node.fields {
            // JSON has only the digits beside it, and spaces in it separate nothing.
            if object["what"] == "bytes" && *name != "hex" {
                continue;
            }
            assert!(
                expected(object, name).contains(&(*text).to_owned()),
                "{name} {text} in {place}"
            );
        }
        for (name, value) in object {
            let base = name
                .strip_suffix("_hex")
                .or(name.strip_suffix("_sec"))
                .or(name.strip_suffix("_nsec"))
                .unwrap_or(name);
            let is_shown = node
                .fields
                .iter()
                .any(|(shown, _)| shown == name || *shown == base);
            assert!(
                is_shown || is_implied(object, name, value, node.title),
                "{name} is not in the text of {place}"
            );
        }
    }
}
