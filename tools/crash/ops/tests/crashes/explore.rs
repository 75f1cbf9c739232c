// SPDX-License-Identifier: GPL-2.0

//! Recording a workload on the volume, and judging its crashes.

use std::io::{self, Write};

use rdax_crash_ops::{recover, see, Content, Oracle, Seen, Violation, Workload};
use rdax_volume::sim::{Image, Sim, Trace};
use rdax_volume::volume::format::{Time, BLOCK};

use crate::host::Host;

/// Tells how much was done. The test harness keeps what is printed by tests that pass.
pub fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").expect("standard error");
}

/// Runs `workload`, under record from its first operation on that is not setup; `before` is called
/// with the memory and the number of each operation from that one on.
pub fn record(image: &Image, workload: &Workload, mut before: impl FnMut(&Sim, usize)) -> Trace {
    let host = Host::new(image.clone());
    for (number, op) in workload.ops.iter().enumerate() {
        if number == workload.setup {
            host.sim.record();
        }
        if number >= workload.setup {
            before(&host.sim, number);
        }
        let done = host.perform(number, op);
        assert!(done.is_ok(), "{}: {op}: {done:?}", workload.name);
        if number >= workload.setup {
            host.sim.mark(number as u64);
        }
    }
    host.sim.take_trace()
}

/// What is found on a memory on which the first `finished` operations had returned, if the oracle
/// agrees.
pub fn verdict(
    oracle: &Oracle,
    workload: &Workload,
    sim: &Sim,
    finished: usize,
) -> Result<Seen, Vec<Violation>> {
    let volume = recover(sim).map_err(|violation| vec![violation])?;
    let found = oracle.check(&volume, finished, finished < workload.ops.len());
    match found.is_empty() {
        true => Ok(see(&volume).expect("the oracle has read it")),
        false => Err(found),
    }
}

/// Makes every file on a memory larger after the crash: nothing that was beyond its end may be
/// seen.
pub fn grow(sim: &Sim) -> Result<(), String> {
    let volume = recover(sim).map_err(|violation| violation.to_string())?;
    let before = see(&volume).map_err(|e| e.to_string())?;
    for entry in before.values() {
        if let Content::File(bytes) = &entry.content {
            let grown = |mut inode| {
                let size = bytes.len() as u64 + BLOCK;
                volume.truncate(&mut inode, size, Time::default())
            };
            volume
                .iget(entry.ino)
                .and_then(grown)
                .map_err(|e| e.to_string())?;
        }
    }
    for (path, entry) in see(&volume).map_err(|e| e.to_string())? {
        if let (Content::File(old), Content::File(new)) = (&before[&path].content, &entry.content) {
            let rest = new
                .strip_prefix(&old[..])
                .ok_or(format!("{path} has changed"))?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(format!("{path} shows what was beyond its end"));
            }
        }
    }
    Ok(())
}
