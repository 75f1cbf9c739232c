// SPDX-License-Identifier: GPL-2.0

//! Damaged volumes, and what becomes of them.

pub mod change;
pub mod cow;
pub mod history;
pub mod place;
pub mod seal;
pub mod see;
pub mod series;
pub mod trial;
pub mod user;
