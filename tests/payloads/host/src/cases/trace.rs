//! The trace rings.

use super::support::{ensure_refused, ensure_state, fill_pool, frames};
use crate::hypercall::HYPERVISOR;
use crate::probe::{self, Access, Level};
use crate::registry::{Outcome, case, ensure, ensure_eq, succeed};
use hyp_abi::trace::{RECORD_SIZE, TraceEvent};
use hyp_abi::{FRAME_SIZE, FrameState, HostCall, Status};

/// The records of a ring: sequence number, event, arguments.
fn records(frame: u64) -> impl Iterator<Item = Result<[u64; 4], Outcome>> {
    (frame..frame + FRAME_SIZE)
        .step_by(RECORD_SIZE as usize)
        .map(|at| {
            let mut record = [0; 4];
            for (index, word) in record.iter_mut().enumerate() {
                *word = succeed!(probe::access(Level::El1, Access::Load8, at + index as u64 * 8, 0));
            }
            Ok(record)
        })
}

case!(a_ring_records_what_its_cpu_does, {
    fill_pool()?;
    let frames = frames(2)?;
    let ring = frames.frame(0);
    frames.part_of(0).zero();
    succeed!(HYPERVISOR.share(frames.one(0)));
    succeed!(HYPERVISOR.trace_attach(0, ring));
    ensure_state(ring, FrameState::HostSharedHyp, 1)?;
    succeed!(HYPERVISOR.donate(frames.one(1)));
    succeed!(HYPERVISOR.reclaim(frames.one(1)));
    succeed!(HYPERVISOR.trace_detach(0));
    let mut seen = [0_u32; 5];
    let mut donated = false;
    for record in records(ring) {
        let [_, event, first, second] = record?;
        if event == 0 {
            continue;
        }
        let Ok(event) = TraceEvent::try_from(event) else {
            return Err(Outcome::Failed(crate::registry::Failure {
                file: file!(),
                line: line!(),
                text: crate::registry::text(format_args!("event {event:#x} is not known")),
            }));
        };
        seen[event as usize] += 1;
        donated |= event == TraceEvent::Transition && first == frames.frame(1) && second as u32 == 1;
    }
    ensure!(donated, "no transition of the donated frame was recorded");
    for event in [
        TraceEvent::Entry,
        TraceEvent::Exit,
        TraceEvent::Transition,
        TraceEvent::Tlbi,
    ] {
        ensure!(seen[event as usize] > 0, "no {event:?} was recorded: {seen:?}");
    }
    ensure_state(ring, FrameState::HostSharedHyp, 0)?;
    succeed!(HYPERVISOR.unshare(frames.one(0)));
    frames.free();
    Ok(())
});

case!(a_detached_ring_is_written_no_more, {
    fill_pool()?;
    let frame = frames(1)?;
    succeed!(HYPERVISOR.share(frame.range()));
    succeed!(HYPERVISOR.trace_attach(0, frame.frame(0)));
    ensure_refused(HostCall::UnshareHyp(frame.range()), Status::Pinned, &[])?;
    succeed!(HYPERVISOR.trace_detach(0));
    frame.fill(0xabc);
    for _ in 0..200 {
        succeed!(HYPERVISOR.version());
    }
    ensure_eq!(
        frame.find_wrong(|address| 0xabc ^ address),
        None,
        "the ring's frame after its end"
    );
    succeed!(HYPERVISOR.unshare(frame.range()));
    frame.free();
    Ok(())
});
