// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Eventfds: to signal them, and to hear when others do.
 */
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "freehold.h"

/* What the Rust half keeps. Set before anybody can listen. */
static void *module;

/* Somebody has closed an eventfd that is listened at. */
static void sweep(struct work_struct *unused)
{
	fhr_sweep(module);
}

static DECLARE_WORK(sweeping, sweep);

void eventfd_start(void *its_module)
{
	module = its_module;
}

void eventfd_stop(void)
{
	/* Nobody listens any more, and a sweep may be under way. */
	cancel_work_sync(&sweeping);
}

struct listener {
	struct eventfd_ctx *eventfd;
	void *ear;
	wait_queue_entry_t entry;
	poll_table table;
	/* The last descriptor is closed. The queue is still there, since we have a reference. */
	bool closed;
};

int fh_eventfd_get(int descriptor, struct eventfd_ctx **eventfd)
{
	*eventfd = eventfd_ctx_fdget(descriptor);
	return PTR_ERR_OR_ZERO(*eventfd);
}

void fh_eventfd_put(struct eventfd_ctx *eventfd)
{
	eventfd_ctx_put(eventfd);
}

void fh_eventfd_signal(struct eventfd_ctx *eventfd)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(eventfd, 1);
#else
	eventfd_signal(eventfd);
#endif
}

/* The queue is locked, and interrupts are off. */
static int wake(wait_queue_entry_t *entry, unsigned int mode, int sync, void *key)
{
	struct listener *listener = container_of(entry, struct listener, entry);
	__poll_t events = key_to_poll(key);

	if (events & EPOLLIN && !listener->closed) {
		u64 count;

		/* What is heard is not there to be read any more. */
		eventfd_ctx_do_read(listener->eventfd, &count);
		fhr_hear(listener->ear);
	}
	if (events & EPOLLHUP) {
		WRITE_ONCE(listener->closed, true);
		/* To forget it takes a task. */
		schedule_work(&sweeping);
	}
	return 0;
}

static void queue(struct file *file, wait_queue_head_t *queue, poll_table *table)
{
	add_wait_queue(queue, &container_of(table, struct listener, table)->entry);
}

int fh_listener_create(int descriptor, void *ear, struct eventfd_ctx **eventfd, struct listener **result)
{
	struct file *file = eventfd_fget(descriptor);
	struct listener *listener;
	unsigned long flags;

	if (IS_ERR(file))
		return PTR_ERR(file);
	listener = fh_allocate(sizeof(*listener), __alignof__(*listener));
	listener->eventfd = eventfd_ctx_fileget(file);
	listener->ear = ear;
	listener->closed = false;
	init_waitqueue_func_entry(&listener->entry, wake);
	init_poll_funcptr(&listener->table, queue);
	*eventfd = eventfd_ctx_fileget(file);
	*result = listener;
	/* It may have been signalled before. */
	if (vfs_poll(file, &listener->table) & EPOLLIN) {
		local_irq_save(flags);
		fhr_hear(ear);
		local_irq_restore(flags);
	}
	fput(file);
	return 0;
}

bool fh_listener_is_closed(struct listener *listener)
{
	return READ_ONCE(listener->closed);
}

void fh_listener_free(struct listener *listener)
{
	u64 count;

	/* Nobody is in wake() any more when this returns. */
	eventfd_ctx_remove_wait_queue(listener->eventfd, &listener->entry, &count);
	eventfd_ctx_put(listener->eventfd);
	fh_free(listener);
}
