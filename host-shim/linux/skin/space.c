// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The address space of a process, as the guests have it to whom it lends pages: its pages are looked up as the process
 * itself would reach them, and whatever takes them from it is told before.
 */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched.h>
#include <linux/swap.h>

#include "freehold.h"

struct watch {
	struct mmu_notifier notifier;
	void *watcher;
};

int fh_user_page_get(unsigned long address, bool write, struct page **page, u64 *pfn, bool *writable)
{
	unsigned int flags = FOLL_HWPOISON | (write ? FOLL_WRITE : 0);
	long found;

	/* One that may be written to now is not to be a fault again. */
	*writable = get_user_pages_fast_only(address, 1, FOLL_WRITE, page) == 1;
	if (!*writable) {
		found = get_user_pages_unlocked(address, 1, page, flags);
		if (found != 1)
			return found < 0 ? found : -EFAULT;
		*writable = write;
	}
	*pfn = page_to_pfn(*page);
	return 0;
}

void fh_user_page_set_dirty(struct page *page)
{
	SetPageDirty(page);
}

void fh_user_page_put(struct page *page)
{
	mark_page_accessed(page);
	put_page(page);
}

static void *watcher_of(struct mmu_notifier *notifier)
{
	return container_of(notifier, struct watch, notifier)->watcher;
}

static int range_start(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	fhr_watch_begin(watcher_of(notifier), range->start, range->end, mmu_notifier_range_blockable(range));
	return 0;
}

static void range_end(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	fhr_watch_end(watcher_of(notifier));
}

static int clear_flush_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long start, unsigned long end)
{
	return fhr_watch_used(watcher_of(notifier), start, end, true);
}

static int clear_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long start, unsigned long end)
{
	return fhr_watch_used(watcher_of(notifier), start, end, true);
}

static int test_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long address)
{
	return fhr_watch_used(watcher_of(notifier), address, address + PAGE_SIZE, false);
}

static void release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	fhr_watch_over(watcher_of(notifier));
}

static const struct mmu_notifier_ops operations = {
	.invalidate_range_start = range_start,
	.invalidate_range_end = range_end,
	.clear_flush_young = clear_flush_young,
	.clear_young = clear_young,
	.test_young = test_young,
	.release = release,
};

int fh_watch_create(void *watcher, struct watch **result)
{
	struct watch *watch = fh_allocate(sizeof(*watch), __alignof__(*watch));
	int error;

	memset(watch, 0, sizeof(*watch));
	watch->notifier.ops = &operations;
	watch->watcher = watcher;
	error = mmu_notifier_register(&watch->notifier, current->mm);
	if (error) {
		fh_free(watch);
		return error;
	}
	*result = watch;
	return 0;
}

void fh_watch_free(struct watch *watch)
{
	/* Nobody is in one of the functions above any more when this returns. */
	mmu_notifier_unregister(&watch->notifier, watch->notifier.mm);
	fh_free(watch);
}
