//! `/dev/kvm`, and the module as a whole.

use crate::kvm::abi::{CHECK_EXTENSION, CREATE_VM, GET_API_VERSION, GET_VCPU_MMAP_SIZE, VM_TYPE_PROTECTED};
use crate::kvm::fake::Machine;
use crate::kvm::{Refusal, System, capability, statistics};
use crate::linux::Level;
use crate::{Errno, linux};
use hyp_abi::{CallId, HostCallId, Status, VERSION, Version, VmCallId};
use std::sync::Arc;

fn started() -> (Machine, Arc<System<Machine>>) {
    let machine = Machine::new();
    let system = System::start(machine.clone()).unwrap();
    (machine, system)
}

#[test]
fn without_freehold_nothing_is_called() {
    let machine = Machine::new().without_freehold();
    assert_eq!(System::start(machine.clone()).unwrap_err(), Refusal::NoFreehold);
    assert_eq!(machine.el2.log(), []);
}

#[test]
fn another_version_is_refused_unless_it_only_has_more_calls() {
    let version = |major, minor| {
        let machine = Machine::new();
        machine.el2.set_version(Version { major, minor });
        System::start(machine).map(drop)
    };
    let Version { major, minor } = VERSION;
    assert_eq!(version(major, minor + 1), Ok(()));
    for (major, minor) in [(major + 1, minor), (major, minor - 1)] {
        let other = Version { major, minor };
        assert_eq!(version(major, minor), Err(Refusal::OtherVersion(other)));
    }
    let said = Refusal::OtherVersion(Version { major: 9, minor: 7 }).to_string();
    assert!(said.contains("9.7"), "{said}");
}

#[test]
fn an_el2_that_does_not_answer_is_refused() {
    let machine = Machine::new();
    machine
        .el2
        .refuse_next(CallId::Host(HostCallId::Version), Status::NotSupported);
    assert!(matches!(
        System::start(machine).unwrap_err(),
        Refusal::NoAnswer(_)
    ));
}

#[test]
fn commands_answer_as_kvm_documents_them() {
    let (_, system) = started();
    assert_eq!(system.ioctl(GET_API_VERSION, 0), Ok(12));
    assert_eq!(system.ioctl(GET_VCPU_MMAP_SIZE, 0), Ok(4096));
    for command in [GET_API_VERSION, GET_VCPU_MMAP_SIZE] {
        assert_eq!(system.ioctl(command, 1), Err(Errno::INVAL));
    }
    for command in [0, 0xAE02, 0xAEFF, u32::MAX] {
        assert_eq!(system.ioctl(command, 0), Err(Errno::INVAL));
    }
}

#[test]
fn capabilities_are_those_of_the_table_and_no_others() {
    let (_, system) = started();
    let known: Vec<_> = capability::ALL
        .iter()
        .map(|capability| *capability as u64)
        .collect();
    for number in (0..400).chain([u64::MAX]) {
        let answer = system.ioctl(CHECK_EXTENSION, number).unwrap();
        assert_eq!(answer != 0, known.contains(&number), "{number}");
    }
}

#[test]
fn vms_have_the_sizes_that_the_machine_has() {
    let (machine, system) = started();
    for kind in 0..=0xFF_u64 {
        let valid = kind == 0 || (32..=44).contains(&kind);
        for kind in [kind, kind | VM_TYPE_PROTECTED] {
            match system.ioctl(CREATE_VM, kind) {
                Ok(descriptor) => machine.close(descriptor),
                Err(error) => assert_eq!((valid, error), (false, Errno::INVAL), "{kind:#x}"),
            }
        }
    }
    assert_eq!(system.ioctl(CREATE_VM, 1 << 8), Err(Errno::INVAL));
    system.stop();
    machine.assert_nothing_left();
}

#[test]
fn a_vm_is_commanded_by_its_own_process_only() {
    let (machine, system) = started();
    let vm = machine.object(system.ioctl(CREATE_VM, 0).unwrap());
    assert_eq!(Arc::clone(&vm).ioctl(CHECK_EXTENSION, 9), Ok(2));
    assert_eq!(Arc::clone(&vm).ioctl(CREATE_VM, 0), Err(Errno::INVAL));
    machine.become_process(2);
    assert_eq!(Arc::clone(&vm).ioctl(CHECK_EXTENSION, 9), Err(Errno::IO));
}

#[test]
fn wherever_memory_is_short_a_vm_is_refused_and_nothing_is_left() {
    for allocations in 0.. {
        let (machine, system) = started();
        machine.fail_after(Some(allocations));
        let made = system.ioctl(CREATE_VM, VM_TYPE_PROTECTED);
        machine.fail_after(None);
        match made {
            Err(error) => assert_eq!(error, Errno::NOMEM),
            Ok(descriptor) => machine.close(descriptor),
        }
        system.stop();
        machine.assert_nothing_left();
        if made.is_ok() {
            assert!(allocations > 0);
            return;
        }
    }
}

#[test]
fn a_vm_that_cannot_end_is_ended_later() {
    let (machine, system) = started();
    let descriptor = system.ioctl(CREATE_VM, 0).unwrap();
    machine
        .el2
        .refuse_next(CallId::Vm(VmCallId::Destroy), Status::VcpuRunning);
    machine.close(descriptor);
    assert_eq!(machine.el2.vms(), 1);
    let another = system.ioctl(CREATE_VM, 0).unwrap();
    assert_eq!(machine.el2.vms(), 1);
    machine.close(another);
    system.stop();
    machine.assert_nothing_left();
    assert!(machine.log_lines().iter().all(|(level, _)| *level == Level::Info));
}

#[test]
fn a_vm_that_cannot_end_is_ended_when_another_goes() {
    let (machine, system) = started();
    let [one, other] = [0; 2].map(|kind| system.ioctl(CREATE_VM, kind).unwrap());
    machine
        .el2
        .refuse_next(CallId::Vm(VmCallId::Destroy), Status::VcpuRunning);
    machine.close(one);
    assert_eq!(machine.el2.vms(), 2);
    machine.close(other);
    assert_eq!(machine.el2.vms(), 0);
}

#[test]
fn figures_tell_what_there_is() {
    let (machine, system) = started();
    let figure = |name: &str| {
        let text = statistics::show(&system, statistics::File::Statistics);
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    assert_eq!((figure("vms"), figure("el2_pages_given")), (0, 0));
    let descriptor = system.ioctl(CREATE_VM, VM_TYPE_PROTECTED).unwrap();
    assert_eq!(figure("vms"), 1);
    assert!(figure("el2_pages_given") >= 2);
    assert_eq!(figure("el2_pages_given"), figure("frames_el2"));
    let lines = statistics::show(&system, statistics::File::Vms);
    let vm = lines.lines().nth(1).unwrap();
    assert!(vm.starts_with("1 protected 0 0 0 "), "{vm}");
    assert_eq!(
        lines.lines().next().unwrap().split(' ').count(),
        vm.split(' ').count()
    );
    let text = machine.object(descriptor).describe();
    let told: Vec<_> = text.lines().filter_map(|line| line.split_once(":\t")).collect();
    assert_eq!(told[0], ("freehold-vm", "1"));
    // Of EL2's pages two at least are for its one VM: its own, and its root.
    let el2 = told.iter().find(|(name, _)| *name == "freehold-el2").unwrap().1;
    assert!(el2.parse::<u64>().unwrap() >= 2 * 4096, "{text}");
    machine.close(descriptor);
    assert_eq!(figure("vms"), 0);
}

#[test]
fn the_wrong_object_is_not_taken_for_another() {
    #[derive(Debug)]
    struct Other;
    impl linux::Descriptor for Other {
        fn ioctl(self: Arc<Self>, _: u32, _: u64) -> Result<u64, Errno> {
            Err(Errno::NOTTY)
        }
    }
    let other: Arc<dyn linux::Descriptor> = Arc::new(Other);
    assert!(linux::downcast::<crate::kvm::Vm<Machine>>(Arc::clone(&other)).is_err());
    assert!(linux::downcast::<Other>(other).is_ok());
}
