# Cases that must be seen to fail, each for a reason of its own: they test the harness.

case_a_command_fails() {
    false
    true
}

case_a_command_among_pages_fails() {
    with_pages failing_part 0
}

failing_part() {
    $probe touch $PAGE --no-oops --all refused
    true
}

case_an_oops_that_nobody_expected() {
    $probe el1 read --bare $FREEHOLD >/dev/null || true
}

case_the_kernel_complains() {
    echo '<3>something is broken' >/dev/kmsg
}

case_a_warning_tells_of_trouble() {
    echo '<4>rcu: self-detected stall on CPU' >/dev/kmsg
}
