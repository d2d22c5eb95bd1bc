// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Tasks that wait, and tasks that run guests: how they are woken, and brought back.
 */
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include <asm/arch_timer.h>

#include "freehold.h"

struct seat {
	wait_queue_head_t queue;
	/* Who has it. The structure of a task outlives the RCU readers that found the task here. */
	struct task_struct *task;
};

struct seat *fh_seat_create(void)
{
	struct seat *seat = fh_allocate(sizeof(*seat), __alignof__(*seat));

	init_waitqueue_head(&seat->queue);
	seat->task = NULL;
	return seat;
}

void fh_seat_free(struct seat *seat)
{
	fh_free(seat);
}

void fh_seat_occupy(struct seat *seat, bool occupied)
{
	WRITE_ONCE(seat->task, occupied ? current : NULL);
}

int fh_seat_wait(struct seat *seat, bool fatal_signals_only, u64 nanoseconds, void *context)
{
	int result;

	if (fatal_signals_only)
		result = wait_event_killable(seat->queue, fhr_ready(context));
	else if (nanoseconds == U64_MAX)
		result = wait_event_interruptible(seat->queue, fhr_ready(context));
	else
		result = wait_event_interruptible_hrtimeout(seat->queue, fhr_ready(context), ns_to_ktime(nanoseconds));
	return result == -ERESTARTSYS ? -EINTR : 0;
}

void fh_seat_wake(struct seat *seat)
{
	/* Who waits looks once it has queued, at what was changed before this. */
	if (wq_has_sleeper(&seat->queue))
		wake_up_all(&seat->queue);
}

void fh_seat_interrupt(struct seat *seat)
{
	struct task_struct *task;

	rcu_read_lock();
	task = READ_ONCE(seat->task);
	if (task)
		kick_process(task);
	rcu_read_unlock();
}

static void nothing(struct irq_work *unused)
{
}

/* Done in an interrupt on every kernel, which a CPU sends itself. */
static DEFINE_PER_CPU(struct irq_work, here);

void wait_start(void)
{
	unsigned int cpu;

	/* Not where they are defined: the module loader fills in no addresses in what each CPU has. */
	for_each_possible_cpu(cpu)
		*per_cpu_ptr(&here, cpu) = IRQ_WORK_INIT_HARD(nothing);
}

void fh_interrupt_here(void)
{
	irq_work_queue(this_cpu_ptr(&here));
	/* The interrupt is on its way before the guest is entered. */
	isb();
}

void wait_stop(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		irq_work_sync(per_cpu_ptr(&here, cpu));
}

unsigned long fh_interrupts_off(void)
{
	unsigned long flags;

	local_irq_save(flags);
	return flags;
}

void fh_interrupts_restore(unsigned long flags)
{
	local_irq_restore(flags);
}

bool fh_has_signal(void)
{
	return signal_pending(current);
}

bool fh_is_killed(void)
{
	return fatal_signal_pending(current);
}

void fh_block_signals(u64 signals)
{
	sigset_t set;

	BUILD_BUG_ON(sizeof(set) != sizeof(signals));
	memcpy(&set, &signals, sizeof(set));
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	/* What the task had blocked is kept in a place where the kernel looks before it throws a signal away. */
	sigprocmask(SIG_SETMASK, &set, &current->real_blocked);
}

void fh_unblock_signals(void)
{
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
}

void fh_reschedule(void)
{
	cond_resched();
}

u64 fh_counter(void)
{
	return __arch_counter_get_cntvct();
}

u64 fh_counter_frequency(void)
{
	return arch_timer_get_cntfrq();
}
