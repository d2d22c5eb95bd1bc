// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory: the heap of the Rust half, frames, accesses that may be refused, and who pays.
 */
#include <linux/capability.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>
#include <asm/barrier.h>
#include <asm/memory.h>
#include <asm/sysreg.h>

#include "freehold.h"

/* What was given out and did not come back yet. */
static atomic_long_t allocations, frames;

void memory_count(long *left_allocations, long *left_frames)
{
	*left_allocations = atomic_long_read(&allocations);
	*left_frames = atomic_long_read(&frames);
}

static void *allocate(size_t size, size_t align)
{
	/* What is a power of two is aligned to it (Linux, Documentation/core-api/memory-allocation.rst). */
	if (align > ARCH_KMALLOC_MINALIGN)
		size = roundup_pow_of_two(max(size, align));
	if (align > PAGE_SIZE)
		return NULL;
	might_sleep();
	/* The Rust half cannot go on without it. It asks for little, and what a user chooses the size of is bounded. */
	return kvmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
}

void *fh_allocate(size_t size, size_t align)
{
	void *pointer = allocate(size, align);

	if (pointer)
		atomic_long_inc(&allocations);
	return pointer;
}

void fh_free(void *pointer)
{
	atomic_long_dec(&allocations);
	kvfree(pointer);
}

unsigned long fh_direct_map(void)
{
	return (unsigned long)phys_to_virt(PHYS_OFFSET) - PHYS_OFFSET;
}

/*
 * Whether what the machine still has is for others. Nothing can take a guest's pages back: with the last ones given away,
 * whoever wanted one next, this module's own heap among them, would have somebody killed for it. What is kept is bounded as
 * Linux bounds what it keeps for a user (Documentation/sysctl/vm.rst, user_reserve_kbytes).
 */
static bool is_scarce(unsigned int order)
{
	unsigned long all = totalram_pages(), kept = min(all / 128, SZ_128M >> PAGE_SHIFT);
	/* What is set apart for devices (CMA) is lent to pages that can be moved away only: to none of ours, and no page table. */
	long lent = global_zone_page_state(NR_FREE_CMA_PAGES), free = global_zone_page_state(NR_FREE_PAGES);

	/* Of so much that is free, enough is available; to know what is takes longer. */
	return free - lent < (long)(all / 16) && si_mem_available() - lent < (long)(kept + (1UL << order));
}

u64 fh_pages_allocate(unsigned int order, bool zero, bool *zeroed)
{
	/* Whoever asks can live without, or tells its user: nobody is killed for it. */
	gfp_t flags = GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN | (zero ? __GFP_ZERO : 0);
	struct page *pages = is_scarce(order) ? NULL : alloc_pages(flags, order);

	if (!pages)
		return U64_MAX;
	/* Each page comes back by itself. */
	if (order)
		split_page(pages, order);
	atomic_long_add(1L << order, &frames);
	*zeroed = zero || want_init_on_alloc(flags);
	return page_to_pfn(pages);
}

void fh_pages_free(u64 pfn, unsigned int order)
{
	u64 end = pfn + (1ULL << order);

	atomic_long_sub(1L << order, &frames);
	for (; pfn < end; pfn++)
		__free_page(pfn_to_page(pfn));
}

static u8 *frame_address(u64 pfn)
{
	return page_address(pfn_to_page(pfn));
}

int fh_frame_read(u64 pfn, size_t offset, u8 *to, size_t length)
{
	return copy_from_kernel_nofault(to, frame_address(pfn) + offset, length);
}

/* Stores one value after the other, by the kernel's own store with an entry in the exception table. */
#define STORE(type, to, from, length, failed)							\
	while (length >= sizeof(type) && IS_ALIGNED((unsigned long)to, sizeof(type))) {		\
		type value;									\
		memcpy(&value, from, sizeof(type));						\
		__put_kernel_nofault(to, &value, type, failed);					\
		to += sizeof(type);								\
		from += sizeof(type);								\
		length -= sizeof(type);								\
	}

int fh_frame_write(u64 pfn, size_t offset, const u8 *from, size_t length)
{
	u8 *to = frame_address(pfn) + offset;

	while (length && !IS_ALIGNED((unsigned long)to, sizeof(u64))) {
		__put_kernel_nofault(to, from, u8, failed);
		to++;
		from++;
		length--;
	}
	STORE(u64, to, from, length, failed);
	STORE(u8, to, from, length, failed);
	return 0;
failed:
	return -EFAULT;
}

int fh_frame_zero(u64 pfn)
{
	u64 *to = (u64 *)frame_address(pfn), *end = to + PAGE_SIZE / sizeof(u64), zero = 0;

	for (; to < end; to++)
		__put_kernel_nofault(to, &zero, u64, failed);
	return 0;
failed:
	return -EFAULT;
}

void fh_frame_clean(u64 pfn)
{
	/* CTR_EL0.DminLine: the words of the smallest line, log2 (DDI 0487, D24.2). */
	unsigned long line = 4UL << ((read_sysreg(ctr_el0) >> 16) & 0xf), at = (unsigned long)frame_address(pfn);
	unsigned long end = at + PAGE_SIZE;

	for (; at < end; at += line)
		asm volatile("dc cvac, %0" : : "r" (at) : "memory");
	dsb(sy);
}

int fh_copy_from_user(u8 *to, unsigned long address, size_t length)
{
	return copy_from_user(to, (const void __user *)address, length) ? -EFAULT : 0;
}

int fh_copy_to_user(unsigned long address, const u8 *from, size_t length)
{
	return copy_to_user((void __user *)address, from, length) ? -EFAULT : 0;
}

struct mm_struct *fh_space_get(void)
{
	mmgrab(current->mm);
	return current->mm;
}

void fh_space_put(struct mm_struct *space)
{
	mmdrop(space);
}

bool fh_space_is_caller(struct mm_struct *space)
{
	return current->mm == space;
}

/*
 * Not by account_locked_vm(): that takes the lock of the address space, which a task has already whose page fault
 * allocates. What is pinned is counted without a lock.
 */
bool fh_space_lock(struct mm_struct *space, unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;

	if (atomic64_add_return(pages, &space->pinned_vm) <= limit || capable(CAP_IPC_LOCK))
		return true;
	atomic64_sub(pages, &space->pinned_vm);
	return false;
}

void fh_space_unlock(struct mm_struct *space, unsigned long pages)
{
	atomic64_sub(pages, &space->pinned_vm);
}
