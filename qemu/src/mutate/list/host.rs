//! Errors of the transitions between host and EL2, of the map, and of what the host may ask.

use super::{Layer, Mutation};

const DONATE: &str = "hyp/core/src/ownership/donate.rs";
const TOP_UP: &str = "hyp/core/src/ownership/top_up.rs";
const RECLAIM: &str = "hyp/core/src/ownership/reclaim.rs";
const SHARE: &str = "hyp/core/src/ownership/share.rs";
const PERMIT: &str = "hyp/core/src/ownership/permit.rs";
const RANGE: &str = "hyp/core/src/ownership/range.rs";
const ABORT: &str = "hyp/core/src/ownership/abort.rs";
const QUERY: &str = "hyp/core/src/ownership/query.rs";
const REGION: &str = "hyp/core/src/map/region.rs";
const ENTRY: &str = "hyp/core/src/map/entry.rs";
const STATE: &str = "hyp/core/src/state.rs";
const HYPERCALL: &str = "hyp/core/src/hypercall.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    // Whatever the host names is shared, whoever owns it.
    Mutation {
        name: "share-without-checks",
        like: Some("share checks omitted"),
        file: SHARE,
        find: "self.enter_without_tables(span, Entry::plain(State::HostSharedHyp), must_be_host)",
        replace: "self.enter_without_tables(span, Entry::plain(State::HostSharedHyp), |_| Ok(()))",
        caught_by: Layer::Specification,
    },
    // The same in the short way for one page.
    Mutation {
        name: "short-share-without-checks",
        like: Some("share checks omitted"),
        file: REGION,
        find: "if found != old {
            return Replaced::Differs(found);
        }",
        replace: "",
        caught_by: Layer::Specification,
    },
    // EL2 gets a page, and the host keeps it.
    Mutation {
        name: "donate-leaves-the-host-its-mapping",
        like: Some("donate without the host half"),
        file: DONATE,
        find: "let mut permit = self.check(piece, HostChange::Revoke, must_be_host)?;
        permit.revoke().complete(&self.hw);
        permit.enter(given);",
        replace: "let mut permit = self.check(piece, HostChange::Revoke, must_be_host)?;
        permit.enter(given);",
        caught_by: Layer::Specification,
    },
    // The same for the pages of the pool.
    Mutation {
        name: "top-up-leaves-the-host-its-mapping",
        like: Some("donate without the host half"),
        file: TOP_UP,
        find: "permit.revoke().complete(&self.hw);
        permit.enter(PROVING);",
        replace: "permit.enter(PROVING);",
        caught_by: Layer::Specification,
    },
    // Memory that answers with an error gets into the pool.
    Mutation {
        name: "top-up-without-a-proof",
        like: None,
        file: TOP_UP,
        find: "let proven = self.in_steps(piece.span, 0, |frames| self.hw.prove(frames));",
        replace: "let proven = Scrubbed { frames: piece.span.frames(), poisoned: false };",
        caught_by: Layer::Unit,
    },
    // A frame that was found to be broken is the host's again.
    Mutation {
        name: "broken-frame-of-a-top-up-goes-back",
        like: None,
        file: TOP_UP,
        find: "(poisoned, Entry::plain(State::Poisoned)),",
        replace: "(poisoned, Entry::plain(State::Host)),",
        caught_by: Layer::Unit,
    },
    // EL2 keeps its mapping of what did not get into the pool.
    Mutation {
        name: "top-up-leaves-el2-its-mapping",
        like: None,
        file: TOP_UP,
        find: "self.unmap_at_hyp(left);",
        replace: "let _ = left;",
        caught_by: Layer::Unit,
    },
    // A frame that broke in the pool is handed out again.
    Mutation {
        name: "broken-page-goes-back-to-the-pool",
        like: None,
        file: "hyp/core/src/pool.rs",
        find: "block.filter(|frame| *frame != broken)",
        replace: "block.filter(|_| broken == broken)",
        caught_by: Layer::Unit,
    },
    // A top-up that is refused keeps the pages that it had taken.
    Mutation {
        name: "refused-top-up-keeps-pages",
        like: Some("create-VM error keeps donated memory"),
        file: PERMIT,
        find: "if let Some(page) = self.node {
            hw.free_page(page);
        }",
        replace: "let _ = self.node;",
        caught_by: Layer::Exhaustive,
    },
    // No call waits for another one.
    Mutation {
        name: "region-without-a-lock",
        like: Some("share without locks"),
        file: REGION,
        find: "if seen & LOCK_BIT == 0 {",
        replace: "if seen & LOCK_BIT == 0 || true {",
        caught_by: Layer::Concurrency,
    },
    // The lock goes before the entry is written.
    Mutation {
        name: "share-after-its-lock",
        like: Some("share without locks"),
        file: REGION,
        find: "self.now = RegionWord::Node { page, breaks };
        self.report_run(index, 1, old.state(), new.state());",
        replace: "self.word.store(self.now.encode(), Ordering::Release);
        self.now = RegionWord::Node { page, breaks };
        self.report_run(index, 1, old.state(), new.state());",
        caught_by: Layer::Concurrency,
    },
    // A CPU that gets the lock may not see what was written under it.
    Mutation {
        name: "lock-given-back-without-order",
        like: Some("plain instead of ordered store"),
        file: REGION,
        find: "self.word.store(self.now.encode(), Ordering::Release);",
        replace: "self.word.store(self.now.encode(), Ordering::Relaxed);",
        caught_by: Layer::Ordering,
    },
    // The same from the other side.
    Mutation {
        name: "lock-taken-without-order",
        like: None,
        file: REGION,
        find: "let seen = word.fetch_or(LOCK_BIT, Ordering::Acquire);",
        replace: "let seen = word.fetch_or(LOCK_BIT, Ordering::Relaxed);",
        caught_by: Layer::Ordering,
    },
    // What was brought for the pool is entered for somebody else.
    Mutation {
        name: "top-up-completed-for-another-use",
        like: Some("wrong completer id"),
        file: TOP_UP,
        find: "(good, Entry::hyp(HypUse::Pool)),",
        replace: "(good, Entry::hyp(HypUse::Donated)),",
        caught_by: Layer::Specification,
    },
    // The map says that a page is EL2's while CPUs may still write to it for the host.
    Mutation {
        name: "entry-before-the-invalidation",
        like: None,
        file: DONATE,
        find: "permit.revoke().complete(&self.hw);
        permit.enter(given);",
        replace: "let owed = permit.revoke();
        permit.enter(given);
        owed.complete(&self.hw);",
        caught_by: Layer::Order,
    },
    // The same where one invalidation serves many regions.
    Mutation {
        name: "batch-entered-before-the-invalidation",
        like: None,
        file: DONATE,
        find: "permit.enter(leaving);",
        replace: "permit.enter(given);",
        caught_by: Layer::Order,
    },
    // The host's access is back before the map says so.
    Mutation {
        name: "grant-before-the-entry",
        like: None,
        file: RECLAIM,
        find: "permit.enter(Entry::plain(State::Host));
        permit.grant();",
        replace: "permit.grant();
        permit.enter(Entry::plain(State::Host));",
        caught_by: Layer::Order,
    },
    // The host gets pages back with what EL2 left in them.
    Mutation {
        name: "reclaim-without-scrub",
        like: None,
        file: RECLAIM,
        find: "let scrubbed = self.scrub(piece.span, u64::from(progress));",
        replace: "let scrubbed = Scrubbed { frames: piece.span.frames(), poisoned: false };",
        caught_by: Layer::Specification,
    },
    // Contents are scrubbed after the host has its access back.
    Mutation {
        name: "grant-before-the-scrub",
        like: None,
        file: RECLAIM,
        find: "permit.enter(transit(TransitReason::Reclaim, true, progress));
        let pages = permit.suspend();",
        replace: "permit.enter(transit(TransitReason::Reclaim, true, progress));
        permit.grant();
        let pages = permit.suspend();",
        caught_by: Layer::Specification,
    },
    // The pages of a drained pool go back unscrubbed.
    Mutation {
        name: "drain-without-scrub",
        like: None,
        file: RECLAIM,
        find: "let scrubbed = self.scrub(piece.span, 0);",
        replace: "let scrubbed = Scrubbed { frames: piece.span.frames(), poisoned: false };",
        caught_by: Layer::Order,
    },
    // EL2 keeps its mapping of pages that it gave away.
    Mutation {
        name: "drain-leaves-el2-its-mapping",
        like: None,
        file: RECLAIM,
        find: "self.unmap_at_hyp(piece.span);
        permit.enter(transit(TransitReason::Drain, true, 0));",
        replace: "permit.enter(transit(TransitReason::Drain, true, 0));",
        caught_by: Layer::Order,
    },
    // The lock of a region is held while its contents are scrubbed.
    Mutation {
        name: "scrub-under-a-lock",
        like: None,
        file: RECLAIM,
        find: "let pages = permit.suspend();
        let scrubbed = self.scrub(piece.span, u64::from(progress));",
        replace: "let scrubbed = self.scrub(piece.span, u64::from(progress));
        let pages = permit.suspend();",
        caught_by: Layer::Order,
    },
    // Too much is scrubbed before anybody looks for interrupts.
    Mutation {
        name: "scrub-in-one-step",
        like: None,
        file: RECLAIM,
        find: "let step = <H::Geometry as Geometry>::STEP_FRAMES.min(span.frames() - done);",
        replace: "let step = span.frames() - done;",
        caught_by: Layer::Unit,
    },
    // Nobody looks for interrupts while contents are scrubbed.
    Mutation {
        name: "scrub-without-a-look-for-interrupts",
        like: None,
        file: RECLAIM,
        find: "if done < span.frames() && self.hw.interrupt_pending() {",
        replace: "if done < span.frames() && false {",
        caught_by: Layer::Unit,
    },
    // Memory that answered with an error is given out again.
    Mutation {
        name: "broken-frame-goes-back-to-the-host",
        like: None,
        file: RECLAIM,
        find: "permit.enter_part(zeroed, 1, Entry::plain(State::Poisoned));",
        replace: "permit.enter_part(zeroed, 1, Entry::plain(State::Host));",
        caught_by: Layer::Unit,
    },
    // A second call takes up what a first one is at work on.
    Mutation {
        name: "reclaim-of-what-is-in-work",
        like: None,
        file: RECLAIM,
        find: "reason: TransitReason::Reclaim,
                active: false,",
        replace: "reason: TransitReason::Reclaim,",
        caught_by: Layer::Concurrency,
    },
    // A page that EL2 uses is unshared.
    Mutation {
        name: "pin-ignored-on-unshare",
        like: None,
        file: SHARE,
        find: "Err(Status::Pinned)",
        replace: "Ok(())",
        caught_by: Layer::Specification,
    },
    // The count of pins only grows.
    Mutation {
        name: "pin-not-taken-off",
        like: None,
        file: SHARE,
        find: "entry.with_count(entry.count().saturating_sub(1))",
        replace: "entry.with_count(entry.count())",
        caught_by: Layer::Specification,
    },
    // EL2 goes on to map a page that nobody has pinned.
    Mutation {
        name: "last-pin-leaves-el2-its-mapping",
        like: None,
        file: SHARE,
        find: "if entry.count() == 1 {",
        replace: "if entry.count() == 0 {",
        caught_by: Layer::Specification,
    },
    // A count that is full begins again at zero.
    Mutation {
        name: "count-wraps",
        like: None,
        file: ENTRY,
        find: "if count > MAX_COUNT {",
        replace: "if false {",
        caught_by: Layer::Unit,
    },
    // A refusal in the middle of a long range hides what is done already.
    Mutation {
        name: "progress-lost-on-a-late-refusal",
        like: None,
        file: RANGE,
        find: "Err(refusal) if done == 0 => return Err(refusal),",
        replace: "Err(refusal) if done <= span.frames() => return Err(refusal),",
        caught_by: Layer::Unit,
    },
    // An address in the middle of a page passes for one of a page.
    Mutation {
        name: "misaligned-range-accepted",
        like: None,
        file: RANGE,
        find: "if range.base & (hyp_abi::FRAME_SIZE - 1) != 0 {",
        replace: "if false {",
        caught_by: Layer::Unit,
    },
    // An access to memory that is not the host's is tried again and again.
    Mutation {
        name: "forbidden-access-retried",
        like: None,
        file: ABORT,
        find: "state if state.host_may_access() => AbortVerdict::Retry,",
        replace: "state if state != State::Reserved => AbortVerdict::Retry,",
        caught_by: Layer::Unit,
    },
    // A CPU that met a mapping in the middle of its change gets an exception for its own memory.
    Mutation {
        name: "own-memory-refused-during-a-change",
        like: None,
        file: ABORT,
        find: "state if state.host_may_access() => AbortVerdict::Retry,",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The host executes from device registers.
    Mutation {
        name: "fetch-from-a-device-allowed",
        like: None,
        file: ABORT,
        find: "if access == HostAccess::Fetch || address.value() >> self.host.ia_bits() != 0 {",
        replace: "if address.value() >> self.host.ia_bits() != 0 {",
        caught_by: Layer::Unit,
    },
    // A large mapping of device registers covers those that EL2 keeps.
    Mutation {
        name: "device-block-over-registers-of-el2",
        like: None,
        file: ABORT,
        find: "&& !taken(start.value(), span.end())",
        replace: "",
        caught_by: Layer::Unit,
    },
    // The host is told how many pins a page has that is not its own.
    Mutation {
        name: "count-of-a-foreign-frame-told",
        like: None,
        file: QUERY,
        find: "if state == FrameState::NotYours {",
        replace: "if false {",
        caught_by: Layer::Specification,
    },
    // A block of the host is rebuilt over memory that is not.
    Mutation {
        name: "pages-in-transit-are-the-hosts",
        like: None,
        file: STATE,
        find: "| Self::GuestSharedHost
                | Self::Device
        )",
        replace: "| Self::GuestSharedHost
                | Self::InTransit
                | Self::Device
        )",
        caught_by: Layer::Unit,
    },
    // A region loses its node while a page of it is pinned, and the unpinning needs a new one that may not be there.
    Mutation {
        name: "node-of-a-pinned-page-folded",
        like: None,
        file: REGION,
        find: "if in_work || counted {",
        replace: "if in_work {",
        caught_by: Layer::Unit,
    },
    // The same for a region that guests borrow.
    Mutation {
        name: "node-of-a-lent-page-folded",
        like: None,
        file: REGION,
        find: "State::HostSharedHyp | State::HostSharedGuest) && entry.count() > 0",
        replace: "State::HostSharedHyp) && entry.count() > 0",
        caught_by: Layer::Unit,
    },
    // The same for a region on which a CPU is at work.
    Mutation {
        name: "node-in-work-folded",
        like: None,
        file: REGION,
        find: "if in_work || counted {",
        replace: "if counted {",
        caught_by: Layer::Concurrency,
    },
    // The count of neighbours that differ drifts.
    Mutation {
        name: "neighbours-miscounted",
        like: None,
        file: REGION,
        find: "if end < H::Geometry::ENTRIES && !self.read(page, end - 1).agrees_with_next(self.read(page, end)) {",
        replace: "if end + 1 < H::Geometry::ENTRIES && !self.read(page, end - 1).agrees_with_next(self.read(page, end)) {",
        caught_by: Layer::Unit,
    },
    // A trace goes on to a page that is no longer pinned.
    Mutation {
        name: "trace-detached-without-asking-the-last-word",
        like: None,
        file: SHARE,
        find: "if let Err(status) = last_word() {
            permit.finish(false);
            return Err(status.into());
        }",
        replace: "let _ = last_word();",
        caught_by: Layer::Unit,
    },
    // A ring that a CPU has already is pinned a second time.
    Mutation {
        name: "second-trace-ring-keeps-its-pin",
        like: None,
        file: HYPERCALL,
        find: "if ownership.hardware().trace_ring(cpu).is_some() {
            return Err(Status::WrongTraceState.into());
        }",
        replace: "",
        caught_by: Layer::Unit,
    },
    // A function identifier of 64 bits is cut to 32.
    Mutation {
        name: "function-identifier-cut",
        like: None,
        file: "hyp/abi/src/host_call.rs",
        find: "let id = match CallId::from_register(function) {",
        replace: "let id = match CallId::from_register(function & 0xffff_ffff) {",
        caught_by: Layer::Unit,
    },
];
