// SPDX-License-Identifier: GPL-2.0

//! Questions about a piece of code.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::{BinOp, Expr, ReturnType, Stmt};

/// The bytes of `node` in its file.
pub(super) fn bytes(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// `text` in one line.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// The last part of a path that is called or named.
pub(super) fn last_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
}

/// Whether `stmt` does something that can be left out.
pub(super) fn is_droppable(stmt: &Stmt) -> bool {
    let Stmt::Expr(expr, Some(_)) = stmt else {
        return false;
    };
    match expr {
        Expr::Call(e) => e.attrs.is_empty(),
        Expr::MethodCall(e) => e.attrs.is_empty(),
        Expr::Assign(e) => e.attrs.is_empty(),
        Expr::Try(e) => e.attrs.is_empty(),
        Expr::Return(e) => e.attrs.is_empty(),
        Expr::Unsafe(e) => e.attrs.is_empty(),
        Expr::Break(e) => e.attrs.is_empty(),
        Expr::Continue(e) => e.attrs.is_empty(),
        Expr::Binary(e) => e.attrs.is_empty() && is_assignment(&e.op),
        _ => false,
    }
}

/// Whether `stmt` is a call and nothing else.
pub(super) fn is_call(stmt: &Stmt) -> bool {
    let Stmt::Expr(expr, Some(_)) = stmt else {
        return false;
    };
    let expr = match expr {
        Expr::Try(e) => &*e.expr,
        other => other,
    };
    matches!(expr, Expr::Call(_) | Expr::MethodCall(_) | Expr::Unsafe(_)) && is_droppable(stmt)
}

pub(super) fn is_assignment(op: &BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::BitXorAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_)
    )
}

pub(super) fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && matches!(&attr.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// What a function of this type can return without having done anything.
pub(super) fn constants(output: &ReturnType) -> Vec<&'static str> {
    let ReturnType::Type(_, ty) = output else {
        return vec![""];
    };
    let syn::Type::Path(path) = &**ty else {
        return Vec::new();
    };
    let Some(last) = path.path.segments.last() else {
        return Vec::new();
    };
    match last.ident.to_string().as_str() {
        "bool" => vec!["false", "true"],
        "Option" => vec!["None"],
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => vec!["0"],
        "Result" => match &last.arguments {
            syn::PathArguments::None => vec!["Ok(())"],
            syn::PathArguments::AngleBracketed(list) => match list.args.first() {
                Some(syn::GenericArgument::Type(syn::Type::Tuple(t))) if t.elems.is_empty() => {
                    vec!["Ok(())"]
                }
                Some(syn::GenericArgument::Type(syn::Type::Path(p))) if p.path.is_ident("bool") => {
                    vec!["Ok(false)", "Ok(true)"]
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether `let` is a part of the condition `e`.
pub(super) fn contains_let(e: &Expr) -> bool {
    match e {
        Expr::Let(_) => true,
        Expr::Binary(b) => contains_let(&b.left) || contains_let(&b.right),
        Expr::Paren(p) => contains_let(&p.expr),
        _ => false,
    }
}
