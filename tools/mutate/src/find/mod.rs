// SPDX-License-Identifier: GPL-2.0

//! Finds the places of a file where mistakes can be made, and says how.
//!
//! The text stays what it was but for calls that are put around expressions, so that all mutations
//! of a file are there at once and each operand is evaluated as often as before. Constants,
//! patterns, types and macros are left alone: nothing can be asked there at run time.

mod syntax;
mod walk;

use std::collections::BTreeMap;
use std::ops::Range;

use syn::visit::Visit;
use syn::{BinOp, Block, Expr, ExprLit, Lit, Pat, ReturnType, Signature, Stmt};

use syntax::{bytes, constants, contains_let, is_call, is_droppable, is_test, one_line};

use crate::edit::Edits;
use crate::mutation::{hash, Kind, Mutation};

/// Statements that are tried in every order of two neighbours together, at most.
const SWAPPED_TOGETHER: usize = 6;

/// What was found in a file.
pub struct Found {
    pub mutations: Vec<Mutation>,
    pub edits: Edits,
}

/// The walk over a file.
struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    /// Whether this one is wanted: by its file, function, kind, original text and number.
    wanted: &'a dyn Fn(&Mutation) -> bool,
    next: &'a mut u32,
    found: Found,
    /// Types, traits and modules around, and the functions.
    path: Vec<String>,
    /// The text of the outermost function.
    body: Option<Range<usize>>,
    seen: BTreeMap<(String, Kind, String, String), usize>,
}

/// Finds what can be done to `source`, the text of `file`. Numbers go on from `next`, which counts
/// those that are not wanted, too.
pub fn find(
    file: &str,
    source: &str,
    next: &mut u32,
    wanted: &dyn Fn(&Mutation) -> bool,
) -> syn::Result<Found> {
    let tree = syn::parse_file(source)?;
    let mut finder = Finder {
        file,
        source,
        wanted,
        next,
        found: Found {
            mutations: Vec::new(),
            edits: Edits::default(),
        },
        path: Vec::new(),
        body: None,
        seen: BTreeMap::new(),
    };
    finder.visit_file(&tree);
    Ok(finder.found)
}

impl Finder<'_> {
    fn text(&self, range: &Range<usize>) -> &str {
        &self.source[range.clone()]
    }

    /// A mutation of the bytes `range`. Its number, if it is wanted.
    fn mutation(&mut self, kind: Kind, range: &Range<usize>, mutated: &str) -> Option<u32> {
        let body = self.body.clone()?;
        let function = self.path.join("::");
        let original: String = one_line(self.text(range)).chars().take(160).collect();
        let place = (function, kind, original, mutated.to_owned());
        let count = self.seen.entry(place.clone()).or_default();
        let nth = *count;
        *count += 1;
        let (function, _, original, mutated) = place;
        let id = *self.next;
        *self.next += 1;
        let key = hash(&[
            self.file,
            &function,
            &one_line(self.text(&body)),
            &serde_json::to_string(&kind).unwrap_or_default(),
            &original,
            &mutated,
            &nth.to_string(),
        ]);
        let mutation = Mutation {
            id,
            key: format!("{key:016x}"),
            room: self.file.split('/').nth(1).unwrap_or_default().to_owned(),
            file: self.file.to_owned(),
            line: self.source[..range.start].matches('\n').count() + 1,
            function,
            kind,
            original,
            mutated,
            nth,
        };
        if !(self.wanted)(&mutation) {
            return None;
        }
        self.found.mutations.push(mutation);
        Some(id)
    }

    /// Puts a call of the function `call` around the bytes `range`.
    fn call(&mut self, kind: Kind, range: &Range<usize>, call: &str, mutated: &str) {
        if let Some(id) = self.mutation(kind, range, mutated) {
            let before = format!("crate::switch::{call}({id}, ");
            self.found.edits.wrap(id, range, before, ")".into());
        }
    }

    /// Makes of an operator between two operands a call.
    fn operator(
        &mut self,
        kind: Kind,
        e: &syn::ExprBinary,
        call: &str,
        becomes: &str,
        by_reference: bool,
    ) {
        let (range, op) = (bytes(e), bytes(&e.op));
        let around = 40;
        let left = one_line(self.text(&bytes(&*e.left)));
        let right = one_line(self.text(&bytes(&*e.right)));
        let left = left.chars().rev().take(around).collect::<Vec<_>>();
        let left: String = left.into_iter().rev().collect();
        let right: String = right.chars().take(around).collect();
        if let Some(id) = self.mutation(kind, &range, &format!("{left} {becomes} {right}")) {
            let (open, between, close) = match by_reference {
                true => ("&(", "), &(", "))"),
                false => ("(", "), (", "))"),
            };
            let before = format!("crate::switch::{call}({id}, {open}");
            self.found.edits.wrap(id, &range, before, close.into());
            self.found.edits.replace(&op, between.into());
        }
    }

    /// `&&` and `||`: the right operand is evaluated or not, by the left one and the switch.
    fn logic(&mut self, e: &syn::ExprBinary, and: bool) {
        let (range, op) = (bytes(e), bytes(&e.op));
        let becomes = if and {
            "|| instead of &&"
        } else {
            "&& instead of ||"
        };
        if let Some(id) = self.mutation(Kind::Logic, &range, becomes) {
            let test = if and { "!=" } else { "==" };
            let between = format!("{{ rdax_left => if rdax_left {test} crate::switch::on({id}) {{");
            let wrap = &mut self.found.edits;
            wrap.wrap(
                id,
                &range,
                "(match ".into(),
                "} else { rdax_left } })".into(),
            );
            wrap.replace(&op, between);
        }
    }

    /// A condition: the opposite, and never true.
    fn condition(&mut self, cond: &Expr, negate: bool) {
        if contains_let(cond) {
            return;
        }
        let range = bytes(cond);
        let is_equality = matches!(
            cond,
            Expr::Binary(e) if matches!(e.op, BinOp::Eq(_) | BinOp::Ne(_))
        );
        if negate && !is_equality {
            self.call(Kind::Negated, &range, "not", "the opposite");
        }
        self.call(Kind::Never, &range, "never", "false");
    }

    /// Statements of a block that can be left out, or change places.
    fn statements(&mut self, block: &Block) {
        let mut run: Vec<Range<usize>> = Vec::new();
        for stmt in &block.stmts {
            if is_call(stmt) && run.len() < SWAPPED_TOGETHER {
                run.push(bytes(stmt));
            } else {
                self.swap(&run);
                run.clear();
                if is_call(stmt) {
                    run.push(bytes(stmt));
                }
            }
        }
        self.swap(&run);
        for stmt in &block.stmts {
            if is_droppable(stmt) {
                self.drop_statement(&bytes(stmt));
            }
            if let Stmt::Local(local) = stmt {
                self.guard(local);
            }
        }
    }

    fn drop_statement(&mut self, range: &Range<usize>) {
        if let Some(id) = self.mutation(Kind::Dropped, range, "nothing") {
            let before = format!("if !crate::switch::on({id}) {{ ");
            self.found.edits.wrap(id, range, before, " }".into());
        }
    }

    /// The statements `run` with two neighbours exchanged, for each two.
    fn swap(&mut self, run: &[Range<usize>]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let (start, end) = (first.start, last.end);
        let mut any = false;
        for i in 1..run.len() {
            let pair = run[i - 1].start..run[i].end;
            if self.text(&run[i - 1]) == self.text(&run[i]) {
                continue;
            }
            let Some(id) = self.mutation(Kind::Swapped, &pair, "in the other order") else {
                continue;
            };
            let mut order: Vec<_> = run.to_vec();
            order.swap(i - 1, i);
            let order: Vec<&str> = order.iter().map(|range| self.text(range)).collect();
            let branch = format!("if crate::switch::on({id}) {{ {} }} else ", order.join(" "));
            self.found.edits.insert(id, start, branch);
            any = true;
        }
        if any {
            let rest = ("{ ".into(), " }".into());
            self.found
                .edits
                .surround(None, &(start..end), rest.0, rest.1);
        }
    }

    /// `let _guard = ...`: what is held is let go at once.
    fn guard(&mut self, local: &syn::Local) {
        let (Pat::Ident(pat), Some(init)) = (&local.pat, &local.init) else {
            return;
        };
        let held = pat.mutability.is_none() && init.diverge.is_none();
        if pat.ident.to_string().starts_with('_') && held {
            let range = bytes(&*init.expr);
            self.call(Kind::Guard, &range, "keep", "let go at once");
            if let Some(id) = self.mutation(Kind::Guard, &range, "not taken") {
                let before = format!("(if crate::switch::on({id}) {{ None }} else {{ Some(");
                let wrap = &mut self.found.edits;
                wrap.wrap(id, &range, before, ") })".into());
            }
        }
    }

    /// A function, if it can be asked anything at run time.
    fn function(&mut self, sig: &Signature, block: &Block, attrs: &[syn::Attribute]) {
        if sig.constness.is_some() || is_test(attrs) {
            return;
        }
        self.path.push(sig.ident.to_string());
        let outermost = self.body.is_none();
        if outermost {
            self.body = Some(bytes(block));
        }
        let start = bytes(block).start + 1;
        for value in constants(&sig.output) {
            let name = bytes(&sig.ident);
            let what = if value.is_empty() { "return" } else { value };
            // Where there is only one statement, that one is left out instead.
            let single = value.is_empty() && block.stmts.len() == 1;
            if single || one_line(self.text(&bytes(block))) == format!("{{ {value} }}") {
                continue;
            }
            if let Some(id) = self.mutation(Kind::Returned, &name, what) {
                let text = format!(" if crate::switch::on({id}) {{ return {value}; }}");
                self.found.edits.insert(id, start, text);
            }
        }
        if matches!(sig.output, ReturnType::Default) {
            self.tail(block);
        }
        self.visit_block(block);
        if outermost {
            self.body = None;
        }
        self.path.pop();
    }

    /// The last expression of a block whose value nobody wants.
    fn tail(&mut self, block: &Block) {
        if let Some(Stmt::Expr(e @ (Expr::Call(_) | Expr::MethodCall(_) | Expr::Unsafe(_)), None)) =
            block.stmts.last()
        {
            self.drop_statement(&bytes(e));
        }
    }

    fn binary(&mut self, e: &syn::ExprBinary) {
        let mut exchange =
            |kind, call, becomes, reference| self.operator(kind, e, call, becomes, reference);
        match e.op {
            BinOp::Lt(_) => exchange(Kind::Boundary, "lt", "<=", true),
            BinOp::Le(_) => exchange(Kind::Boundary, "le", "<", true),
            BinOp::Gt(_) => exchange(Kind::Boundary, "gt", ">=", true),
            BinOp::Ge(_) => exchange(Kind::Boundary, "ge", ">", true),
            BinOp::Eq(_) => exchange(Kind::Equality, "eq", "!=", true),
            BinOp::Ne(_) => exchange(Kind::Equality, "ne", "==", true),
            BinOp::Add(_) => exchange(Kind::Operator, "add", "-", false),
            BinOp::Sub(_) => exchange(Kind::Operator, "sub", "+", false),
            BinOp::BitAnd(_) => exchange(Kind::Operator, "bitand", "|", false),
            BinOp::BitOr(_) => exchange(Kind::Operator, "bitor", "&", false),
            BinOp::BitOrAssign(_) => self.call(Kind::Operator, &bytes(&*e.right), "nothing", "0"),
            BinOp::Div(_) => exchange(Kind::Rounding, "div", "/ (rounded up)", false),
            BinOp::And(_) => self.logic(e, true),
            BinOp::Or(_) => self.logic(e, false),
            _ => {}
        }
    }

    fn literal(&mut self, e: &ExprLit) {
        let range = bytes(e);
        match &e.lit {
            Lit::Int(int) => match int.base10_parse::<u128>() {
                Ok(1) => {
                    self.call(Kind::OffByOne, &range, "up", "2");
                    self.call(Kind::OffByOne, &range, "down", "0");
                }
                Ok(n) => self.call(Kind::OffByOne, &range, "up", &(n + 1).to_string()),
                Err(_) => {}
            },
            Lit::Bool(bool) => {
                let other = if bool.value { "false" } else { "true" };
                self.call(Kind::Negated, &range, "not", other);
            }
            _ => {}
        }
    }

    /// `a.min(b)` and the like, as calls of functions.
    fn method(&mut self, e: &syn::ExprMethodCall) {
        let name = e.method.to_string();
        let (kind, becomes) = match name.as_str() {
            "min" => (Kind::Limit, "without .min()"),
            "max" => (Kind::Limit, "without .max()"),
            "div_ceil" => (Kind::Rounding, "rounded down"),
            _ => return,
        };
        if e.args.len() != 1 || e.turbofish.is_some() {
            return;
        }
        let range = bytes(e);
        if let Some(id) = self.mutation(kind, &range, becomes) {
            let before = format!("crate::switch::{name}({id}, ");
            let method = bytes(&e.dot_token).start..bytes(&e.method).end;
            let open = bytes(&e.paren_token.span.open());
            self.found.edits.wrap(id, &range, before, String::new());
            self.found
                .edits
                .replace(&(method.start..open.end), ", ".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of `source` with those of `kind`, and what is said of them.
    fn mutate(source: &str, kind: Kind) -> (String, Vec<String>) {
        let mut next = 1;
        let found = find("src/a/b.rs", source, &mut next, &|m| m.kind == kind).expect("parses");
        let said = found.mutations.iter().map(|m| m.mutated.clone());
        let said = said.collect();
        (found.edits.apply(source).text, said)
    }

    #[test]
    fn a_comparison_becomes_a_call() {
        let (text, said) = mutate("fn f(a: u8) -> bool { a < 2 * g() }", Kind::Boundary);
        assert_eq!(
            text,
            "fn f(a: u8) -> bool { crate::switch::lt(3, &(a ), &( 2 * g())) }"
        );
        assert_eq!(said, ["a <= 2 * g()"]);
    }

    #[test]
    fn what_is_added_to_a_set_is_evaluated_and_left_out() {
        let (text, said) = mutate("fn f() { a |= g(); }", Kind::Operator);
        assert!(text.contains("a |= crate::switch::nothing("), "{text}");
        assert_eq!(said, ["0"]);
    }

    #[test]
    fn what_is_constant_is_left_alone() {
        for source in [
            "const fn f() -> u8 { 1 + 2 }",
            "const A: u8 = 1 + 2;",
            "fn f() { match g() { 1..2 => {} _ => {} } }",
            "fn f() -> [u8; 1 + 2] { h::<{ 1 + 2 }>() }",
            "fn f() { m!(1 + 2) }",
            "#[cfg(test)] mod t { fn f() -> u8 { 1 + 2 } }",
        ] {
            for kind in [Kind::OffByOne, Kind::Operator, Kind::Range] {
                assert_eq!(mutate(source, kind).0, source);
            }
        }
    }

    #[test]
    fn statements_change_places_in_copies() {
        let (text, said) = mutate("fn f() { a(); b()?; let x = 1; c(); }", Kind::Swapped);
        assert_eq!(said.len(), 1);
        assert!(
            text.contains("{ b()?; a(); } else { a(); b()?; } let x = 1; c(); }"),
            "{text}"
        );
    }

    #[test]
    fn a_guard_is_let_go_or_not_taken() {
        let (text, said) = mutate("fn f() { let _guard = g(); }", Kind::Guard);
        assert_eq!(said, ["let go at once", "not taken"]);
        assert_eq!(text.matches("g()").count(), 1, "{text}");
        assert!(text.contains("{ None } else { Some("), "{text}");
    }

    #[test]
    fn a_limit_is_left_out() {
        let (text, _) = mutate("fn f(a: u8) -> u8 { a.min(g(a)) }", Kind::Limit);
        assert!(
            text.contains("crate::switch::min(") && text.contains(", a, g(a)) }"),
            "{text}"
        );
    }

    #[test]
    fn the_right_operand_is_evaluated_once_or_not() {
        let (text, _) = mutate("fn f() -> bool { a() && b() }", Kind::Logic);
        assert!(text.contains("(match a() { rdax_left => if rdax_left != crate::switch::on("));
        assert!(text.ends_with("{ b()} else { rdax_left } }) }"), "{text}");
    }

    #[test]
    fn a_key_outlives_what_is_around() {
        let key = |source: &str| {
            let mut next = 1;
            let found = find("src/a/b.rs", source, &mut next, &|_| true).expect("parses");
            found.mutations.last().map(|m| m.key.clone())
        };
        let function = "fn f(a: u8) -> bool { a < g() }";
        assert_eq!(
            key(function),
            key(&format!("fn h() {{ 1 + 2; }}\n{function}"))
        );
        assert_ne!(key(function), key("fn f(a: u8) -> bool { a < h() }"));
    }
}
