// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The lock of the Rust half: a word, of which tasks wait for bit 0. Bit 1 says that somebody may wait.
 */
#include <linux/delay.h>
#include <linux/sched.h>
#include <linux/wait_bit.h>

#include "freehold.h"

/* We have queued, and the lock was taken. */
static int wait_a_while(struct wait_bit_key *key, int mode)
{
	unsigned long *word = key->flags;

	/* Whoever sees the bit finds us in the queue. */
	smp_mb__before_atomic();
	set_bit(1, word);
	smp_mb__after_atomic();
	/* If it was let go of meanwhile, and the bit was seen, we have been woken, and this returns at once. */
	if (test_bit(0, word))
		schedule();
	return 0;
}

void fh_lock_wait(unsigned long *word)
{
	wait_on_bit_lock_action(word, 0, wait_a_while, TASK_UNINTERRUPTIBLE);
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
