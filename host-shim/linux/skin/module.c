// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The module: load and unload, /dev/kvm, the files under debugfs, the log.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bug.h>
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/printk.h>
#include <linux/seq_file.h>
#include <asm/virt.h>

#include "freehold.h"

/* What the Rust half keeps. Set before anybody can call. */
static void *module;
static struct dentry *debug_directory;

static long system_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return fhr_system_ioctl(module, command, argument);
}

static const struct file_operations system_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = system_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice system_device = {
	.minor = KVM_MINOR,
	.name = "kvm",
	.fops = &system_operations,
	/* As KVM has it: whoever may open it may have VMs, and udev gives it to a group. */
	.mode = 0600,
};

/* The number of the file is in its inode, where debugfs puts what it is given. */
static int show(struct seq_file *seq, void *unused)
{
	fhr_show(module, (unsigned long)seq->private, seq);
	return 0;
}

static int debug_open(struct inode *inode, struct file *file)
{
	return single_open(file, show, inode->i_private);
}

static const struct file_operations debug_operations = {
	.owner = THIS_MODULE,
	.open = debug_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

static const char *const debug_files[] = { "statistics", "vms" };

void fh_show(struct seq_file *seq, const u8 *text, size_t length)
{
	seq_write(seq, text, length);
}

bool fh_has_freehold(void)
{
	struct device_node *reserved, *child;
	bool found = false;

	/* A kernel that runs at EL2 would take the HVC itself, and has no answer to it. */
	if (is_kernel_in_hyp_mode())
		return false;
	/* Freehold describes the memory that it took for itself. */
	reserved = of_find_node_by_path("/reserved-memory");
	for_each_child_of_node(reserved, child)
		found = found || of_node_name_eq(child, "freehold");
	of_node_put(reserved);
	return found;
}

unsigned int fh_cpus(void)
{
	return num_online_cpus();
}

void fh_log(int level, const u8 *text, size_t length)
{
	switch (level) {
	case LOGLEVEL_ERR:
		pr_err("%.*s\n", (int)length, text);
		break;
	case LOGLEVEL_WARNING:
		pr_warn("%.*s\n", (int)length, text);
		break;
	default:
		pr_info("%.*s\n", (int)length, text);
		break;
	}
}

void __noreturn fh_panic(const u8 *text, size_t length)
{
	pr_emerg("%.*s\n", (int)length, text);
	BUG();
}

/* After the end of the Rust half, which has nothing any more. */
static void check_memory(void)
{
	long allocations, frames;

	memory_count(&allocations, &frames);
	if (allocations || frames)
		pr_err("%ld allocations and %ld pages were never freed\n", allocations, frames);
	else
		pr_info("all memory is free again\n");
}

static int __init freehold_init(void)
{
	unsigned long file;
	int result;

	result = fhr_start(&module);
	if (result)
		return result;
	eventfd_start(module);
	wait_start();
	result = timer_start();
	if (result)
		goto no_timer;
	result = die_start(module);
	if (result)
		goto no_notifier;
	result = misc_register(&system_device);
	if (result) {
		pr_err("/dev/kvm cannot be had (%d): is KVM there?\n", result);
		goto no_device;
	}
	/* Without debugfs there are no figures, and all else works. */
	debug_directory = debugfs_create_dir("freehold", NULL);
	for (file = 0; file < ARRAY_SIZE(debug_files); file++)
		debugfs_create_file(debug_files[file], 0444, debug_directory, (void *)file, &debug_operations);
	return 0;

no_device:
	die_stop();
no_notifier:
	timer_stop();
no_timer:
	fhr_stop(module);
	check_memory();
	return result;
}

static void __exit freehold_exit(void)
{
	debugfs_remove_recursive(debug_directory);
	misc_deregister(&system_device);
	die_stop();
	timer_stop();
	eventfd_stop();
	fhr_stop(module);
	wait_stop();
	check_memory();
}

module_init(freehold_init);
module_exit(freehold_exit);
MODULE_ALIAS_MISCDEV(KVM_MINOR);
MODULE_ALIAS("devname:kvm");
MODULE_DESCRIPTION("Freehold's host: KVM's interface, backed by Freehold");
MODULE_LICENSE("Dual MIT/GPL");
