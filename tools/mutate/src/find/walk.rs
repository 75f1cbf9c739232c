// SPDX-License-Identifier: GPL-2.0

//! The walk over a file: which mutations there are where, and what is left alone.

use syn::visit::{self, Visit};
use syn::{Block, Expr, ExprLit, Pat, RangeLimits};

use super::syntax::{bytes, is_test, last_of, one_line};
use super::Finder;
use crate::mutation::Kind;

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if !is_test(&node.attrs) {
            visit::visit_item_mod(self, node);
        }
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        let mut name = one_line(self.text(&bytes(&*node.self_ty)));
        if let Some(end) = name.find('<') {
            name.truncate(end);
        }
        if let Some((_, path, _)) = &node.trait_ {
            if let Some(last) = path.segments.last() {
                name = format!("<{name} as {}>", last.ident);
            }
        }
        self.path.push(name);
        visit::visit_item_impl(self, node);
        self.path.pop();
    }

    fn visit_item_trait(&mut self, node: &'ast syn::ItemTrait) {
        self.path.push(node.ident.to_string());
        visit::visit_item_trait(self, node);
        self.path.pop();
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block, &node.attrs);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block, &node.attrs);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.function(&node.sig, block, &node.attrs);
        }
    }

    fn visit_block(&mut self, node: &'ast Block) {
        self.statements(node);
        visit::visit_block(self, node);
    }

    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        self.condition(&node.cond, true);
        if let Expr::Let(cond) = &*node.cond {
            self.call(Kind::Never, &bytes(&*cond.expr), "none", "None");
        }
        visit::visit_expr_if(self, node);
    }

    fn visit_expr_while(&mut self, node: &'ast syn::ExprWhile) {
        // The opposite would not end.
        self.condition(&node.cond, false);
        if let Expr::Let(cond) = &*node.cond {
            self.call(Kind::Never, &bytes(&*cond.expr), "none", "None");
        }
        self.tail(&node.body);
        visit::visit_expr_while(self, node);
    }

    fn visit_expr_for_loop(&mut self, node: &'ast syn::ExprForLoop) {
        self.tail(&node.body);
        visit::visit_expr_for_loop(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        if let Some((_, guard)) = &node.guard {
            self.condition(guard, true);
        }
        visit::visit_arm(self, node);
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        self.binary(node);
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_lit(&mut self, node: &'ast ExprLit) {
        self.literal(node);
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        self.method(node);
        visit::visit_expr_method_call(self, node);
    }

    fn visit_expr_call(&mut self, node: &'ast syn::ExprCall) {
        if last_of(&node.func).as_deref() == Some("Some") {
            self.call(Kind::Returned, &bytes(node), "none", "None");
        }
        visit::visit_expr_call(self, node);
    }

    fn visit_expr_range(&mut self, node: &'ast syn::ExprRange) {
        if let (Some(end), RangeLimits::HalfOpen(_) | RangeLimits::Closed(_)) =
            (&node.end, &node.limits)
        {
            let range = bytes(&**end);
            let shorter = format!("{} - 1", one_line(self.text(&range)));
            self.call(Kind::Range, &range, "down", &shorter);
        }
        visit::visit_expr_range(self, node);
    }

    fn visit_expr_try(&mut self, node: &'ast syn::ExprTry) {
        self.call(
            Kind::Forgiven,
            &bytes(&*node.expr),
            "forgive",
            "the error is ignored",
        );
        visit::visit_expr_try(self, node);
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
    }

    fn visit_local(&mut self, node: &'ast syn::Local) {
        if let Some(init) = &node.init {
            self.visit_expr(&init.expr);
            if let Some((_, diverge)) = &init.diverge {
                self.visit_expr(diverge);
            }
        }
    }

    // What is not evaluated at run time.
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_path(&mut self, _: &'ast syn::Path) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}
    fn visit_angle_bracketed_generic_arguments(
        &mut self,
        _: &'ast syn::AngleBracketedGenericArguments,
    ) {
    }
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_item_struct(&mut self, _: &'ast syn::ItemStruct) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
