// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Files with an inode of their own: they have a size, parts of them can be freed, and what user space has mapped of them
 * can be found.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/version.h>

#include "freehold.h"

#define MAGIC 0x46484d46

/* There as long as an inode is that somebody has got. */
static struct vfsmount *mount;
static int mount_users;

static int file_release(struct inode *inode, struct file *file)
{
	/* One that was never installed has none. */
	if (file->private_data)
		fhr_close(file->private_data);
	return 0;
}

static long file_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return fhr_ioctl(file->private_data, command, argument);
}

static long file_fallocate(struct file *file, int mode, loff_t offset, loff_t length)
{
	return fhr_fallocate(file->private_data, mode, offset, length);
}

const struct file_operations file_operations = {
	.owner = THIS_MODULE,
	.release = file_release,
	.unlocked_ioctl = file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = descriptor_mmap,
#ifdef CONFIG_PROC_FS
	.show_fdinfo = descriptor_show_fdinfo,
#endif
	.fallocate = file_fallocate,
	.llseek = noop_llseek,
};

/* The size and all else stay as they were made. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static int file_setattr(struct user_namespace *namespace, struct dentry *dentry, struct iattr *attributes)
#else
static int file_setattr(struct mnt_idmap *map, struct dentry *dentry, struct iattr *attributes)
#endif
{
	return -EINVAL;
}

static const struct inode_operations file_inode_operations = {
	.setattr = file_setattr,
};

static int file_init_context(struct fs_context *context)
{
	if (!init_pseudo(context, MAGIC))
		return -ENOMEM;
	context->s_iflags |= SB_I_NOEXEC;
	return 0;
}

/*
 * The file system keeps the module: of a file the kernel lets go of the operations' owner before it does of the file system,
 * which must be there then.
 */
static struct file_system_type file_system = {
	.name = "freehold",
	.owner = THIS_MODULE,
	.init_fs_context = file_init_context,
	.kill_sb = kill_anon_super,
};

int fh_file_create(const char *name, u64 size, struct file **file, struct inode **result)
{
	struct inode *inode;
	int error = simple_pin_fs(&file_system, &mount, &mount_users);

	if (error)
		return error;
	inode = alloc_anon_inode(mount->mnt_sb);
	if (IS_ERR(inode)) {
		error = PTR_ERR(inode);
		goto unpin;
	}
	inode->i_mode |= S_IFREG;
	inode->i_op = &file_inode_operations;
	i_size_write(inode, size);
	*file = alloc_file_pseudo(inode, mount, name, O_RDWR | O_LARGEFILE, &file_operations);
	if (IS_ERR(*file)) {
		error = PTR_ERR(*file);
		iput(inode);
		goto unpin;
	}
	/* The end of a file lets go of its operations' owner, and nobody has taken hold of that. */
	__module_get(THIS_MODULE);
	/* With the pin. */
	ihold(inode);
	*result = inode;
	return 0;
unpin:
	simple_release_fs(&mount, &mount_users);
	return error;
}

void fh_inode_zap(struct inode *inode, u64 first, u64 pages)
{
	unmap_mapping_pages(inode->i_mapping, first, pages, false);
}

void fh_inode_put(struct inode *inode)
{
	iput(inode);
	simple_release_fs(&mount, &mount_users);
}
