//! Calls of a guest: whatever is in its registers has a meaning, and each meaning has its registers.

use super::reader::Reader;
use hyp_abi::guest_call::{GuestCallId, HOST_SERVICE_FIRST, HOST_SERVICE_LAST, feature_bit};
use hyp_abi::vm_call::VmCallId;
use hyp_abi::{HostCall, VmCall, VmHandle};
use hyp_core::psci::is_psci;

/// Decodes the registers of an input.
///
/// # Panics
/// If what was decoded is not what was there.
pub fn guest_calls(data: &[u8]) {
    let mut reader = Reader::new(data);
    while !reader.is_empty() {
        let function = reader.register();
        guest_call(function);
        let arguments = std::array::from_fn(|_| reader.register());
        for id in VmCallId::all() {
            vm_call(id, arguments);
        }
        if let Some(handle) = VmHandle::from_register(arguments[0]) {
            assert_eq!(handle.to_register(), arguments[0]);
        }
    }
}

fn guest_call(function: u64) {
    let Ok(function) = u32::try_from(function) else {
        return;
    };
    let of_the_host = (HOST_SERVICE_FIRST..=HOST_SERVICE_LAST).contains(&function);
    if let Ok(id) = GuestCallId::try_from(function) {
        assert_eq!(u32::from(id), function);
        assert!(!of_the_host && !is_psci(function), "{id:?} has two meanings");
        assert!(feature_bit(id).is_none_or(|bit| bit < 128));
    }
    assert!(
        !(of_the_host && is_psci(function)),
        "{function:#x} has two meanings"
    );
}

/// A call that was decoded, encoded and decoded again is the same.
fn vm_call(id: VmCallId, arguments: [u64; 6]) {
    let call = VmCall::decode(id, arguments);
    assert_eq!(call.id(), id);
    assert_eq!(HostCall::decode(call.encode()), Ok(HostCall::Vm(call)));
}
