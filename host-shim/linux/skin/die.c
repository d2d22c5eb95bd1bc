// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * An oops of this kernel's that Freehold caused, by refusing an access, is named as that in the log: without, it looks
 * like a fault of alignment.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bits.h>
#include <linux/kdebug.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <asm/barrier.h>
#include <asm/esr.h>
#include <asm/page.h>
#include <asm/sysreg.h>

#include "freehold.h"

static void *module;

static int die(struct notifier_block *block, unsigned long event, void *data)
{
	const struct die_args *arguments = data;
	unsigned long class = ESR_ELx_EC(arguments->err), address, frame;

	if (event != DIE_OOPS || (class != ESR_ELx_EC_DABT_CUR && class != ESR_ELx_EC_IABT_CUR))
		return NOTIFY_DONE;
	/* As the abort left it: this CPU has taken no other since. */
	address = read_sysreg(far_el1);
	asm volatile("at s1e1r, %0" : : "r" (address));
	isb();
	frame = read_sysreg(par_el1);
	/* PAR_EL1.F: nothing is mapped there (DDI 0487, D24.2). Else bits 47:12 are the frame. */
	if (frame & 1)
		return NOTIFY_DONE;
	frame &= GENMASK(47, PAGE_SHIFT);
	if (!fhr_is_refused(module, frame))
		return NOTIFY_DONE;
	pr_emerg("Freehold refused this: the kernel touched %#lx, which is not its own but a guest's or EL2's\n", frame);
	return NOTIFY_DONE;
}

static struct notifier_block block = {
	.notifier_call = die,
};

int die_start(void *rust)
{
	module = rust;
	return register_die_notifier(&block);
}

void die_stop(void)
{
	unregister_die_notifier(&block);
}
