// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Windows: kernel addresses for any physical address.
 *
 * ioremap() refuses RAM and memremap() gives the linear map for it; neither shows two neighbouring pages of which one
 * is ordinary RAM and the other hidden, and neither gives an executable page. So a window takes addresses from vmap(),
 * for a page of its own, and then points the entries of the kernel's stage-1 table where it wants them.
 */
#include <linux/bitfield.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <asm/sysreg.h>
#include <asm/tlbflush.h>

#include "probe.h"

/* The entry of the kernel's table for an address that vmap() gave out, so that every level is known to be there. */
static pte_t *entry_of(unsigned long address)
{
	/* init_mm is not for modules; TTBR1_EL1 names the same table. Bits 63:48 are an ASID, the lowest ones flags. */
	phys_addr_t root = read_sysreg(ttbr1_el1) & GENMASK_ULL(47, PAGE_SHIFT);
	pgd_t *pgd = pgd_offset_pgd((pgd_t *)phys_to_virt(root), address);
	p4d_t *p4d = p4d_offset(pgd, address);
	pud_t *pud = pud_offset(p4d, address);
	pmd_t *pmd = pmd_offset(pud, address);

	return pte_offset_kernel(pmd, address);
}

/* Break before make: the old entry names another page. */
static void replace_entry(unsigned long address, pte_t entry)
{
	pte_t *place = entry_of(address);

	WRITE_ONCE(*place, __pte(0));
	flush_tlb_kernel_range(address, address + PAGE_SIZE);
	WRITE_ONCE(*place, entry);
	dsb(ishst);
	isb();
}

int window_open(struct window *window, phys_addr_t base, unsigned int pages, pgprot_t protection)
{
	struct page *fillers[WINDOW_PAGES];
	unsigned int i;

	if (WARN_ON(pages > WINDOW_PAGES || !PAGE_ALIGNED(base)))
		return -EINVAL;
	if (base >> PHYS_MASK_SHIFT || (base + pages * PAGE_SIZE - 1) >> PHYS_MASK_SHIFT)
		return -ERANGE;

	window->filler = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!window->filler)
		return -ENOMEM;
	for (i = 0; i < pages; i++)
		fillers[i] = window->filler;
	window->start = vmap(fillers, pages, VM_MAP, PAGE_KERNEL);
	if (!window->start) {
		__free_page(window->filler);
		return -ENOMEM;
	}
	for (i = 0; i < pages; i++)
		replace_entry((unsigned long)window->start + i * PAGE_SIZE,
			      pfn_pte(PHYS_PFN(base) + i, protection));
	return 0;
}

void window_close(struct window *window)
{
	/* vunmap() clears the entries without a look at what they name. */
	vunmap(window->start);
	__free_page(window->filler);
}
