//! From the steps that the core took to what the doors must do for them on a CPU.

mod invalidation;

pub use invalidation::Invalidation;

use super::acts::{Act, Deed};
use hyp_core::addr::FrameSpan;
use hyp_core::double::Step;
use hyp_core::geometry::{Arm4K, Geometry as _};
use hyp_core::hardware::{Event, LockName, Regime};
use hyp_core::vm::{GuestRegime, TrapKind};
use std::collections::BTreeMap;

/// What decides how the doors do their work.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// QEMU's name of the CPU model.
    pub cpu: &'static str,
    /// How many physical address bits it has, as far as EL2 uses them.
    pub pa_bits: u32,
    /// FEAT_TLBIRANGE: invalidation by range.
    pub range_tlbi: bool,
    /// Every broadcast invalidation is done twice: Cortex-A76 errata 1286807 and 4193800, and their
    /// like.
    pub repeats_tlbi: bool,
    /// A walk for a speculative AT may use the VMID in force with another's EL1 state: Cortex-A72 erratum 1319367 and its
    /// like.
    pub speculates_at: bool,
    /// Bytes of a data cache line; the payload says it.
    pub cache_line: u64,
    /// Bytes that DC ZVA zeroes; the payload says it.
    pub zero_block: u64,
}

/// Something that must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The word of a region: its lock is taken, or given back.
    Region(u64),
    /// Entries of a node of the map, after which the node may have been filled with what all frames had in common.
    Node {
        /// The first entry.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One descriptor.
    Descriptor {
        /// Of whose table.
        regime: Regime,
        /// The first address that it translates.
        address: u64,
        /// Its level.
        level: u8,
    },
    /// Descriptors become visible to table walks; to EL2's own as well if `own`.
    Publish {
        /// Whether a descriptor of EL2's own table is among them.
        own: bool,
    },
    /// Translations are invalidated.
    Invalidate(Invalidation),
    /// So many frames are shown by the window, for as long as something is done with them.
    Show {
        /// How many.
        frames: u64,
        /// What is done.
        work: Work,
    },
    /// So many frames are zeroed, each cleaned to the point of coherency before the next one.
    Prove {
        /// How many.
        frames: u64,
    },
    /// Instruction caches of all CPUs are emptied.
    InvalidateCode,
    /// A page of the pool is zeroed.
    ZeroPage,
    /// The host's state leaves the CPU, and a vCPU's comes.
    LoadGuest {
        /// Whether this CPU must forget what another vCPU of the VM has left.
        forget: bool,
    },
    /// The guest runs until it comes back through this vector.
    RunGuest {
        /// Its offset.
        vector: u16,
        /// Whether it comes back before that for the vector registers, and gets them.
        vectors: bool,
    },
    /// An address of the guest is translated, as it would be for a read at EL1.
    TranslateGuest,
    /// The vCPU's state leaves the CPU, and the host's comes back.
    PutGuest,
}

/// What is done with frames that the window shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They are zeroed, and cleaned to the point of coherency.
    Scrub,
    /// They are cleaned to the point of coherency.
    Clean,
    /// They are read.
    Read,
}

/// What a CPU that plays acts holds from one to the next.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// The VMID of the guest that is loaded.
    loaded: Option<u16>,
    /// By VMID, the generation of the VM and the index of the vCPU of the last guest that was loaded.
    last: BTreeMap<u8, (u32, u8)>,
}

impl Cpu {
    /// One that has loaded no guest.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            loaded: None,
            last: BTreeMap::new(),
        }
    }

    /// Notes that a guest is loaded, and says whether another may have left something under its VMID.
    fn load(&mut self, guest: &GuestRegime) -> bool {
        let now = (guest.generation, guest.vcpu);
        self.loaded = Some(guest.slot.into());
        // Of a VMID that it has never seen, a CPU does not know that it has seen none.
        self.last.insert(guest.slot, now) != Some(now)
    }

    /// Whether another VMID than that of `regime` is in force.
    fn is_elsewhere(&self, regime: Regime) -> bool {
        match regime {
            Regime::Hyp => false,
            Regime::Host => self.loaded.is_some(),
            Regime::Guest(vmid) => self.loaded != Some(vmid),
        }
    }
}

/// What must be seen for the steps of an act of `cpu`, in this order.
#[must_use]
pub fn expected(steps: &[Step], act: &Act, model: &Model, cpu: &mut Cpu) -> Vec<Expected> {
    let mut runs = 0;
    let mut all = Vec::new();
    let mut own = false;
    let mut changed: Option<(u64, u64)> = None;
    for step in steps {
        if let Step::Core(Event::Transition { frames, .. }) = step {
            let (first, count) = (frames.start().number(), frames.frames());
            changed = match changed {
                // The run of a change is told in parts if the frames had different states.
                Some((start, so_far)) if start + so_far == first && same_region(start, first) => {
                    Some((start, so_far + count))
                }
                Some(before) => {
                    all.extend(node(before));
                    Some((first, count))
                }
                None => Some((first, count)),
            };
            continue;
        }
        all.extend(changed.take().and_then(node));
        match *step {
            Step::Core(
                Event::Locked(LockName::Region(number)) | Event::Unlocked(LockName::Region(number)),
            ) => {
                all.push(Expected::Region(number));
            }
            Step::Core(Event::Descriptor {
                regime,
                address,
                level,
                ..
            }) => {
                own |= regime == Regime::Hyp;
                all.push(Expected::Descriptor {
                    regime,
                    address: address.value(),
                    level,
                });
            }
            Step::Publish => {
                all.push(Expected::Publish { own });
                own = false;
            }
            Step::Invalidate(regime, extent) => {
                let elsewhere = cpu.is_elsewhere(regime);
                let invalidation = Invalidation::of(regime, extent, model);
                all.push(Expected::Invalidate(Invalidation {
                    elsewhere,
                    ..invalidation
                }));
            }
            Step::Scrub(frames) => all.push(show(frames, Work::Scrub)),
            Step::Prove(frames) => all.push(Expected::Prove {
                frames: frames.frames(),
            }),
            Step::Clean(frames) => all.push(show(frames, Work::Clean)),
            Step::Digest(frame) => all.push(show(FrameSpan::single(frame), Work::Read)),
            Step::InvalidateCode => all.push(Expected::InvalidateCode),
            Step::Allocate(_) => all.push(Expected::ZeroPage),
            Step::LoadGuest(guest) => {
                let forget = cpu.load(&guest);
                all.push(Expected::LoadGuest { forget });
            }
            Step::RunGuest(kind) => {
                let vectors = matches!(&act.deed, Deed::Run(run) if run.gets_vectors(runs));
                all.push(Expected::RunGuest {
                    vector: vector(kind),
                    vectors,
                });
                runs += 1;
            }
            Step::TranslateGuest => all.push(Expected::TranslateGuest),
            Step::PutGuest => {
                cpu.loaded = None;
                all.push(Expected::PutGuest);
            }
            // The other locks are no words of the map; a page that comes back is only put on a list.
            Step::Core(Event::Locked(_) | Event::Unlocked(_) | Event::Transition { .. })
            | Step::Free(_)
            | Step::SharedLoad(..) => {}
        }
    }
    all.extend(changed.take().and_then(node));
    all
}

fn same_region(one: u64, other: u64) -> bool {
    one / Arm4K::REGION_FRAMES == other / Arm4K::REGION_FRAMES
}

/// What a change of frames stores into a node: nothing, if it is a whole region's.
fn node((first, count): (u64, u64)) -> Option<Expected> {
    (count < Arm4K::REGION_FRAMES).then_some(Expected::Node {
        first: first % Arm4K::REGION_FRAMES,
        count,
    })
}

fn show(frames: FrameSpan, work: Work) -> Expected {
    let frames = frames.frames();
    Expected::Show { frames, work }
}

/// The offset of the vector by which a guest comes back: from a lower level in AArch64 (Arm ARM DDI 0487, D1.3.1).
const fn vector(kind: TrapKind) -> u16 {
    match kind {
        TrapKind::Synchronous => 0x400,
        TrapKind::Interrupt => 0x480,
        TrapKind::SError => 0x580,
    }
}
