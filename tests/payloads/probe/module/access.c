// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Loads and stores at EL1, each one instruction, with an entry in the exception table ("guarded") or without ("bare").
 */
#include <linux/errno.h>
#include <linux/mm.h>
#include <asm/asm-extable.h>
#include <asm/word-at-a-time.h>

#include "probe.h"

/*
 * A guarded instruction leaves 0 in @error, or -EFAULT if the fixup was taken. A bare one leaves @error alone.
 */
#define GUARDED(instruction, register, error, value, pointer)						\
	asm volatile("1: " instruction " " register "[v], [%[p]]\n"					\
		     "2:\n"										\
		     _ASM_EXTABLE_KACCESS_ERR(1b, 2b, %w[e])						\
		     : [e] "+r" (error), [v] "+r" (value) : [p] "r" (pointer) : "memory")

#define BARE(instruction, register, error, value, pointer)						\
	asm volatile(instruction " " register "[v], [%[p]]"						\
		     : [v] "+r" (value) : [p] "r" (pointer) : "memory")

#define BY_SIZE(kind, load_or_store, size, error, value, pointer)					\
	switch (size) {											\
	case 1: kind(load_or_store "rb", "%w", error, value, pointer); break;				\
	case 2: kind(load_or_store "rh", "%w", error, value, pointer); break;				\
	case 4: kind(load_or_store "r", "%w", error, value, pointer); break;				\
	case 8: kind(load_or_store "r", "%x", error, value, pointer); break;				\
	}

static int touch(struct fhp_access *access, void *pointer)
{
	u64 value = access->store ? access->value : 0;
	int error = 0;

	if (access->padded) {
		/* Its entry in the exception table has zeros for what lies in the second page, so that none is refused. */
		access->value = load_unaligned_zeropad(pointer);
		return 0;
	}
	if (access->bare && access->store) {
		BY_SIZE(BARE, "st", access->size, error, value, pointer);
	} else if (access->bare) {
		BY_SIZE(BARE, "ld", access->size, error, value, pointer);
	} else if (access->store) {
		BY_SIZE(GUARDED, "st", access->size, error, value, pointer);
	} else {
		BY_SIZE(GUARDED, "ld", access->size, error, value, pointer);
	}
	access->value = value;
	return error;
}

/* Whether the linear map holds every byte of the access. */
static bool is_linear(const struct fhp_access *access)
{
	u64 last;

	return !check_add_overflow(access->address, (u64)access->size - 1, &last) &&
	       pfn_is_map_memory(PHYS_PFN(access->address)) && pfn_is_map_memory(PHYS_PFN(last));
}

static int touch_window(struct fhp_access *access, pgprot_t protection)
{
	unsigned int offset = offset_in_page(access->address);
	struct window window;
	int result;

	result = window_open(&window, access->address - offset, offset + access->size > PAGE_SIZE ? 2 : 1, protection);
	if (result)
		return result;
	access->refused = touch(access, window.start + offset) != 0;
	window_close(&window);
	return 0;
}

int access_do(struct fhp_access *access)
{
	if (access->size != 1 && access->size != 2 && access->size != 4 && access->size != 8)
		return -EINVAL;
	if (access->padded && (access->store || access->bare || access->size != 8))
		return -EINVAL;

	switch (access->mapping) {
	case FHP_MAPPING_AUTO:
		if (!is_linear(access))
			return touch_window(access, PAGE_KERNEL);
		fallthrough;
	case FHP_MAPPING_LINEAR:
		if (!is_linear(access))
			return -EFAULT;
		access->refused = touch(access, phys_to_virt(access->address)) != 0;
		return 0;
	case FHP_MAPPING_NORMAL:
		return touch_window(access, PAGE_KERNEL);
	case FHP_MAPPING_DEVICE:
		return touch_window(access, __pgprot(PROT_DEVICE_nGnRE));
	case FHP_MAPPING_VIRTUAL:
		access->refused = touch(access, (void *)access->address) != 0;
		return 0;
	default:
		return -EINVAL;
	}
}
