// SPDX-License-Identifier: GPL-2.0

//! The part of QEMU's plugin interface (version 4, `qemu-plugin.h`) that the plugin uses.
//!
//! Declared here because the crates that have it need a newer compiler than the module's.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};

pub type Id = u64;
/// An access to memory, in QEMU's own coding.
pub type MemInfo = u32;

/// A block of instructions under translation.
pub enum Block {}
/// One of its instructions.
pub enum Insn {}
/// A register of the processor.
pub enum Register {}
enum HwAddr {}

/// The version of the interface.
pub const VERSION: c_int = 4;
/// A callback does not look at registers.
pub const NO_REGS: c_int = 0;
/// A callback reads registers.
pub const READ_REGS: c_int = 1;
/// A callback is for stores.
pub const MEM_WRITE: c_int = 2;

#[repr(C)]
struct ByteArray {
    data: *mut u8,
    len: c_uint,
}

#[repr(C)]
struct Array {
    data: *mut c_char,
    len: c_uint,
}

#[repr(C)]
struct RegisterDescriptor {
    handle: *mut Register,
    name: *const c_char,
    feature: *const c_char,
}

#[repr(C)]
struct MemValue {
    kind: c_int,
    // A union in C, of numbers of 1 to 16 bytes that all begin here.
    data: [u64; 2],
}

type BlockCallback = extern "C" fn(Id, *mut Block);
type CpuCallback = extern "C" fn(Id, c_uint);
pub type InsnCallback = extern "C" fn(c_uint, *mut c_void);
pub type MemCallback = extern "C" fn(c_uint, MemInfo, u64, *mut c_void);

extern "C" {
    pub fn qemu_plugin_register_vcpu_init_cb(id: Id, cb: CpuCallback);
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, cb: BlockCallback);
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        cb: InsnCallback,
        flags: c_int,
        userdata: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        cb: MemCallback,
        flags: c_int,
        rw: c_int,
        userdata: *mut c_void,
    );
    pub fn qemu_plugin_tb_n_insns(tb: *const Block) -> usize;
    pub fn qemu_plugin_tb_get_insn(tb: *const Block, index: usize) -> *mut Insn;
    pub fn qemu_plugin_insn_data(insn: *const Insn, dest: *mut c_void, len: usize) -> usize;
    pub fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    fn qemu_plugin_mem_size_shift(info: MemInfo) -> c_uint;
    fn qemu_plugin_mem_is_big_endian(info: MemInfo) -> bool;
    fn qemu_plugin_mem_get_value(info: MemInfo) -> MemValue;
    fn qemu_plugin_get_hwaddr(info: MemInfo, vaddr: u64) -> *mut HwAddr;
    fn qemu_plugin_hwaddr_is_io(haddr: *const HwAddr) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(haddr: *const HwAddr) -> u64;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_memory_vaddr(addr: u64, data: *mut ByteArray, len: usize) -> bool;
    fn qemu_plugin_read_register(handle: *mut Register, buf: *mut ByteArray) -> c_int;
    // Of GLib, which QEMU has loaded.
    fn g_byte_array_new() -> *mut ByteArray;
    fn g_byte_array_set_size(array: *mut ByteArray, len: c_uint) -> *mut ByteArray;
    fn g_byte_array_free(array: *mut ByteArray, free_segment: c_int) -> *mut u8;
    fn g_array_free(array: *mut Array, free_segment: c_int) -> *mut c_char;
}

/// The first eight bytes, as a number, of what `fill` puts into a new array of bytes.
fn number_from(fill: impl FnOnce(*mut ByteArray) -> bool) -> Option<u64> {
    // SAFETY: GLib's array, used as GLib says, and freed once, at the end. It is never null: GLib
    // aborts when there is no memory. `data` holds `len` bytes.
    unsafe {
        let array = g_byte_array_set_size(g_byte_array_new(), 0);
        let number = fill(array).then(|| {
            let len = ((*array).len as usize).min(8);
            let mut word = [0; 8];
            if len > 0 {
                word[..len].copy_from_slice(std::slice::from_raw_parts((*array).data, len));
            }
            u64::from_le_bytes(word)
        });
        g_byte_array_free(array, 1);
        number
    }
}

/// The value of a register. Only in callbacks that were registered with [`READ_REGS`].
pub fn read_register(register: *mut Register) -> Option<u64> {
    // SAFETY: the handle is one of those that QEMU listed, which live as long as the processor.
    number_from(|array| unsafe { qemu_plugin_read_register(register, array) } > 0)
}

/// The eight bytes of the guest's memory at the virtual address `at`.
pub fn read_memory(at: u64) -> Option<u64> {
    // SAFETY: QEMU refuses an address that is not mapped.
    number_from(|array| unsafe { qemu_plugin_read_memory_vaddr(at, array, 8) })
}

/// Calls `f` with name and handle of each register. Only when a processor is being made.
pub fn each_register(mut f: impl FnMut(&str, *mut Register)) {
    // SAFETY: QEMU returns an array of `len` descriptors whose names are strings that live as long
    // as the processor; the caller frees the array.
    unsafe {
        let array = qemu_plugin_get_registers();
        let descriptors = (*array).data.cast::<RegisterDescriptor>();
        for i in 0..(*array).len as usize {
            let descriptor = &*descriptors.add(i);
            if let Ok(name) = CStr::from_ptr(descriptor.name).to_str() {
                f(name, descriptor.handle);
            }
        }
        g_array_free(array, 1);
    }
}

/// The store that a callback was called for: its bytes, and how many.
pub fn stored(info: MemInfo) -> ([u8; 16], usize) {
    // SAFETY: `info` is the one that QEMU passed to the callback that is running. All of the union
    // is initialised: QEMU returns it by value from a zeroed or fully written variable, and what
    // lies beyond the size is not used.
    let (value, shift, swapped) = unsafe {
        (
            qemu_plugin_mem_get_value(info),
            qemu_plugin_mem_size_shift(info),
            qemu_plugin_mem_is_big_endian(info),
        )
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&value.data[0].to_le_bytes());
    bytes[8..].copy_from_slice(&value.data[1].to_le_bytes());
    let len = 1_usize << shift.min(4);
    if swapped {
        bytes[..len].reverse();
    }
    (bytes, len)
}

/// The physical address behind `vaddr`, which the access `info` touches, if that is memory. Only in
/// the callback for that access.
pub fn physical(info: MemInfo, vaddr: u64) -> Option<u64> {
    // SAFETY: `info` is the one that QEMU passed to the callback that is running; the handle is
    // used within it, and checked for null.
    unsafe {
        let handle = qemu_plugin_get_hwaddr(info, vaddr);
        if handle.is_null() || qemu_plugin_hwaddr_is_io(handle) {
            return None;
        }
        Some(qemu_plugin_hwaddr_phys_addr(handle))
    }
}
