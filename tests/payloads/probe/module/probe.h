/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the files of the module ask of each other. device.c takes the requests of user space and hands them to
 * access.c (loads and stores), run.c (jumps), registers.c (hypercalls and SMCs) and pages.c (pages to play with);
 * the first two map physical addresses by window.c.
 *
 * Any of the first three may die in an oops of the calling task: that is what they are for. They hold no lock while
 * they can, and what they mapped then stays mapped.
 */
#ifndef FREEHOLD_PROBE_H
#define FREEHOLD_PROBE_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/types.h>

#include "interface.h"

/* The most pages that a window shows: an unaligned access touches two. */
#define WINDOW_PAGES 2

/* Kernel addresses that show physical pages of any kind: RAM, devices, nothing at all. */
struct window {
	void *start;
	struct page *filler;
};

int window_open(struct window *window, phys_addr_t base, unsigned int pages, pgprot_t protection);
void window_close(struct window *window);

/* The pages that one open file has. */
struct page_runs {
	struct mutex lock;
	struct list_head list;
};

void pages_init(struct page_runs *runs);
int pages_allocate(struct page_runs *runs, struct fhp_pages *request);
int pages_free(struct page_runs *runs, const struct fhp_pages *request);
void pages_abandon(struct page_runs *runs);

int access_do(struct fhp_access *access);
int run_do(struct fhp_run *run);
int registers_call(struct fhp_call *call);

#endif
