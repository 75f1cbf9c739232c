// SPDX-License-Identifier: GPL-2.0

//! Changes to the text of a file, and where the mutations are in what they make of it.

use std::collections::BTreeMap;
use std::ops::Range;

/// Text that comes in at a place, instead of `remove` bytes there.
#[derive(Clone, Debug)]
struct Edit {
    at: usize,
    remove: usize,
    text: String,
    /// Among edits at one place: what ends there comes first, the inner before the outer.
    order: (u8, i64),
    /// The mutation that begins (or ends) here.
    mark: Option<(u32, bool)>,
}

/// The changes to one file.
#[derive(Default)]
pub struct Edits {
    list: Vec<Edit>,
    sequence: i64,
}

/// A changed file, and the bytes of it that belong to each mutation.
pub struct Edited {
    pub text: String,
    pub places: BTreeMap<u32, Range<usize>>,
}

impl Edits {
    /// Puts `before` and `after` around the bytes `range`, for mutation `id`. What is called first
    /// for the same place is the outer one.
    pub fn wrap(&mut self, id: u32, range: &Range<usize>, before: String, after: String) {
        self.surround(Some(id), range, before, after);
    }

    /// Puts `text` before the byte `at`, for mutation `id`.
    pub fn insert(&mut self, id: u32, at: usize, text: String) {
        self.surround(Some(id), &(at..at), text, String::new());
    }

    /// Puts `before` and `after` around the bytes `range`, for nobody or for mutation `id`.
    pub fn surround(
        &mut self,
        id: Option<u32>,
        range: &Range<usize>,
        before: String,
        after: String,
    ) {
        self.sequence += 1;
        self.list.push(Edit {
            at: range.start,
            remove: 0,
            text: before,
            order: (1, self.sequence),
            mark: id.map(|id| (id, true)),
        });
        self.list.push(Edit {
            at: range.end,
            remove: 0,
            text: after,
            order: (0, -self.sequence),
            mark: id.map(|id| (id, false)),
        });
    }

    /// Puts `text` in the place of the bytes `range`.
    pub fn replace(&mut self, range: &Range<usize>, text: String) {
        self.sequence += 1;
        self.list.push(Edit {
            at: range.start,
            remove: range.len(),
            text,
            order: (1, self.sequence),
            mark: None,
        });
    }

    /// Makes the changes to `source`.
    pub fn apply(mut self, source: &str) -> Edited {
        self.list.sort_by_key(|edit| (edit.at, edit.order));
        let mut text = String::with_capacity(source.len() * 2);
        let mut places: BTreeMap<u32, Range<usize>> = BTreeMap::new();
        let mut done = 0;
        for edit in self.list {
            text.push_str(&source[done..edit.at]);
            done = edit.at + edit.remove;
            let before = text.len();
            text.push_str(&edit.text);
            match edit.mark {
                Some((id, true)) => {
                    places.insert(id, before..text.len());
                }
                Some((id, false)) => {
                    if let Some(place) = places.get_mut(&id) {
                        place.end = text.len();
                    }
                }
                None => {}
            }
        }
        text.push_str(&source[done..]);
        Edited { text, places }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_nest_and_adjoin() {
        let mut edits = Edits::default();
        edits.wrap(1, &(0..3), "f(".into(), ")".into());
        edits.wrap(2, &(0..1), "g(".into(), ")".into());
        edits.replace(&(1..2), ", ".into());
        edits.wrap(3, &(2..3), "h(".into(), ")".into());
        let edited = edits.apply("a+b;");
        assert_eq!(edited.text, "f(g(a), h(b));");
        assert_eq!(&edited.text[edited.places[&1].clone()], "f(g(a), h(b))");
        assert_eq!(&edited.text[edited.places[&2].clone()], "g(a)");
    }
}
