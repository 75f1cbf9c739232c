// SPDX-License-Identifier: GPL-2.0

//! Child processes, and what a process or thread may ask for itself.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use rustix::process::{kill_process, waitpid, Pid, Signal, WaitOptions, WaitStatus};

use crate::{check, of, Map, Result};

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a status.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

/// A child process; to be waited for.
pub struct Child(Pid);

impl Child {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<End> {
        loop {
            if let Some(end) = self.wait_with(WaitOptions::empty())? {
                return Ok(end);
            }
        }
    }

    /// How it has ended; `None` if it still runs.
    pub fn try_wait(&self) -> Result<Option<End>> {
        self.wait_with(WaitOptions::NOHANG)
    }

    fn wait_with(&self, options: WaitOptions) -> Result<Option<End>> {
        let waited = waitpid(Some(self.0), options).map_err(of("waitpid"))?;
        Ok(waited.and_then(|(_, status)| end(status)))
    }

    /// Kills it.
    pub fn kill(&self) -> Result<()> {
        kill_process(self.0, Signal::KILL).map_err(of("kill"))
    }
}

fn end(status: WaitStatus) -> Option<End> {
    let exit = status.exit_status().map(End::Exit);
    exit.or(status.terminating_signal().map(End::Signal))
}

/// Runs `body` in a child process, which ends with its result as exit status; 101 if it panics.
/// With other threads in the parent `body` must not allocate or take locks.
pub fn fork(body: impl FnOnce() -> i32) -> Result<Child> {
    // SAFETY: the child runs `body` and leaves by _exit, without unwinding into the parent's
    // frames or running its exit handlers.
    let pid = check("fork", unsafe { libc::fork() })?;
    match Pid::from_raw(pid) {
        Some(pid) => Ok(Child(pid)),
        None => {
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) }
        }
    }
}

/// A child process that this one traces. It is stopped until it is killed, when this is dropped.
pub struct Stopped(Child);

impl Stopped {
    /// One that stops after `work`.
    pub fn after(work: impl FnOnce()) -> Result<Stopped> {
        let child = fork(|| {
            work();
            // SAFETY: lets the parent write to this process, which does nothing but stop.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
            }
            0
        })?;
        waitpid(Some(child.0), WaitOptions::UNTRACED).map_err(of("waitpid"))?;
        Ok(Stopped(child))
    }

    /// Stores `word` by ptrace at `at` of `map`, which the child has inherited.
    pub fn poke(&self, map: &Map, at: usize, word: u64) -> Result<()> {
        let (pid, at) = (self.0.pid(), map.at(at, 8));
        // SAFETY: the child is stopped, and has the mapping at the same address.
        let status = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, pid, at, word) };
        check("PTRACE_POKEDATA", status as libc::c_int)?;
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait_with(WaitOptions::empty());
    }
}

/// Whose [`faults`].
#[derive(Clone, Copy)]
pub enum Whose {
    /// Of this process.
    Own = libc::RUSAGE_SELF as isize,
    /// Of this thread.
    Thread = libc::RUSAGE_THREAD as isize,
    /// Of the children that were waited for.
    Children = libc::RUSAGE_CHILDREN as isize,
}

/// Page faults so far.
pub fn faults(whose: Whose) -> u64 {
    // SAFETY: an all-zero rusage is valid and is filled in.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(whose as libc::c_int, &mut usage);
        usage
    };
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// Has the kernel end this process by SIGALRM after so many seconds.
pub fn alarm(seconds: u32) {
    // SAFETY: a plain system call.
    unsafe { libc::alarm(seconds) };
}

/// Interrupts system calls of this process that wait, again and again, by a signal (SIGALRM).
pub fn interrupt_every(period: Duration) -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let every = libc::timeval {
        tv_sec: period.as_secs() as i64,
        tv_usec: period.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: an all-zero sigaction is a valid value of the type, and the handler does nothing.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        check(
            "sigaction",
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()),
        )?;
        let which = libc::ITIMER_REAL;
        check(
            "setitimer",
            libc::setitimer(which, &timer, std::ptr::null_mut()),
        )?;
    }
    Ok(())
}

/// The calling thread runs when no other wants to (SCHED_IDLE).
pub fn run_when_idle() -> Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: a plain system call, for this thread.
    let status = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &none) };
    check("sched_setscheduler", status)?;
    Ok(())
}
