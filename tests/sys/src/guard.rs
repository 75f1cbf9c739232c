// SPDX-License-Identifier: GPL-2.0

//! Loads and stores to mapped memory that may fault for good: past the end of a file, with no
//! space left, behind a revoked protection.
//!
//! One routine in assembly does these accesses. SIGBUS and SIGSEGV inside it end it with the signal
//! as its result; anywhere else they kill the process as they would have.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the guarded copy is written for x86-64");

/// Why an access to mapped memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGBUS: past the end of the file, no space for the page, or a media error.
    Bus,
    /// SIGSEGV: the protection of the mapping forbids it.
    Segv,
}

std::arch::global_asm!(
    ".globl rdax_test_copy",
    ".globl rdax_test_copy_end",
    "rdax_test_copy:",
    "xor eax, eax",
    "test rdx, rdx",
    "jz 3f",
    "2:",
    "mov rcx, qword ptr [rsi]",
    "mov qword ptr [rdi], rcx",
    "add rsi, 8",
    "add rdi, 8",
    "dec rdx",
    "jnz 2b",
    "3:",
    "rdax_test_copy_end:",
    "ret",
);

extern "C" {
    /// Copies `words` times 8 bytes upwards. 0, or the signal that a load or store ended in.
    fn rdax_test_copy(to: *mut u8, from: *const u8, words: usize) -> libc::c_int;
    /// The final `ret` of [`rdax_test_copy`]. Never called.
    fn rdax_test_copy_end();
}

extern "C" fn on_fault(
    signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid ucontext_t to a handler installed with SA_SIGINFO, and it
    // is ours until the handler returns.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = registers[libc::REG_RIP as usize] as usize;
    let end = rdax_test_copy_end as *const () as usize;
    if (rdax_test_copy as *const () as usize..end).contains(&at) {
        registers[libc::REG_RAX as usize] = i64::from(signal);
        registers[libc::REG_RIP as usize] = end as i64;
    } else {
        // SAFETY: restoring the default action is async-signal-safe; the access is then repeated
        // and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Installs the handlers, without which a fault in a guarded access kills as any other does. To be
/// called once.
pub fn catch_faults() {
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // SAFETY: an all-zero sigaction is a valid value of the type, its fields are set as
        // sigaction(2) asks, and the handler touches nothing but its arguments.
        let status = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        assert_eq!(status, 0, "sigaction: {}", std::io::Error::last_os_error());
    }
}

/// Copies `len` bytes, a multiple of 8, in words of 8 bytes.
///
/// # Safety
/// Both sides must be private memory of the caller's that is valid for `len` bytes, or lie within
/// a mapping that stays reserved during the call (it need not be accessible). They must not
/// overlap.
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
    assert_eq!(len % 8, 0);
    // SAFETY: the caller vouches for the ranges; a fault in them ends the routine early.
    match unsafe { rdax_test_copy(to, from, len / 8) } {
        0 => Ok(()),
        libc::SIGBUS => Err(Fault::Bus),
        _ => Err(Fault::Segv),
    }
}
