/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A page that goes into the balloon is given up for good, by the guest's own call: the host cannot take what the guest
 * has not given. Where the hypervisor has no such call, the balloon's message does.
 */
#ifndef FREEHOLD_BALLOON_H
#define FREEHOLD_BALLOON_H

#include <asm/hypervisor.h>
#include <linux/arm-smccc.h>
#include <linux/mm.h>

/* MEM_RELINQUISH: a fast 64-bit call of the hypervisor vendor's service. x1: IPA. x2: 0 stands for one granule. */
#define FREEHOLD_RELINQUISH 9

static inline void freehold_relinquish(struct page *page)
{
	struct arm_smccc_res res;

	if (!kvm_arm_hyp_service_available(FREEHOLD_RELINQUISH))
		return;
	arm_smccc_1_1_hvc(ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, ARM_SMCCC_OWNER_VENDOR_HYP,
					     FREEHOLD_RELINQUISH),
			  page_to_phys(page), 0, 0, &res);
	if (res.a0 != SMCCC_RET_SUCCESS)
		pr_warn_ratelimited("balloon: the hypervisor does not take page %pa: %ld\n",
				    &(phys_addr_t){ page_to_phys(page) }, (long)res.a0);
}

#endif
