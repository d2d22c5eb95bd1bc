// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The virtual timer's interrupt. The timer is the guests', and this kernel has no other use for it: while a guest runs,
 * its timer has to be able to end the run, so the interrupt is on. EL2 has stopped the timer before the interrupt comes
 * to be taken here.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuhotplug.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/of.h>
#include <linux/of_irq.h>
#include <linux/percpu.h>
#include <linux/printk.h>

#include "freehold.h"

/* A private peripheral interrupt, the eleventh: INTID 27. It is a level, high. */
#define PPI 1
#define NUMBER 11
#define LEVEL_HIGH 4

static DEFINE_PER_CPU(int, cookie);
static unsigned int interrupt;
static int hotplug_state;

static irqreturn_t handle(int irq, void *unused)
{
	return IRQ_HANDLED;
}

static int online(unsigned int cpu)
{
	enable_percpu_irq(interrupt, IRQ_TYPE_NONE);
	return 0;
}

static int offline(unsigned int cpu)
{
	disable_percpu_irq(interrupt);
	return 0;
}

int timer_start(void)
{
	struct device_node *gic = of_find_compatible_node(NULL, NULL, "arm,gic-v3");
	struct of_phandle_args arguments = { .np = gic, .args = { PPI, NUMBER, LEVEL_HIGH } };
	u32 cells;
	int result;

	if (!gic || of_property_read_u32(gic, "#interrupt-cells", &cells) || cells > MAX_PHANDLE_ARGS) {
		of_node_put(gic);
		pr_err("there is no GICv3\n");
		return -ENODEV;
	}
	arguments.args_count = cells;
	interrupt = irq_create_of_mapping(&arguments);
	of_node_put(gic);
	if (!interrupt) {
		pr_err("the virtual timer's interrupt cannot be had\n");
		return -ENODEV;
	}
	result = request_percpu_irq(interrupt, handle, "freehold", &cookie);
	if (result) {
		pr_err("the virtual timer's interrupt cannot be had: %d\n", result);
		goto no_interrupt;
	}
	result = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "freehold:online", online, offline);
	if (result < 0)
		goto no_state;
	hotplug_state = result;
	return 0;

no_state:
	free_percpu_irq(interrupt, &cookie);
no_interrupt:
	irq_dispose_mapping(interrupt);
	return result;
}

void timer_stop(void)
{
	cpuhp_remove_state(hotplug_state);
	free_percpu_irq(interrupt, &cookie);
	irq_dispose_mapping(interrupt);
}
