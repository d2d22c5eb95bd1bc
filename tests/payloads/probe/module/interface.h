/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What /dev/freehold-probe understands. The other side is src/interface.rs; each side checks the sizes, and a
 * request number holds the size of its structure, so two sides that differ answer ENOTTY and do no harm.
 */
#ifndef FREEHOLD_PROBE_INTERFACE_H
#define FREEHOLD_PROBE_INTERFACE_H

#include <linux/build_bug.h>
#include <linux/ioctl.h>
#include <linux/types.h>

/* How the kernel reaches the address of an access. */
enum fhp_mapping {
	/* The linear map where the kernel has one of the address, else a window of normal memory. */
	FHP_MAPPING_AUTO = 0,
	/* The linear map, or -EFAULT where the kernel has none. */
	FHP_MAPPING_LINEAR = 1,
	/* A window of normal, cacheable memory. */
	FHP_MAPPING_NORMAL = 2,
	/* A window of Device-nGnRE memory. */
	FHP_MAPPING_DEVICE = 3,
	/* None: the address is a kernel virtual one. */
	FHP_MAPPING_VIRTUAL = 4,
};

/* One load or store at EL1. */
struct fhp_access {
	__u64 address;
	__u64 value;	/* What a store writes; what a load read. */
	__u32 size;	/* 1, 2, 4 or 8 bytes; need not be aligned. */
	__u32 mapping;	/* enum fhp_mapping */
	__u32 store;	/* Not zero: a store. */
	__u32 bare;	/* Not zero: no exception-table entry, so that a fault is an oops of the caller. */
	__u32 refused;	/* Answer: not zero if the exception table was used. */
	__u32 padded;	/* Not zero: a load of 8 bytes as the kernel's strings are read, see load_unaligned_zeropad(). */
};
static_assert(sizeof(struct fhp_access) == 40);

#define FHP_RUN_WORDS 8
#define FHP_RUN_OWN_PAGE (~0ULL)

/* A jump at EL1, to a function at a physical address. */
struct fhp_run {
	__u64 address;	/* Or FHP_RUN_OWN_PAGE: a fresh page of the module's own. */
	__u64 x[8];	/* Registers x0 to x7, before and after. */
	__u32 code[FHP_RUN_WORDS];
	__u32 words;	/* How many words of code to write to the address first; 0 leaves it as it is. */
	__u32 reserved;
};
static_assert(sizeof(struct fhp_run) == 112);

enum fhp_conduit {
	FHP_CONDUIT_HVC = 0,
	FHP_CONDUIT_SMC = 1,
};

/* One call of the SMC Calling Convention. */
struct fhp_call {
	__u64 x[18];	/* Registers x0 to x17, before and after. */
	__u32 conduit;	/* enum fhp_conduit */
	__u32 reserved;
};
static_assert(sizeof(struct fhp_call) == 152);

/* A run of zeroed kernel pages, naturally aligned. */
struct fhp_pages {
	__u64 base;	/* Physical address: the answer of an allocation, the question of a release. */
	__u32 order;	/* 2^order pages. */
	__u32 reserved;
};
static_assert(sizeof(struct fhp_pages) == 16);

#define FHP_ACCESS		_IOWR('F', 0x10, struct fhp_access)
#define FHP_RUN			_IOWR('F', 0x11, struct fhp_run)
#define FHP_CALL		_IOWR('F', 0x12, struct fhp_call)
#define FHP_PAGES_ALLOCATE	_IOWR('F', 0x13, struct fhp_pages)
#define FHP_PAGES_FREE		_IOWR('F', 0x14, struct fhp_pages)

/*
 * mmap: the offset is the physical address. With this bit the mapping is Device-nGnRnE memory, without it normal,
 * cacheable memory.
 */
#define FHP_MMAP_DEVICE (1ULL << 56)

#endif
