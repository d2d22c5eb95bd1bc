//! Refusals in odd places, which change nothing.

use super::{HOST_REGION, assert_sound, machine, picture, span};
use crate::hypercall::host_call;
use hyp_abi::{HostCall, Status};

#[test]
fn a_pin_stays_if_the_last_word_is_no() {
    let system = machine();
    let page = span(HOST_REGION + 3, 1);
    system.share_hyp(page).unwrap();
    system.pin(page.start()).unwrap();
    let before = picture(&system);
    let refused = system.unpin_when(page.start(), || Err(Status::WrongTraceState));
    assert_eq!(refused.unwrap_err().status, Status::WrongTraceState);
    assert_eq!(picture(&system), before);
    assert_sound(&system);
    system.unpin(page.start()).unwrap();
}

#[test]
fn a_second_trace_ring_of_a_cpu_is_refused_before_it_takes_a_page() {
    let system = machine();
    // Two whole regions, so that a pin takes a node.
    system.share_hyp(span(HOST_REGION, 1024)).unwrap();
    let attach = |frame: u64| {
        let call = HostCall::TraceAttach {
            cpu: 2,
            frame: frame << 12,
        };
        host_call(&system, call.encode()).status
    };
    assert_eq!(attach(HOST_REGION + 1), Status::Success);
    let (before, pages) = (picture(&system), system.hardware().pages_in_use());
    assert_eq!(attach(HOST_REGION + 512), Status::WrongTraceState);
    assert_eq!(picture(&system), before);
    assert_eq!(system.hardware().pages_in_use(), pages);
}

#[test]
fn a_refusal_after_some_progress_is_left_to_the_call_that_resumes() {
    let system = machine();
    let frames = span(HOST_REGION, 3 * 512);
    system.share_hyp(span(HOST_REGION + 1024 + 7, 1)).unwrap();
    assert_eq!(system.share_hyp(frames), Ok(1024));
    assert_eq!(system.unshare_hyp(span(HOST_REGION, 3 * 512)), Ok(1024));
    assert_eq!(system.donate_hyp(frames), Ok(1024));
    assert_eq!(
        system
            .donate_hyp(span(HOST_REGION + 1024, 512))
            .unwrap_err()
            .status,
        Status::SharedWithHyp
    );
}
