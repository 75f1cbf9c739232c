// SPDX-License-Identifier: GPL-2.0
/*
 * The parameters of the mutated module. mutate: the mistake that is made, 0 for
 * none. reached: which switches were asked, as hexadecimal digits of 4 each,
 * from the one on that was written to it last; "clear" forgets all.
 */
#include <linux/hex.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/string.h>

extern u32 rdax_mutate;
extern u8 rdax_mutate_reached[];
extern const u32 rdax_mutate_count;

#define WINDOW 16000

static u32 window;

static int reached_set(const char *value, const struct kernel_param *kp)
{
	if (sysfs_streq(value, "clear")) {
		memset(rdax_mutate_reached, 0, rdax_mutate_count);
		window = 0;
		return 0;
	}
	return kstrtou32(value, 0, &window);
}

static int reached_get(char *buffer, const struct kernel_param *kp)
{
	u32 n, bit;
	int len = 0;

	for (n = window; n < min(window + WINDOW, rdax_mutate_count); n += 4) {
		unsigned int digit = 0;

		for (bit = n; bit < min(n + 4, rdax_mutate_count); bit++)
			digit |= (rdax_mutate_reached[bit] & 1) << (bit - n);
		buffer[len++] = hex_asc[digit];
	}
	buffer[len++] = '\n';
	return len;
}

static const struct kernel_param_ops reached_ops = {
	.set = reached_set,
	.get = reached_get,
};

module_param_named(mutate, rdax_mutate, uint, 0644);
module_param_cb(reached, &reached_ops, NULL, 0644);
