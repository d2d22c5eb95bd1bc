// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Kernel pages to play with: shared, donated, taken back.
 *
 * A page goes back to the kernel only when user space says so, which first makes sure that the kernel may touch it
 * again. What an open file still has when it is closed is left allocated for good: a page that the hypervisor kept
 * would bring down whoever is given it next.
 */
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/slab.h>

#include "probe.h"

struct page_run {
	struct list_head link;
	struct page *first;
	unsigned int order;
};

/* 4 MiB: the largest order that every supported kernel's buddy allocator has. */
#define LARGEST_ORDER 10

void pages_init(struct page_runs *runs)
{
	mutex_init(&runs->lock);
	INIT_LIST_HEAD(&runs->list);
}

int pages_allocate(struct page_runs *runs, struct fhp_pages *request)
{
	struct page_run *run;

	if (request->order > LARGEST_ORDER)
		return -EINVAL;
	run = kmalloc(sizeof(*run), GFP_KERNEL);
	if (!run)
		return -ENOMEM;
	run->first = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN, request->order);
	if (!run->first) {
		kfree(run);
		return -ENOMEM;
	}
	run->order = request->order;
	request->base = page_to_phys(run->first);

	mutex_lock(&runs->lock);
	list_add(&run->link, &runs->list);
	mutex_unlock(&runs->lock);
	return 0;
}

int pages_free(struct page_runs *runs, const struct fhp_pages *request)
{
	struct page_run *run, *found = NULL;

	mutex_lock(&runs->lock);
	list_for_each_entry(run, &runs->list, link) {
		if (page_to_phys(run->first) == request->base && run->order == request->order) {
			found = run;
			list_del(&found->link);
			break;
		}
	}
	mutex_unlock(&runs->lock);

	if (!found)
		return -ENOENT;
	__free_pages(found->first, found->order);
	kfree(found);
	return 0;
}

void pages_abandon(struct page_runs *runs)
{
	struct page_run *run, *next;

	list_for_each_entry_safe(run, next, &runs->list, link) {
		phys_addr_t base = page_to_phys(run->first);

		pr_warn("%lu pages at %pa were not given back, and stay allocated\n", 1UL << run->order, &base);
		kfree(run);
	}
}
