//! The entry record of the run page: what the host says to a vCPU before it runs.
//!
//! The host can write the page at any time, so each word is read at most once, and judged as it was read.

use super::context::GicInterface;
use super::vcpu::Pending;
use crate::addr::Frame;
use crate::hardware::Hardware;
use core::mem;
use hyp_abi::Status;
use hyp_abi::run_page::{
    Answer, ENTRY_ANSWER, ENTRY_FLAGS, ENTRY_ICH_HCR, ENTRY_LIST, ENTRY_LIST_COUNT, ENTRY_VALUES, EntryFlags,
    ExitReason, MAX_LIST_REGISTERS,
};

/// ICH_HCR_EL2: UIE (1), LRENPIE (2), NPIE (3), VGrp0EIE to VGrp1DIE (7:4), EOIcount (31:27). What else there is traps
/// the guest's accesses, and is EL2's to say (Arm IHI 0069, 12.4).
const HCR_HOST: u64 = 0xfe | 0x1f << 27;
/// ICH_LR<n>_EL2: State (63:62), Group (60), Priority (55:48), EOI (41, where HW is 0), vINTID (31:0).
///
/// HW (61) is not the host's to set: the guest's end of an interrupt would deactivate a physical one. NMI (59) is not
/// given to guests.
const LIST_ALLOWED: u64 = 0b11 << 62 | 1 << 60 | 0xff << 48 | 1 << 41 | 0xffff_ffff;

/// What the host answers to the exit before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// Read only for an answer that has values.
    pub(super) values: [u64; 4],
}

impl Reply {
    /// What no answer means.
    const RETRY: Self = Self {
        answer: Answer::Retry,
        values: [0; 4],
    };
}

/// What the host wants in the virtual CPU interface.
#[derive(Debug)]
pub(super) struct Interrupts {
    control: u64,
    count: u64,
    list: [u64; MAX_LIST_REGISTERS],
}

impl Interrupts {
    /// Room for what a record says.
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            control: 0,
            count: 0,
            list: [0; MAX_LIST_REGISTERS],
        }
    }

    /// Trades places with what a vCPU has; done twice, nothing has changed.
    #[inline]
    pub(super) fn swap(&mut self, gic: &mut GicInterface) {
        let used = self.count.max(gic.count) as usize;
        mem::swap(&mut self.control, &mut gic.control);
        mem::swap(&mut self.count, &mut gic.count);
        for (new, old) in self.list.iter_mut().zip(&mut gic.list).take(used) {
            mem::swap(new, old);
        }
    }
}

/// The entry record, read and judged.
#[derive(Debug)]
pub(super) struct EntryRecord {
    /// What the host answers to the exit before.
    pub(super) reply: Reply,
    /// Whether the list registers are not to stay as they are.
    pub(super) has_interrupts: bool,
}

/// The words of the entry record in front of the list registers, as they were read.
type Head = [u64; ENTRY_LIST];

/// Reads and judges the entry record of a vCPU whose last exit waits for `pending`. The list registers, if it has some, go
/// to `interrupts`, where they stay: they are too many to be handed on by copying.
///
/// # Errors
/// [`Status::InvalidParameter`] if the record has no meaning; [`Status::Poisoned`] if the page cannot be read.
#[inline]
pub(super) fn read<H: Hardware>(
    hw: &H,
    page: Frame,
    pending: &Pending,
    interrupts: &mut Interrupts,
) -> Result<EntryRecord, Status> {
    let mut head = [0; ENTRY_LIST];
    hw.shared_load(page, 0, &mut head).map_err(|_| Status::Poisoned)?;
    let flags = EntryFlags::from_bits(head[ENTRY_FLAGS]).ok_or(Status::InvalidParameter)?;
    let reply = if flags.contains(EntryFlags::ANSWER) {
        judge_reply(&head, pending)?
    } else {
        Reply::RETRY
    };
    let has_interrupts = flags.contains(EntryFlags::INTERRUPTS);
    if has_interrupts {
        interrupts.read(hw, page, &head)?;
    }
    Ok(EntryRecord {
        reply,
        has_interrupts,
    })
}

fn judge_reply(head: &Head, pending: &Pending) -> Result<Reply, Status> {
    let answer = Answer::try_from(head[ENTRY_ANSWER]).map_err(|_| Status::InvalidParameter)?;
    if !is_an_answer(pending, answer) {
        return Err(Status::InvalidParameter);
    }
    let mut values = [0; 4];
    if answer == Answer::Done {
        values.copy_from_slice(&head[ENTRY_VALUES..ENTRY_VALUES + 4]);
    }
    Ok(Reply { answer, values })
}

/// Whether `answer` means something to an exit that waits for `pending`.
const fn is_an_answer(pending: &Pending, answer: Answer) -> bool {
    let Pending::Exit { reason, .. } = pending else {
        return matches!(answer, Answer::Retry);
    };
    match answer {
        Answer::Retry => true,
        Answer::Refuse => matches!(
            reason,
            ExitReason::Pinned | ExitReason::MemoryFault | ExitReason::MmioRead | ExitReason::MmioWrite
        ),
        Answer::Done => matches!(
            reason,
            ExitReason::MmioRead | ExitReason::MmioWrite | ExitReason::HostService
        ),
    }
}

impl Interrupts {
    #[inline]
    fn read<H: Hardware>(&mut self, hw: &H, page: Frame, head: &Head) -> Result<(), Status> {
        self.count = head[ENTRY_LIST_COUNT];
        self.control = head[ENTRY_ICH_HCR] & HCR_HOST | GicInterface::ENABLE;
        if self.count > u64::from(hw.guest_support().list_registers) {
            return Err(Status::InvalidParameter);
        }
        if let Some(used @ [_, ..]) = self.list.get_mut(..self.count as usize) {
            hw.shared_load(page, ENTRY_LIST, used)
                .map_err(|_| Status::Poisoned)?;
            for register in used {
                *register &= LIST_ALLOWED;
            }
        }
        Ok(())
    }
}
