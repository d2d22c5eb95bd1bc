// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * /dev/freehold-probe: lets a test reach any physical address from EL0 and EL1, and call whoever sits at EL2 or EL3.
 *
 * For test machines only: whoever opens the device owns the kernel.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "probe.h"

static int probe_open(struct inode *inode, struct file *file)
{
	struct page_runs *runs;

	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	runs = kmalloc(sizeof(*runs), GFP_KERNEL);
	if (!runs)
		return -ENOMEM;
	pages_init(runs);
	file->private_data = runs;
	return 0;
}

static int probe_release(struct inode *inode, struct file *file)
{
	struct page_runs *runs = file->private_data;

	pages_abandon(runs);
	kfree(runs);
	return 0;
}

static int dispatch(struct page_runs *runs, unsigned int request, void *argument)
{
	switch (request) {
	case FHP_ACCESS:
		return access_do(argument);
	case FHP_RUN:
		return run_do(argument);
	case FHP_CALL:
		return registers_call(argument);
	case FHP_PAGES_ALLOCATE:
		return pages_allocate(runs, argument);
	case FHP_PAGES_FREE:
		return pages_free(runs, argument);
	default:
		return -ENOTTY;
	}
}

static long probe_ioctl(struct file *file, unsigned int request, unsigned long argument)
{
	union {
		struct fhp_access access;
		struct fhp_run run;
		struct fhp_call call;
		struct fhp_pages pages;
	} copy;
	size_t size = _IOC_SIZE(request);
	void __user *user = (void __user *)argument;
	int result;

	if (size > sizeof(copy))
		return -ENOTTY;
	if (copy_from_user(&copy, user, size))
		return -EFAULT;
	result = dispatch(file->private_data, request, &copy);
	if (!result && copy_to_user(user, &copy, size))
		return -EFAULT;
	return result;
}

static int probe_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long device = FHP_MMAP_DEVICE >> PAGE_SHIFT;
	unsigned long pfn = vma->vm_pgoff & ~device;
	unsigned long pages = vma_pages(vma);

	if (pfn + pages < pfn || (pfn + pages - 1) >> (PHYS_MASK_SHIFT - PAGE_SHIFT))
		return -ERANGE;
	if (vma->vm_pgoff & device)
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	return remap_pfn_range(vma, vma->vm_start, pfn, pages << PAGE_SHIFT, vma->vm_page_prot);
}

static const struct file_operations probe_operations = {
	.owner = THIS_MODULE,
	.open = probe_open,
	.release = probe_release,
	.unlocked_ioctl = probe_ioctl,
	.mmap = probe_mmap,
	.llseek = noop_llseek,
};

static struct miscdevice probe_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "freehold-probe",
	.fops = &probe_operations,
	.mode = 0600,
};
module_misc_device(probe_device);

MODULE_DESCRIPTION("Freehold's probe: reaches any physical address, calls EL2 and EL3");
MODULE_LICENSE("Dual MIT/GPL");
