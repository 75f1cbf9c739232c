// SPDX-License-Identifier: GPL-2.0

//! Mount options, and checks that refuse a mount before the volume is read.

use core::ffi::CStr;

use kernel::error::code::*;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

use super::super_block;
use super::table::context::{Context, ContextOperations, ContextTable, Value};
use crate::bindings;
use crate::mount::object::SuperBlock;
use crate::mount::options::{Dax, OnError, Options};
use crate::mount::super_block::SbInfo;
use crate::mount::table::Table;

/// The options that a mount asks for.
#[derive(Default)]
pub struct Asked {
    on_error: Option<OnError>,
    dax: Option<Dax>,
}

impl Asked {
    /// The options `else_as`, overridden by those that are asked for.
    fn or(&self, else_as: Options) -> Options {
        Options {
            on_error: self.on_error.unwrap_or(else_as.on_error),
            dax: self.dax.unwrap_or(else_as.dax),
        }
    }
}

/// The operations of a mount being set up.
pub struct RdaxContext;

static OPERATIONS: Table<bindings::fs_context_operations> = ContextTable::<RdaxContext>::table();

/// `->init_fs_context` of the file system type.
///
/// # Safety
///
/// Called by the VFS with a new context.
pub unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> kernel::ffi::c_int {
    from_result(|| ContextTable::<RdaxContext>::init(fc.cast(), &OPERATIONS).map(|()| 0))
}

impl ContextOperations for RdaxContext {
    type Options = Asked;

    fn parse(fc: &Context, asked: &mut Asked, key: &CStr, value: Value<'_>) -> Option<Result> {
        let known = match (key.to_bytes(), value) {
            (b"source", _) => return None,
            (b"dax", Value::Flag) => {
                asked.dax = Some(Dax::Always);
                true
            }
            (b"dax", Value::String(value)) => {
                let named = [Dax::Always, Dax::Inode, Dax::Never]
                    .into_iter()
                    .find(|dax| dax.name().as_bytes() == value.to_bytes());
                asked.dax = named.or(asked.dax);
                named.is_some()
            }
            (b"errors", Value::String(value)) => {
                let named = [OnError::Continue, OnError::RemountReadOnly, OnError::Panic]
                    .into_iter()
                    .find(|on_error| on_error.name().as_bytes() == value.to_bytes());
                asked.on_error = named.or(asked.on_error);
                named.is_some()
            }
            _ => false,
        };
        if known {
            return Some(Ok(()));
        }
        fc.refuse(
            fc.source(),
            fmt!(
                "unknown mount option '{}' or value; known: dax, \
                 dax=always|inode|never, errors=continue|remount-ro|panic, ro",
                key
            ),
        );
        Some(Err(EINVAL))
    }

    fn fill_super(fc: &Context, asked: &Asked, sb: &SuperBlock) -> Result {
        super_block::fill(fc, asked.or(Options::DEFAULT), sb)
    }

    fn share(fc: &Context, asked: &Asked, sb: &SuperBlock) -> Result {
        let options = sb.info().options();
        if asked.or(options) == options {
            return Ok(());
        }
        let (dax, on_error) = (options.dax.name(), options.on_error.name());
        fc.refuse(
            sb.name(),
            fmt!(
                "mounted already with dax={dax},errors={on_error}; mount it with these in a \
                 second place, or mount -o remount changes them in both"
            ),
        );
        Err(EBUSY)
    }

    fn no_device(fc: &Context, error: Error) {
        // The VFS reports other errors before the device is opened well.
        if error == EBUSY {
            fc.refuse(
                fc.source(),
                fmt!(
                    "mounted already, read-only where this is writable or the other way round, \
                     or in use by another program; mount it alike, or unmount it first"
                ),
            );
        }
    }

    fn reconfigure(fc: &Context, asked: &Asked, sb: &SuperBlock) -> Result {
        let info: &SbInfo = sb.info();
        if fc.is_forced() {
            super_block::make_read_only(info);
            return Ok(());
        }
        info.check_alive()?;
        // SAFETY: the VFS holds the super block locked for us.
        to_result(unsafe { bindings::sync_filesystem(sb.as_raw()) })?;
        match (sb.is_read_only(), fc.leaves_read_only(sb)) {
            (true, false) => super_block::make_writable(fc, info)?,
            (false, true) => info.read_only.ask(true),
            _ => {}
        }
        info.set_options(asked.or(info.options()));
        Ok(())
    }
}
