//! What a guest has written to.

use super::*;

fn dirty(vm: &Vm<Fake>) -> Result<Vec<u64>, Error> {
    let mut pages = Vec::new();
    let result = vm.take_dirty(0, &mut |window, bits| {
        assert!(window.end - window.start == 64 || window == (128..130));
        pages.extend(window.filter(|page| bits >> (page % 64) & 1 != 0));
        Ok(())
    });
    result.map(|()| pages)
}

#[test]
fn what_the_guest_writes_to_is_kept_once_for_each_time_it_is_asked() {
    let (process, mut vcpu) = Process::launched(130);
    let vm = &process.vm;
    let dirty = || dirty(vm);
    process.run(&mut vcpu, [Act::Write(GFN + 3, 1)]).unwrap();
    assert_eq!(dirty(), Err(Error::NotFound));
    vm.set_logs(0, true).unwrap();
    assert_eq!(dirty().unwrap(), []);
    let acts = [
        Act::Expect(GFN, 0),
        Act::Write(GFN + 3, 2),
        Act::Expect(GFN + 4, 0),
        Act::Write(GFN + 64, 2),
        Act::Write(GFN + 129, 2),
        Act::Write(GFN + 4, 2),
    ];
    process.run(&mut vcpu, acts).unwrap();
    assert_eq!(dirty().unwrap(), [3, 4, 64, 129]);
    assert_eq!(dirty().unwrap(), []);
    process.run(&mut vcpu, [Act::Write(GFN + 4, 3)]).unwrap();
    // What is taken from the process was written to all the same.
    process.unmap(PAGE + 4..PAGE + 5);
    assert_eq!(dirty().unwrap(), [4]);
    vm.set_logs(0, false).unwrap();
    assert_eq!(dirty(), Err(Error::NotFound));
    process.run(&mut vcpu, [Act::Write(GFN + 3, 4)]).unwrap();
    drop(vcpu);
    process.end();
}

/// Known bug: what was written to before a move was forgotten.
#[test]
fn a_slot_that_moves_keeps_what_was_written_to() {
    let (process, mut vcpu) = Process::launched(130);
    let vm = &process.vm;
    vm.set_logs(0, true).unwrap();
    let acts = [Act::Write(GFN + 3, 1), Act::Write(GFN + 129, 1)];
    process.run(&mut vcpu, acts).unwrap();
    vm.move_user_slot(0, IPA + 1000 * P).unwrap();
    process.run(&mut vcpu, [Act::Write(GFN + 1005, 2)]).unwrap();
    assert_eq!(dirty(vm).unwrap(), [3, 5, 129]);
    assert_eq!(dirty(vm).unwrap(), []);
    drop(vcpu);
    process.end();
}

/// Known bug: a slot as large as a slot may be was gone through in one go, partly with interrupts off.
#[test]
fn a_large_slot_is_gone_through_in_parts() {
    const PAGES: u64 = 1 << 22;
    let process = Process::new();
    let (vm, fake) = (&process.vm, &process.machine.fake);
    vm.add_user_slot(slot(0, GFN, PAGE, PAGES)).unwrap();
    let mut before = fake.pauses();
    let mut has_paused = |what: &str| {
        let now = fake.pauses();
        assert!(now - before >= 256, "{what}: {} pauses", now - before);
        before = now;
    };
    vm.set_logs(0, true).unwrap();
    has_paused("to begin");
    vm.take_dirty(0, &mut |_, bits| {
        assert_eq!(bits, 0);
        Ok(())
    })
    .unwrap();
    has_paused("to ask");
    vm.set_logs(0, false).unwrap();
    has_paused("to end");
    fake.set_killed(true);
    assert_eq!(vm.set_logs(0, true), Err(Error::Interrupted));
    assert_eq!(vm.take_dirty(0, &mut |_, _| Ok(())), Err(Error::Interrupted));
    fake.set_killed(false);
    process.end();
}
