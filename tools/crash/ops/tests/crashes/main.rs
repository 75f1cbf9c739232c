// SPDX-License-Identifier: GPL-2.0

//! Crashes of the volume on a simulated memory, at every fence of every workload that needs no
//! kernel: the oracle has nothing to say; and a mistake, of each kind there is, does not go
//! unnoticed.

mod enumerate;
mod explore;
mod host;
mod mistakes;
mod oracle;
