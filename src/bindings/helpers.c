// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call.
 */
#include "bindings.h"

bool rdax_write_cache_enabled(struct dax_device *dax_dev)
{
	return dax_write_cache_enabled(dax_dev);
}
