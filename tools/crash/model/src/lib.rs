// SPDX-License-Identifier: GPL-2.0

//! What a machine did to its persistent memory, and in which states a crash may have left it.
//!
//! [`trace`] is the recording: the plugin for QEMU writes it, the explorer reads it. [`media`] is
//! the model of the CPU cache that a recording is replayed on. [`states`] picks, at one moment of
//! the replay, the states to look at. Nothing here knows a file system.
//!
//! The model: a store is durable once its line was written back, or it went past the cache, and a
//! fence followed. Until then the line may reach the media at any moment (the cache may evict it)
//! or be lost. Lines are independent of each other; the stores to one line are in order, so what a
//! crash leaves of them is a prefix. Eight aligned bytes are never torn: longer stores are cut up.
//! A locked instruction is no fence here: code that needs a fence must issue one.

#![forbid(unsafe_code)]

pub mod media;
pub mod states;
pub mod trace;
