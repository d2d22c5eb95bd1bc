//! Errors of the transitions between host and guests.

use super::{Layer, Mutation};

const DONATE: &str = "hyp/core/src/ownership/guest/donate.rs";
const TRANSIT: &str = "hyp/core/src/ownership/guest/transit.rs";
const SHARE: &str = "hyp/core/src/ownership/guest/share.rs";
const LEND: &str = "hyp/core/src/ownership/guest/lend.rs";
const FORCE: &str = "hyp/core/src/ownership/guest/force_reclaim.rs";
const RECLAIM: &str = "hyp/core/src/ownership/guest/reclaim.rs";
const RELINQUISH: &str = "hyp/core/src/ownership/guest/relinquish.rs";
const CONTENTS: &str = "hyp/core/src/ownership/guest/contents.rs";
const TABLE: &str = "hyp/core/src/ownership/guest/table.rs";
const PIN: &str = "hyp/core/src/ownership/guest/pin.rs";
const JUDGE: &str = "hyp/core/src/ownership/guest/abort.rs";
const GUARD: &str = "hyp/core/src/ownership/guest/guard.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    // A frame is donated to one VM, and the map says it is another's.
    Mutation {
        name: "donation-completed-for-another-vm",
        like: Some("wrong completer id"),
        file: DONATE,
        find: "let given = Entry::guest(false, moving.slot(), moving.gfn());",
        replace: "let given = Entry::guest(false, moving.slot() ^ 1, moving.gfn());",
        caught_by: Layer::Unit,
    },
    // The map says that the frame is at another guest frame number.
    Mutation {
        name: "donation-completed-at-another-gfn",
        like: Some("wrong completer id"),
        file: DONATE,
        find: "let given = Entry::guest(false, moving.slot(), moving.gfn());",
        replace: "let given = Entry::guest(false, moving.slot(), moving.gfn() ^ 1);",
        caught_by: Layer::Unit,
    },
    // A guest gets a page, and the host keeps it.
    Mutation {
        name: "guest-donate-leaves-the-host-its-mapping",
        like: Some("donate without the host half"),
        file: TRANSIT,
        find: "if going.host == HostChange::Revoke {
            permit.revoke().complete(hw);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The same in the short way for one page.
    Mutation {
        name: "short-guest-donate-leaves-the-host-its-mapping",
        like: Some("donate without the host half"),
        file: DONATE,
        find: "host_page.unmap(hw, GuestAnnotation::Absent.encode());",
        replace: "let _ = host_page;",
        caught_by: Layer::Unit,
    },
    // A frame that is shared with EL2, or not the host's at all, is lent to a guest.
    Mutation {
        name: "guest-share-without-checks",
        like: Some("share checks omitted"),
        file: SHARE,
        find: "state => state.host_refusal().map_or(Ok(()), Err),",
        replace: "_ => Ok(()),",
        caught_by: Layer::Unit,
    },
    // A guest lends what it has lent already.
    Mutation {
        name: "lend-without-checks",
        like: Some("share checks omitted"),
        file: LEND,
        find: "if run.entry.state() != State::Guest {
            return Err(GuestOutcome::Refused);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The host takes a frame by force that was another VM's by the time that VM's lock was held.
    Mutation {
        name: "force-reclaim-without-a-second-look",
        like: Some("share without locks"),
        file: FORCE,
        find: "if private(region.entry(piece.first))? != seen {
            return Err(Status::Busy.into());
            }",
        replace: "",
        caught_by: Layer::Concurrency,
    },
    // A page is given on before the guest has lost it.
    Mutation {
        name: "guest-entry-before-the-invalidation",
        like: None,
        file: TRANSIT,
        find: "vm.annotate(hw, span, GuestAnnotation::Busy);
                    if going.host == HostChange::Revoke {
                        permit.revoke().complete(hw);
                    }
                    permit.enter(in_transit(going.reason));",
        replace: "if going.host == HostChange::Revoke {
                        permit.revoke().complete(hw);
                    }
                    permit.enter(in_transit(going.reason));
                    vm.annotate(hw, span, GuestAnnotation::Busy);",
        caught_by: Layer::Order,
    },
    // The host gets a guest's private pages with what is in them.
    Mutation {
        name: "guest-page-not-zeroed-on-reclaim",
        like: None,
        file: RECLAIM,
        find: "let came = self.zero(&moving);",
        replace: "let came = crate::ownership::reclaim::Scrubbed { frames: all, poisoned: false };",
        caught_by: Layer::Unit,
    },
    // The same for pages that the guest gives up.
    Mutation {
        name: "guest-page-not-zeroed-when-given-up",
        like: None,
        file: RELINQUISH,
        find: "let came = self.zero(&moving);",
        replace: "let came = crate::ownership::reclaim::Scrubbed { frames: all, poisoned: false };",
        caught_by: Layer::Unit,
    },
    // The same for pages that the host takes by force.
    Mutation {
        name: "guest-page-not-zeroed-when-taken-by-force",
        like: None,
        file: FORCE,
        find: "let came = self.zero(&moving);",
        replace: "let came = crate::ownership::reclaim::Scrubbed { frames: 1, poisoned: false };",
        caught_by: Layer::Unit,
    },
    // A guest that runs is given pages with what the host left in them.
    Mutation {
        name: "guest-page-not-zeroed-after-launch",
        like: None,
        file: CONTENTS,
        find: "} else {
            self.zero(moving)
            }",
        replace: "} else {
            Scrubbed { frames: moving.frames().frames(), poisoned: false }
            }",
        caught_by: Layer::Unit,
    },
    // A frame that broke in a guest's hands is the host's again.
    Mutation {
        name: "broken-guest-frame-given-on",
        like: None,
        file: TRANSIT,
        find: "[(1, Entry::plain(State::Poisoned)), (frames - 1, back)]",
        replace: "[(1, good), (frames - 1, back)]",
        caught_by: Layer::Unit,
    },
    // Frames that have arrived count as on their way, and the VM never goes.
    Mutation {
        name: "arrived-frames-still-in-transit",
        like: None,
        file: TRANSIT,
        find: "vm.counts.in_transit = vm.counts.in_transit.saturating_sub(first);",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The count of a VM's private frames only grows.
    Mutation {
        name: "private-frames-not-counted-off",
        like: None,
        file: TABLE,
        find: "State::Guest => self.counts.private = self.counts.private.saturating_sub(frames),",
        replace: "State::Guest => {}",
        caught_by: Layer::Unit,
    },
    // The count of borrowed frames only grows.
    Mutation {
        name: "borrowed-frames-not-counted-off",
        like: None,
        file: SHARE,
        find: "vm.counts.borrowed = vm.counts.borrowed.saturating_sub(run.frames);",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The borrowers of a frame are counted up and never down.
    Mutation {
        name: "borrower-not-taken-off",
        like: None,
        file: SHARE,
        find: "permit.enter_each(|entry| Entry::borrowed(entry.count().saturating_sub(1)).unwrap_or(entry));",
        replace: "permit.enter_each(|entry| entry);",
        caught_by: Layer::Unit,
    },
    // A guest takes a page back that the host has pinned for its I/O.
    Mutation {
        name: "pin-ignored-on-guest-unshare",
        like: None,
        file: LEND,
        find: "if run.entry.count() > 0 {
            return Err(GuestOutcome::Pinned(left.gfn));
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A guest gives up a page that the host has pinned.
    Mutation {
        name: "pin-ignored-on-relinquish",
        like: None,
        file: RELINQUISH,
        find: "if entry.count() > 0 {
            return Err(GuestOutcome::Pinned(left.gfn));
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A pinned page of a dead guest is the host's, and its pins are forgotten.
    Mutation {
        name: "pin-ignored-on-reclaim",
        like: None,
        file: RECLAIM,
        find: "if entry.count() > 0 {
            return Err(Status::Pinned.into());
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A pin is taken off that nobody had put on.
    Mutation {
        name: "unpinned-more-often-than-pinned",
        like: None,
        file: PIN,
        find: "if entry.state() == State::GuestSharedHost && entry.count() > 0 {",
        replace: "if entry.state() == State::GuestSharedHost {",
        caught_by: Layer::Unit,
    },
    // The host pins a private page.
    Mutation {
        name: "private-page-pinned",
        like: None,
        file: PIN,
        find: "State::GuestSharedHost => one_more(entry).map(|_| ()).ok_or(Status::CountOverflow),
            _ => Err(Status::NotShared),",
        replace: "State::GuestSharedHost | State::Guest => one_more(entry).map(|_| ()).ok_or(Status::CountOverflow),
            _ => Err(Status::NotShared),",
        caught_by: Layer::Unit,
    },
    // The host goes on to reach a page that the guest has taken back.
    Mutation {
        name: "unshare-leaves-the-host-its-mapping",
        like: None,
        file: LEND,
        find: "if !lent {
            permit.revoke().complete(&self.hw);
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The same in the short way for one page.
    Mutation {
        name: "short-unshare-leaves-the-host-its-mapping",
        like: None,
        file: LEND,
        find: "host_page.unmap(hw, GuestAnnotation::Absent.encode());",
        replace: "let _ = host_page;",
        caught_by: Layer::Unit,
    },
    // The host goes on to reach a shared page that the guest has given up.
    Mutation {
        name: "relinquish-leaves-the-host-its-mapping",
        like: None,
        file: RELINQUISH,
        find: "host: if entry.state() == State::GuestSharedHost {",
        replace: "host: if entry.state() == State::Guest {",
        caught_by: Layer::Unit,
    },
    // The host is given a page before the guest's sharing is in the map.
    Mutation {
        name: "lend-grants-before-the-entry",
        like: None,
        file: LEND,
        find: "permit.enter(new);
            if lent {
            permit.grant();
            }",
        replace: "if lent {
            permit.grant();
            }
            permit.enter(new);",
        caught_by: Layer::Order,
    },
    // Contents of donated frames are not digested.
    Mutation {
        name: "contents-not-digested",
        like: None,
        file: CONTENTS,
        find: "vm.digest.update(digest);",
        replace: "let _ = digest;",
        caught_by: Layer::Unit,
    },
    // Where donated frames lie is not digested.
    Mutation {
        name: "places-not-digested",
        like: None,
        file: CONTENTS,
        find: "vm.digest.update(gfn.to_le_bytes());",
        replace: "let _ = gfn;",
        caught_by: Layer::Unit,
    },
    // Frames that come after the launch are counted into a digest that is final.
    Mutation {
        name: "digest-goes-on-after-launch",
        like: None,
        file: CONTENTS,
        find: "if vm.life != Life::Created {
            return false;
            }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // What the host wrote last is still in a cache when it is digested.
    Mutation {
        name: "digest-before-the-clean",
        like: None,
        file: CONTENTS,
        find: "self.hw.clean(frames);",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A guest executes what an instruction cache held before.
    Mutation {
        name: "code-not-invalidated",
        like: None,
        file: CONTENTS,
        find: "self.hw.invalidate_code();",
        replace: "",
        caught_by: Layer::Order,
    },
    // The host can execute, and so learn, what a guest's code was in a page that it got back.
    Mutation {
        name: "code-not-invalidated-after-zeroing",
        like: None,
        file: CONTENTS,
        find: "hw.invalidate_code();
            zeroed",
        replace: "zeroed",
        caught_by: Layer::Order,
    },
    // A page that was taken by force reads as new memory.
    Mutation {
        name: "forced-page-comes-back-as-absent",
        like: None,
        file: FORCE,
        find: "hole: GuestAnnotation::Lost,",
        replace: "hole: GuestAnnotation::Absent,",
        caught_by: Layer::Unit,
    },
    // Something is put where a page was taken by force.
    Mutation {
        name: "lost-page-filled-again",
        like: None,
        file: TABLE,
        find: "GuestAnnotation::Lost => return Err(Status::GfnLost),",
        replace: "GuestAnnotation::Lost => {}",
        caught_by: Layer::Unit,
    },
    // A page is put where the guest has declared a device.
    Mutation {
        name: "device-of-a-guest-filled",
        like: None,
        file: TABLE,
        find: "GuestAnnotation::Device => return Err(Status::GfnMapped),",
        replace: "GuestAnnotation::Device => {}",
        caught_by: Layer::Unit,
    },
    // An access to memory that is missing tells the host a data register.
    Mutation {
        name: "missing-memory-taken-for-a-device",
        like: None,
        file: JUDGE,
        find: "GuestAnnotation::Absent if vm.is_memory(address.value()) => GuestVerdict::Missing { gfn },",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The guard is in force, and the host emulates what the guest never named.
    Mutation {
        name: "guard-without-effect",
        like: None,
        file: JUDGE,
        find: "GuestAnnotation::Absent if vm.guard => GuestVerdict::Inject,",
        replace: "",
        caught_by: Layer::Unit,
    },
    // Memory of the guest's is declared a device.
    Mutation {
        name: "guard-over-memory",
        like: None,
        file: GUARD,
        find: "if outside == 0 {
            return Err(GuestOutcome::Refused);
            }
            let span = vm.pages(left.gfn, outside).map_err(refused)?;",
        replace: "let outside = run.frames;
            let span = vm.pages(left.gfn, outside).map_err(refused)?;",
        caught_by: Layer::Unit,
    },
    // A guest writes to what the host let it only read.
    Mutation {
        name: "write-protection-ignored",
        like: None,
        file: JUDGE,
        find: "GuestAccess::Write => data.contains(Stage2Access::WRITE),",
        replace: "GuestAccess::Write => data.contains(Stage2Access::READ),",
        caught_by: Layer::Unit,
    },
    // Translations of a VMID that is given out again are still in the TLBs.
    Mutation {
        name: "dead-vm-leaves-translations",
        like: None,
        file: "hyp/core/src/pgtable/dismantle.rs",
        find: "hw.invalidate(self.regime, Extent::All);",
        replace: "",
        caught_by: Layer::Unit,
    },
];
