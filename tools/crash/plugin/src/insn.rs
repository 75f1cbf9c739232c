// SPDX-License-Identifier: GPL-2.0

//! What an instruction means for persistent memory.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use pmem_crash_model::trace::Through;

/// First and last bytes of a mark: a long no-op that nobody else writes. Between them is a byte
/// that is the program's own; its two numbers are in rdi and rsi.
const MARK: ([u8; 3], [u8; 3]) = ([0x0f, 0x1f, 0x80], *b"KMP");

/// What the plugin has to watch an instruction for.
pub enum Role {
    /// Its stores, if it has any.
    Store(Through),
    /// It writes back the line of its operand.
    WriteBack(Operand),
    Fence,
    Mark,
}

/// An operand in memory, as registers and numbers.
#[derive(Debug)]
pub struct Operand(Instruction);

impl Operand {
    /// Its virtual address, with the value of each register from `read`.
    pub fn address(&self, mut read: impl FnMut(Register) -> Option<u64>) -> Option<u64> {
        self.0
            .virtual_address(0, 0, |register, _, _| match register {
                // Of the segments only these two have a base of their own in long mode.
                Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
                register => read(register),
            })
    }
}

/// The role of the instruction with these `bytes` at address `ip`.
pub fn role(bytes: &[u8], ip: u64) -> Role {
    if bytes.len() == 7 && bytes[..3] == MARK.0 && bytes[4..] == MARK.1 {
        return Role::Mark;
    }
    let insn = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
    match insn.mnemonic() {
        Mnemonic::Clwb | Mnemonic::Clflushopt | Mnemonic::Clflush => Role::WriteBack(Operand(insn)),
        Mnemonic::Sfence | Mnemonic::Mfence => Role::Fence,
        Mnemonic::Movnti
        | Mnemonic::Movntq
        | Mnemonic::Movntdq
        | Mnemonic::Movntps
        | Mnemonic::Movntpd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Maskmovq
        | Mnemonic::Maskmovdqu
        | Mnemonic::Vmaskmovdqu => Role::Store(Through::Past),
        // Exchanging with memory locks without saying so.
        Mnemonic::Xchg if insn.op0_kind() == OpKind::Memory => Role::Store(Through::Locked),
        _ if insn.has_lock_prefix() => Role::Store(Through::Locked),
        _ => Role::Store(Through::Cache),
    }
}
