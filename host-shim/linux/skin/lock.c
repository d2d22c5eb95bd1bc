// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The lock of the Rust half: a word, of which tasks wait for a bit.
 */
#include <linux/delay.h>
#include <linux/sched.h>
#include <linux/wait_bit.h>

#include "freehold.h"

void fh_lock_wait(unsigned long *word)
{
	wait_on_bit_lock(word, 0, TASK_UNINTERRUPTIBLE);
}

void fh_lock_wake(unsigned long *word)
{
	/* Whoever waits looks at the bit after it has queued; we look at the queue after the bit. */
	smp_mb();
	wake_up_bit(word, 0);
}

void fh_relax(void)
{
	/* Not a yield: the one that is waited for may have a lower priority. */
	usleep_range(5, 50);
}
