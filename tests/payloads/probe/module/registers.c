// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Hypercalls and SMCs with every register that the convention names (Arm DEN0028): x0 to x17 in, x0 to x17 out.
 */
#include <linux/errno.h>
#include <asm/virt.h>

#include "probe.h"

#define CALL(instruction, x)										\
	asm volatile("ldp x0, x1, [%0]\n"								\
		     "ldp x2, x3, [%0, #16]\n"								\
		     "ldp x4, x5, [%0, #32]\n"								\
		     "ldp x6, x7, [%0, #48]\n"								\
		     "ldp x8, x9, [%0, #64]\n"								\
		     "ldp x10, x11, [%0, #80]\n"							\
		     "ldp x12, x13, [%0, #96]\n"							\
		     "ldp x14, x15, [%0, #112]\n"							\
		     "ldp x16, x17, [%0, #128]\n"							\
		     instruction " #0\n"								\
		     "stp x0, x1, [%0]\n"								\
		     "stp x2, x3, [%0, #16]\n"								\
		     "stp x4, x5, [%0, #32]\n"								\
		     "stp x6, x7, [%0, #48]\n"								\
		     "stp x8, x9, [%0, #64]\n"								\
		     "stp x10, x11, [%0, #80]\n"							\
		     "stp x12, x13, [%0, #96]\n"							\
		     "stp x14, x15, [%0, #112]\n"							\
		     "stp x16, x17, [%0, #128]\n"							\
		     : : "r" (x)									\
		     : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",	\
		       "x14", "x15", "x16", "x17", "cc", "memory")

int registers_call(struct fhp_call *call)
{
	switch (call->conduit) {
	case FHP_CONDUIT_HVC:
		/* A kernel that runs at EL2 would take the call itself, and has no answer to it. */
		if (is_kernel_in_hyp_mode())
			return -EOPNOTSUPP;
		CALL("hvc", call->x);
		return 0;
	case FHP_CONDUIT_SMC:
		CALL("smc", call->x);
		return 0;
	default:
		return -EINVAL;
	}
}
