/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the two halves of the module ask of each other. The skin's functions begin with fh_, and are what the kernel
 * offers as macros, inline functions, or in a form that depends on its version; the Rust half's begin with fhr_, and
 * decide. src/ffi/skin.rs and src/ffi/entries.rs mirror this file.
 *
 * Functions that can fail return a negative error number.
 */
#ifndef FREEHOLD_H
#define FREEHOLD_H

#include <linux/types.h>
#include <asm/page.h>

#if PAGE_SHIFT != 12
#error "a page of this kernel's is not one of Freehold's, which has 4 KiB"
#endif
#ifdef CONFIG_SHADOW_CALL_STACK
#error "x18 is this kernel's shadow call stack, and the Rust half of the module is not compiled to leave it alone"
#endif
/* Stable rustc has no option for landing pads, and its core library none in it. */
#ifdef CONFIG_ARM64_BTI_KERNEL
#error "this kernel branches to landing pads only, and the Rust half of the module has none"
#endif

struct file;
struct vm_fault;
struct seq_file;
struct mm_struct;
struct inode;
struct seat;
struct eventfd_ctx;
struct listener;
struct page;
struct watch;
struct vm_area_struct;

/* ---- The Rust half's, called by the skin. ---- */

/* The module is loaded: looks for Freehold, and puts what it keeps into *module. */
int fhr_start(void **module);
/* The module is unloaded. Nobody has a descriptor, or is in one of the functions below. */
void fhr_stop(void *module);
long fhr_system_ioctl(void *module, unsigned int command, unsigned long argument);
/* Answers a read of a file under debugfs, by fh_show(). */
void fhr_show(void *module, unsigned int file, struct seq_file *seq);

/* Whether Freehold refuses the kernel accesses to what is at a physical address. Does not sleep. */
bool fhr_is_refused(void *module, unsigned long address);

long fhr_ioctl(void *object, unsigned int command, unsigned long argument);
void fhr_close(void *object);
/* How many pages can be mapped. */
long fhr_pages(void *object);
/* Has fh_fault_insert() put the page in. */
int fhr_fault(void *object, unsigned long page, struct vm_fault *fault);

/* Says by fh_show() what there is to be said of it. */
void fhr_describe(void *object, struct seq_file *seq);
/* As fallocate() has it. */
int fhr_fallocate(void *object, unsigned int mode, u64 offset, u64 length);
/* Whether what fh_seat_wait() waits for is ready. Does not sleep. */
bool fhr_ready(void *context);
/* The last descriptor of something that is listened at was closed. In a task, some time later. */
void fhr_sweep(void *module);
/* Somebody has signalled what is listened at. Interrupts are off, and locks may be held. */
void fhr_hear(void *ear);
/* What becomes of an address space. Locks may be held, and it is told where one may sleep. */
void fhr_watch_begin(void *watcher, unsigned long start, unsigned long end, bool may_sleep);
void fhr_watch_end(void *watcher);
/* Whether it was used since somebody last asked and forgot. */
bool fhr_watch_used(void *watcher, unsigned long start, unsigned long end, bool forget);
/* May sleep. */
void fhr_watch_over(void *watcher);

/* ---- The skin's, called by the Rust half. ---- */

/* module.c */
/* Whether an HVC is safe, and Freehold is said to be there. */
bool fh_has_freehold(void);
unsigned int fh_cpus(void);
/* Writes a line to the log; the level is the kernel's. */
void fh_log(int level, const u8 *text, size_t length);
void __noreturn fh_panic(const u8 *text, size_t length);
void fh_show(struct seq_file *seq, const u8 *text, size_t length);

/* memory.c */
/* For the skin itself: what the Rust half has of the two kinds of memory. */
void memory_count(long *allocations, long *frames);
/* Memory for the Rust half. May sleep, and does not fail. */
void *fh_allocate(size_t size, size_t align);
void fh_free(void *pointer);
/* What to add to a physical address of RAM for the kernel's own mapping of it. */
unsigned long fh_direct_map(void);
/* 2^order frames, which can be freed in parts: their number, or all ones if there are none. */
u64 fh_pages_allocate(unsigned int order, bool zero, bool *zeroed);
void fh_pages_free(u64 pfn, unsigned int order);
/* Accesses to a frame that the kernel may not be able to touch. */
int fh_frame_read(u64 pfn, size_t offset, u8 *to, size_t length);
int fh_frame_write(u64 pfn, size_t offset, const u8 *from, size_t length);
int fh_frame_zero(u64 pfn);
/* Cleans the caches of a frame, to the point of coherency. */
void fh_frame_clean(u64 pfn);
int fh_copy_from_user(u8 *to, unsigned long address, size_t length);
int fh_copy_to_user(unsigned long address, const u8 *from, size_t length);
/* The caller's address space; the structure stays until it is put. */
struct mm_struct *fh_space_get(void);
void fh_space_put(struct mm_struct *space);
bool fh_space_is_caller(struct mm_struct *space);
/* Counts pages as locked, if RLIMIT_MEMLOCK or CAP_IPC_LOCK allows it. */
bool fh_space_lock(struct mm_struct *space, unsigned long pages);
void fh_space_unlock(struct mm_struct *space, unsigned long pages);

/* space.c: the address space of a process, seen from outside. */
/* A reference to the page at an address of the caller's, to be put. It is there to be written to if that is asked for. */
int fh_user_page_get(unsigned long address, bool write, struct page **page, u64 *pfn, bool *writable);
/* In any context. */
void fh_user_page_set_dirty(struct page *page);
void fh_user_page_put(struct page *page);
/* From now on the watcher is told what becomes of the caller's address space. */
int fh_watch_create(void *watcher, struct watch **watch);
/* Once this returns nothing is told any more, nor being told. */
void fh_watch_free(struct watch *watch);

/* lock.c */
/* Waits until bit 0 of the word is clear, and sets it. */
void fh_lock_wait(unsigned long *word);
/* The bit was cleared: wakes one that waits. */
void fh_lock_wake(unsigned long *word);
/* Sleeps a moment. */
void fh_relax(void);

/* wait.c: where a task waits, and is found when it is to leave a guest. */
/* For the skin itself. */
void wait_start(void);
void wait_stop(void);
struct seat *fh_seat_create(void);
void fh_seat_free(struct seat *seat);
/* The caller takes it, or leaves it. */
void fh_seat_occupy(struct seat *seat, bool occupied);
/* Waits until fhr_ready(), for so long at most (all ones: for ever), or until a signal: -EINTR. */
int fh_seat_wait(struct seat *seat, bool fatal_signals_only, u64 nanoseconds, void *context);
/* The others, too, in any context. */
void fh_seat_wake(struct seat *seat);
void fh_seat_interrupt(struct seat *seat);
/* Has an interrupt wait for this CPU, whose interrupts are off. It does nothing. */
void fh_interrupt_here(void);
unsigned long fh_interrupts_off(void);
void fh_interrupts_restore(unsigned long flags);
bool fh_has_signal(void);
bool fh_is_killed(void);
/* Blocks these signals of the caller's and no others, until the second is called. */
void fh_block_signals(u64 signals);
void fh_unblock_signals(void);
void fh_reschedule(void);
/* CNTVCT_EL0 and CNTFRQ_EL0. */
u64 fh_counter(void);
u64 fh_counter_frequency(void);

/* work.c */
/* Does what the kernel wants done before the caller goes back to its program; -EINTR for a signal. */
int fh_do_due_work(void);
/* Whether there is such a thing, or a signal. In any context. */
bool fh_has_due_work(void);

/* timer.c, for the skin itself: the virtual timer's interrupt. */
int timer_start(void);
void timer_stop(void);

/* die.c, for the skin itself: oopses that Freehold caused have its name. */
int die_start(void *module);
void die_stop(void);

/* eventfd.c */
/* For the skin itself. */
void eventfd_start(void *module);
void eventfd_stop(void);
/* A reference, to be put. */
int fh_eventfd_get(int descriptor, struct eventfd_ctx **eventfd);
void fh_eventfd_put(struct eventfd_ctx *eventfd);
/* In any context. */
void fh_eventfd_signal(struct eventfd_ctx *eventfd);
/* From now on fhr_hear() is called when the eventfd is signalled, and at once if it was before. Answers a reference, too. */
int fh_listener_create(int descriptor, void *ear, struct eventfd_ctx **eventfd, struct listener **listener);
/* Whether the eventfd's last descriptor is closed: nothing is heard any more. */
bool fh_listener_is_closed(struct listener *listener);
/* Once this returns fhr_hear() is not called any more, nor being called. */
void fh_listener_free(struct listener *listener);

/* file.c: files that have an inode of their own. */
/* For the skin itself. */
extern const struct file_operations file_operations;
/* Has a size, and no object and no descriptor yet. Its inode, too, is to be put. */
int fh_file_create(const char *name, u64 size, struct file **file, struct inode **inode);
/* Takes pages from all that user space has mapped. */
void fh_inode_zap(struct inode *inode, u64 first, u64 pages);
void fh_inode_put(struct inode *inode);

/* descriptor.c */
/* For the skin itself. */
int descriptor_mmap(struct file *file, struct vm_area_struct *vma);
void descriptor_show_fdinfo(struct seq_file *seq, struct file *file);
/* A number for a descriptor of the caller's. It is installed, or released. */
int fh_descriptor_reserve(void);
void fh_descriptor_release(int descriptor);
/* A file that has no object and no descriptor yet. It is installed, or put. */
int fh_descriptor_create(const char *name, struct file **file);
/* Gives a file its object, which is closed with it, and the caller the file. */
void fh_descriptor_install(int descriptor, struct file *file, void *object);
/* The object of one of the caller's descriptors, and its file, to be put. */
int fh_descriptor_get(int descriptor, struct file **file, void **object);
void fh_descriptor_put(struct file *file);
int fh_fault_insert(struct vm_fault *fault, u64 pfn);

#endif
