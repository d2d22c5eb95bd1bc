// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the kernel wants done of a task before it goes back to its program. One that runs a guest may not go back for long,
 * so it is done before each run of the guest as well.
 */
#include <linux/sched.h>
#include <linux/sched/signal.h>

#if defined(CONFIG_VIRT_XFER_TO_GUEST_WORK)
#include <linux/entry-virt.h>
#elif defined(CONFIG_KVM_XFER_TO_GUEST_WORK)
#include <linux/entry-kvm.h>
#include <linux/kvm_host.h>
#endif

#include "freehold.h"

#if defined(CONFIG_VIRT_XFER_TO_GUEST_WORK)
static int serve(void)
{
	return xfer_to_guest_mode_handle_work();
}

static bool is_due(void)
{
	return __xfer_to_guest_mode_work_pending();
}
#elif defined(CONFIG_KVM_XFER_TO_GUEST_WORK)
/* The kernel tells KVM's vCPU of a signal. This one stands in for it, and nobody looks at what it is told. */
static struct kvm_run unseen;
static struct kvm_vcpu nobody = { .run = &unseen };

static int serve(void)
{
	return xfer_to_guest_mode_handle_work(&nobody);
}

static bool is_due(void)
{
	return __xfer_to_guest_mode_work_pending();
}
#else
/* Without KVM the kernel offers no such function: what is left for the task to do waits for its program. */
static int serve(void)
{
	return signal_pending(current) ? -EINTR : 0;
}

static bool is_due(void)
{
	return signal_pending(current) || need_resched();
}
#endif

int fh_do_due_work(void)
{
	cond_resched();
	return serve();
}

bool fh_has_due_work(void)
{
	return is_due();
}
