// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Jumps at EL1: an instruction fetch from any physical page, and any instruction that the caller makes up (a system
 * register by its encoding, a cache or TLB instruction). What is undefined there is an oops of the calling task.
 */
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <asm/cacheflush.h>

#include "probe.h"

/* Calls @function with x0 to x7 from @x and leaves there what it returned. */
static void jump(const void *function, u64 *x)
{
	asm volatile("ldp x0, x1, [%[x]]\n"
		     "ldp x2, x3, [%[x], #16]\n"
		     "ldp x4, x5, [%[x], #32]\n"
		     "ldp x6, x7, [%[x], #48]\n"
		     "blr %[f]\n"
		     "stp x0, x1, [%[x]]\n"
		     "stp x2, x3, [%[x], #16]\n"
		     "stp x4, x5, [%[x], #32]\n"
		     "stp x6, x7, [%[x], #48]\n"
		     : : [x] "r" (x), [f] "r" (function)
		     : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",
		       "x15", "x16", "x17", "x30", "cc", "memory");
}

static int run_at(struct fhp_run *run, phys_addr_t address)
{
	unsigned int offset = offset_in_page(address);
	size_t length = run->words * sizeof(run->code[0]);
	struct window window;
	void *place;
	int result;

	if (offset + max(length, sizeof(run->code[0])) > PAGE_SIZE || !IS_ALIGNED(offset, sizeof(run->code[0])))
		return -EINVAL;
	result = window_open(&window, address - offset, 1, PAGE_KERNEL_EXEC);
	if (result)
		return result;
	place = window.start + offset;
	if (length) {
		memcpy(place, run->code, length);
		caches_clean_inval_pou((unsigned long)place, (unsigned long)place + length);
	}
	jump(place, run->x);
	window_close(&window);
	return 0;
}

int run_do(struct fhp_run *run)
{
	struct page *page;
	int result;

	if (run->words > FHP_RUN_WORDS)
		return -EINVAL;
	if (run->address != FHP_RUN_OWN_PAGE)
		return run_at(run, run->address);
	if (!run->words)
		return -EINVAL;

	page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	result = run_at(run, page_to_phys(page));
	__free_page(page);
	return result;
}
