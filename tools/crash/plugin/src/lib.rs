// SPDX-License-Identifier: GPL-2.0

//! A plugin for QEMU that records what a guest does to its persistent memory: each store with its
//! value, each line written back, each fence, and marks of the guest's programs, in order, to a
//! file that `pmem_crash_model::trace` describes.
//!
//!     qemu-system-x86_64 -plugin libpmem_crash_plugin.so,start=0x100000000,len=33554432,out=FILE
//!     ...
//!
//! `start` and `len` are the physical range to watch. A mark of kind 5 ends the recording and QEMU.
//! Needs one processor, 64-bit Linux with `nokaslr`, and no device that writes to the range; replay
//! the recording on the first content and compare it with the last to see that nothing was missed.

mod insn;
mod qemu;
mod walk;

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::fs::File;
use std::io::BufWriter;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use iced_x86::Register;
use insn::{Operand, Role};
use pmem_crash_model::trace::{Event, Through, Writer, STORE_MAX};
use qemu::{Block, Id, MemInfo};

/// Bytes of a page: what one translation is good for.
const PAGE: u64 = 4096;
/// The mark that ends the recording.
const MARK_END: u64 = 5;
/// Longest instruction.
const INSN_MAX: usize = 15;

#[no_mangle]
pub static qemu_plugin_version: c_int = qemu::VERSION;

/// What the command line of QEMU asked for.
struct Config {
    start: u64,
    len: u64,
    writer: Mutex<Writer<BufWriter<File>>>,
}

static CONFIG: OnceLock<Config> = OnceLock::new();
/// Name and handle (an address of QEMU's) of each register.
static REGISTERS: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

/// Ends QEMU: what a plugin cannot do makes the recording worthless.
fn die(what: &str) -> ! {
    eprintln!("pmem-crash-plugin: {what}");
    exit(1)
}

fn exit(status: c_int) -> ! {
    // SAFETY: ends the process at once. QEMU's own ways out are not for the thread of a processor;
    // the guest's memory that matters is a mapped file, which outlives the process.
    unsafe { libc::_exit(status) }
}

fn config() -> &'static Config {
    CONFIG
        .get()
        .unwrap_or_else(|| die("called before it was installed"))
}

fn registers() -> MutexGuard<'static, Vec<(String, usize)>> {
    REGISTERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(event: &Event) {
    let mut writer = config()
        .writer
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Err(e) = writer.push(event) {
        die(&format!("cannot write the recording: {e}"));
    }
}

/// The place of physical address `at` in what is watched.
fn watched(at: u64) -> Option<u64> {
    let config = config();
    let offset = at.wrapping_sub(config.start);
    (offset < config.len).then_some(offset)
}

fn register(name: &str) -> Option<u64> {
    let handle = registers()
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, handle)| *handle);
    qemu::read_register(handle? as *mut qemu::Register)
}

/// The value of a register that an operand in memory can name.
fn operand_register(which: Register) -> Option<u64> {
    match which {
        Register::None => Some(0),
        Register::FS => register("fs_base"),
        Register::GS => register("gs_base"),
        _ => register(&format!("{which:?}").to_lowercase()),
    }
}

extern "C" fn cpu_made(_id: Id, index: c_uint) {
    if index > 0 {
        die("a recording needs a machine with one processor");
    }
    let mut known = registers();
    qemu::each_register(|name, handle| known.push((name.to_owned(), handle as usize)));
}

extern "C" fn stored(_cpu: c_uint, info: MemInfo, vaddr: u64, through: *mut c_void) {
    // The kernel reaches the memory through its direct map only.
    let kernel = vaddr >> 63 != 0;
    if kernel && walk::direct(vaddr).and_then(watched).is_none() {
        return;
    }
    let (bytes, len) = qemu::stored(info);
    let through = match through as usize {
        0 => Through::Cache,
        1 => Through::Past,
        _ => Through::Locked,
    };
    let mut done = 0;
    while done < len {
        let part = vaddr + done as u64;
        let n = ((PAGE - part % PAGE) as usize).min(len - done);
        if let Some(at) = qemu::physical(info, part).and_then(watched) {
            let mut value = [0; STORE_MAX];
            value[..n].copy_from_slice(&bytes[done..done + n]);
            record(&Event::Store {
                at,
                len: n as u8,
                value,
                through,
            });
        }
        done += n;
    }
}

extern "C" fn written_back(_cpu: c_uint, operand: *mut c_void) {
    // SAFETY: the pointer is the operand that `translated` leaked for this instruction.
    let operand = unsafe { &*operand.cast::<Operand>() };
    let Some(vaddr) = operand.address(operand_register) else {
        die(&format!("cannot read the registers of {operand:?}"));
    };
    let at = walk::direct(vaddr).or_else(|| {
        let (Some(cr3), Some(cr4)) = (register("cr3"), register("cr4")) else {
            die("QEMU has no registers cr3 and cr4");
        };
        walk::walk(vaddr, cr3, cr4)
    });
    if let Some(at) = at.and_then(watched) {
        record(&Event::WriteBack { at });
    }
}

extern "C" fn fenced(_cpu: c_uint, _: *mut c_void) {
    record(&Event::Fence);
}

extern "C" fn marked(_cpu: c_uint, _: *mut c_void) {
    let (Some(kind), Some(number)) = (register("rdi"), register("rsi")) else {
        die("QEMU has no registers rdi and rsi");
    };
    record(&Event::Mark { kind, number });
    if kind == MARK_END {
        let mut writer = config()
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = writer.finish() {
            die(&format!("cannot write the recording: {e}"));
        }
        exit(0);
    }
}

extern "C" fn translated(_id: Id, block: *mut Block) {
    // SAFETY: QEMU passes a block that lives as long as this call, and so do its instructions. At
    // most as many bytes are copied as the buffer has.
    unsafe {
        for i in 0..qemu::qemu_plugin_tb_n_insns(block) {
            let insn = qemu::qemu_plugin_tb_get_insn(block, i);
            let mut bytes = [0_u8; INSN_MAX];
            let len = qemu::qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), INSN_MAX);
            match insn::role(&bytes[..len], qemu::qemu_plugin_insn_vaddr(insn)) {
                Role::Store(through) => qemu::qemu_plugin_register_vcpu_mem_cb(
                    insn,
                    stored,
                    qemu::NO_REGS,
                    qemu::MEM_WRITE,
                    through as usize as *mut c_void,
                ),
                Role::WriteBack(operand) => executed(
                    insn,
                    written_back,
                    // The translation may be used until QEMU ends, and few there are.
                    Box::into_raw(Box::new(operand)).cast(),
                ),
                Role::Fence => executed(insn, fenced, std::ptr::null_mut()),
                Role::Mark => executed(insn, marked, std::ptr::null_mut()),
            }
        }
    }
}

/// Has `callback` called whenever `insn` is executed.
///
/// # Safety
///
/// `insn` is of the block under translation, and `callback` may be given `data`.
unsafe fn executed(insn: *mut qemu::Insn, callback: qemu::InsnCallback, data: *mut c_void) {
    // SAFETY: as the caller promises.
    unsafe {
        qemu::qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, qemu::READ_REGS, data);
    }
}

/// The value of argument `name` among `arguments`, each of which is NAME=VALUE.
fn argument<'a>(arguments: &'a [String], name: &str) -> Result<&'a str, String> {
    let values = arguments.iter().filter_map(|a| a.split_once('='));
    let mut values = values.filter(|(n, _)| *n == name);
    let found = values.next().ok_or_else(|| format!("{name}= is missing"))?;
    Ok(found.1)
}

fn number(arguments: &[String], name: &str) -> Result<u64, String> {
    let text = argument(arguments, name)?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{name}={text} is no number"))
}

fn configure(arguments: &[String]) -> Result<Config, String> {
    let (start, len) = (number(arguments, "start")?, number(arguments, "len")?);
    let out = argument(arguments, "out")?;
    let writer = File::create(out)
        .and_then(|file| Writer::new(BufWriter::with_capacity(1 << 20, file), len))
        .map_err(|e| format!("{out}: {e}"))?;
    Ok(Config {
        start,
        len,
        writer: Mutex::new(writer),
    })
}

/// What QEMU calls first.
///
/// # Safety
///
/// Called by QEMU, with `argc` strings in `argv`.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments: Vec<String> = (0..argc.max(0) as usize)
        // SAFETY: the caller promises that these strings are there.
        .map(|i| unsafe { CStr::from_ptr(*argv.add(i)) })
        .map(|s| s.to_string_lossy().into_owned())
        .collect();
    let set = configure(&arguments)
        .and_then(|config| CONFIG.set(config).map_err(|_| "loaded twice".to_owned()));
    if let Err(e) = set {
        die(&e);
    }
    // SAFETY: the callbacks have the types that QEMU calls them with, and live for ever.
    unsafe {
        qemu::qemu_plugin_register_vcpu_init_cb(id, cpu_made);
        qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    }
    0
}
