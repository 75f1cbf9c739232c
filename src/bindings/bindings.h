/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's headers that src/bindings/ needs and kernel::bindings lacks, and
 * the C helpers of helpers.c. bindgen reads this with the allowlist in
 * bindgen_parameters.
 */
#ifndef RDAX_BINDINGS_H
#define RDAX_BINDINGS_H

#include <linux/dax.h>
#include <linux/libnvdimm.h>

/* Whether the CPU's caches are outside the persistence domain of @dax_dev. */
bool rdax_write_cache_enabled(struct dax_device *dax_dev);

#endif
