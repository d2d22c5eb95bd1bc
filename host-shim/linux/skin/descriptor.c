// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Descriptors: one kind of file for every object of the Rust half, which says what it can do.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/version.h>

#include "freehold.h"

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}
#endif

static int descriptor_release(struct inode *inode, struct file *file)
{
	/* One that was never installed has none. */
	if (file->private_data)
		fhr_close(file->private_data);
	return 0;
}

static long descriptor_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return fhr_ioctl(file->private_data, command, argument);
}

static vm_fault_t descriptor_fault(struct vm_fault *fault)
{
	switch (fhr_fault(fault->vma->vm_file->private_data, fault->pgoff, fault)) {
	case 0:
		return VM_FAULT_NOPAGE;
	case -EAGAIN:
		return VM_FAULT_OOM;
	/*
	 * No frame for it either: nobody is killed to have one, so that the kernel, told of ENOMEM, would have the program
	 * try for ever.
	 */
	default:
		return VM_FAULT_SIGBUS;
	}
}

int fh_fault_insert(struct vm_fault *fault, u64 pfn)
{
	switch (vmf_insert_pfn(fault->vma, fault->address, pfn)) {
	case VM_FAULT_NOPAGE:
		return 0;
	/* No page for a table, of which the kernel has done what it does then. */
	case VM_FAULT_OOM:
		return -EAGAIN;
	default:
		return -EFAULT;
	}
}

static const struct vm_operations_struct descriptor_mapping = {
	.fault = descriptor_fault,
};

int descriptor_mmap(struct file *file, struct vm_area_struct *vma)
{
	long pages = fhr_pages(file->private_data);

	if (pages < 0)
		return pages;
	/* A private mapping would be a copy. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	/* By frame number: nobody pins what may go to a guest, or goes with its VM. */
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &descriptor_mapping;
	return 0;
}

void descriptor_show_fdinfo(struct seq_file *seq, struct file *file)
{
	fhr_describe(file->private_data, seq);
}

static const struct file_operations descriptor_operations = {
	.owner = THIS_MODULE,
	.release = descriptor_release,
	.unlocked_ioctl = descriptor_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = descriptor_mmap,
#ifdef CONFIG_PROC_FS
	.show_fdinfo = descriptor_show_fdinfo,
#endif
	.llseek = noop_llseek,
};

int fh_descriptor_reserve(void)
{
	return get_unused_fd_flags(O_CLOEXEC);
}

void fh_descriptor_release(int descriptor)
{
	put_unused_fd(descriptor);
}

int fh_descriptor_create(const char *name, struct file **file)
{
	*file = anon_inode_getfile(name, &descriptor_operations, NULL, O_RDWR);
	return PTR_ERR_OR_ZERO(*file);
}

void fh_descriptor_install(int descriptor, struct file *file, void *object)
{
	file->private_data = object;
	fd_install(descriptor, file);
}

int fh_descriptor_get(int descriptor, struct file **file, void **object)
{
	*file = fget(descriptor);
	if (!*file)
		return -EBADF;
	if ((*file)->f_op != &descriptor_operations && (*file)->f_op != &file_operations) {
		fput(*file);
		return -EINVAL;
	}
	*object = (*file)->private_data;
	return 0;
}

void fh_descriptor_put(struct file *file)
{
	fput(file);
}
