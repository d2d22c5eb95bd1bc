//! Cases apart from each other: each in a child, which may die.
#![expect(unsafe_code, reason = "forks and waits")]

use crate::Outcome;
use std::io::{Error, Result, Write as _, stdout};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Seconds until a child that does not end is killed.
const PATIENCE: libc::c_uint = 60;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Has a child do something, and end with the status that it answers.
fn fork(work: impl FnOnce() -> i32) -> Result<libc::pid_t> {
    stdout().flush()?;
    // SAFETY: where other threads are at work, the child touches memory that is mapped and makes system calls only: it waits
    // for nothing that one of them may have had.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        0 => {
            let status = work();
            // SAFETY: nothing of the parent's is to be run at the child's end.
            unsafe { libc::_exit(status) }
        }
        child => Ok(child),
    }
}

/// Says why something failed, if it did: the status of a child that did it.
fn say(outcome: Outcome) -> i32 {
    let status = match outcome {
        Ok(()) => 0,
        Err(why) => {
            println!("{why}");
            1
        }
    };
    let _ = stdout().flush();
    status
}

/// Runs something in a child, which says why it failed if it did. There are no other threads.
pub(crate) fn in_child(work: impl FnOnce() -> Outcome) -> Result<Ended> {
    wait(fork(|| {
        // SAFETY: the child has no other use for the alarm.
        unsafe { libc::alarm(PATIENCE) };
        say(work())
    })?)
}

/// A child that shares what is mapped, and does something with it. Other threads may be at work. A fault kills it by the
/// signal of that fault: a handler has a stack of its own, whose memory it might not get.
fn apart_from(work: impl FnOnce()) -> Result<libc::pid_t> {
    fork(|| {
        for fault in [libc::SIGBUS, libc::SIGSEGV] {
            // SAFETY: it takes the handler away, which nothing in the child needs.
            unsafe { libc::signal(fault, libc::SIG_DFL) };
        }
        work();
        0
    })
}

/// Does something in a child that shares what is mapped, and tells how that ends. Other threads may be at work.
pub(crate) fn apart(work: impl FnOnce()) -> Result<Ended> {
    wait(apart_from(work)?)
}

/// Does something in a child, and kills that after a while. There are no other threads.
pub(crate) fn killed_after(patience: Duration, work: impl FnOnce()) -> Result<Ended> {
    let child = apart_from(work)?;
    std::thread::sleep(patience);
    kill(child)
}

/// A child that does something and then waits to be killed, and how to wait until it has: it says so by a byte.
#[derive(Debug)]
pub(crate) struct Child {
    process: libc::pid_t,
    done: std::io::PipeReader,
}

impl Child {
    /// There are no other threads.
    pub(crate) fn that(work: impl FnOnce() -> Outcome) -> Result<Self> {
        let (done, mut says) = std::io::pipe()?;
        let process = fork(|| {
            // Nobody is to wait for one whose parent is gone.
            // SAFETY: it has no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let status = say(work());
            if status != 0 {
                return status;
            }
            let _ = says.write_all(&[0]);
            loop {
                // SAFETY: it waits.
                unsafe { libc::pause() };
            }
        })?;
        Ok(Self { process, done })
    }

    /// Waits until it has done it.
    pub(crate) fn wait(&mut self) {
        use std::io::Read as _;
        let _ = self.done.read(&mut [0]);
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(self) -> Result<Ended> {
        kill(self.process)
    }
}

/// A process that has what this one has, does something, and ends. Nobody waits for it.
pub(crate) fn heir(work: impl FnOnce()) -> Result<()> {
    apart_from(work).map(drop)
}

/// Has a signal interrupt system calls, and do nothing else.
pub(crate) fn take_signals() {
    take(libc::SIGUSR1);
}

fn take(signal: libc::c_int) {
    let handler: extern "C" fn(libc::c_int) = handle;
    // SAFETY: the structure is plain numbers.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: the handler does nothing.
    unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) };
}

extern "C" fn handle(_: libc::c_int) {}

/// The calling thread, to be signalled.
pub(crate) fn this_thread() -> libc::pid_t {
    // SAFETY: it only asks.
    unsafe { libc::gettid() }
}

/// Signals a thread of this process.
pub(crate) fn signal(thread: libc::pid_t) {
    // SAFETY: it only asks.
    let process = unsafe { libc::getpid() };
    // SAFETY: it has no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
}

/// Does something that only a signal ends, or that a signal must not end: another thread does its part, and then signals this
/// one until it is over. A single signal could come before the system call that it is to interrupt, and would be lost.
pub(crate) fn until_signalled<R, T: Send>(
    part: impl FnOnce() -> T + Send,
    work: impl FnOnce() -> R,
) -> (R, T) {
    take_signals();
    let (thread, over) = (this_thread(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let signaller = scope.spawn(|| {
            let done = part();
            while !over.load(Ordering::SeqCst) {
                signal(thread);
                std::thread::sleep(Duration::from_millis(20));
            }
            done
        });
        let result = work();
        over.store(true, Ordering::SeqCst);
        let done = signaller.join().unwrap_or_else(|panic| resume_unwind(panic));
        (result, done)
    })
}

/// The same, where the first signal comes when this thread most likely waits.
pub(crate) fn until_signalled_soon<R>(work: impl FnOnce() -> R) -> R {
    until_signalled(|| std::thread::sleep(Duration::from_millis(100)), work).0
}

/// The bit of the signal that [`signal`] sends.
pub(crate) const SIGNAL: u64 = 1 << (libc::SIGUSR1 - 1);

/// Does something with a signal that waits, as this thread has it blocked. It is taken afterwards.
pub(crate) fn with_signal_waiting<R>(work: impl FnOnce() -> R) -> R {
    take_signals();
    // SAFETY: a set is plain numbers.
    let mut set: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set has a place.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGUSR1) };
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut()) };
    signal(this_thread());
    let result = work();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, core::ptr::null_mut()) };
    result
}

/// Has this process signalled once it has been at work for so many microseconds.
pub(crate) fn signal_after_work(microseconds: i64) {
    take(libc::SIGPROF);
    // SAFETY: the structure is plain numbers.
    let mut timer: libc::itimerval = unsafe { core::mem::zeroed() };
    timer.it_value.tv_usec = microseconds;
    // SAFETY: it is only read.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, core::ptr::null_mut()) };
}

/// Where the kernel tells a thread on which CPU it is, whenever it goes back to its program.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Told([AtomicU32; 8]);

impl Told {
    /// The CPU, as the kernel has told it.
    pub(crate) fn cpu(&self) -> usize {
        self.0[1].load(Ordering::SeqCst) as usize
    }
}

/// Has the kernel tell this thread, until it ends. It can be asked for once.
pub(crate) fn told_cpu() -> Result<&'static Told> {
    const SIGNATURE: u32 = 0xd428_bc00;
    let told: &'static Told = Box::leak(Box::default());
    // SAFETY: it stays, is as long, and changes only as atomics do.
    let result = unsafe { libc::syscall(libc::SYS_rseq, &raw const *told, size_of::<Told>(), 0, SIGNATURE) };
    if result == 0 {
        Ok(told)
    } else {
        Err(Error::last_os_error())
    }
}

/// Does something while this process may have no more descriptors.
pub(crate) fn without_descriptors<R>(work: impl FnOnce() -> R) -> R {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit has a place.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: it is only read.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    result
}

/// Takes from this process the right to lock memory beyond its limit.
pub(crate) fn may_not_lock_memory() {
    /// The third version: two words for each set, those that are in effect, that may be, and that are inherited.
    const VERSION: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let header = [VERSION, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: header and sets have their places.
    unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    sets[0] &= !(1 << IPC_LOCK);
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
}

/// Has this process all pages of its own that it is going to need, and keeps them: where there is no memory it does not wait
/// for one.
pub(crate) fn keep_own_memory() {
    // What it has of the stack is what was touched of it.
    let mut stack = [0_u8; 256 << 10];
    for byte in stack.iter_mut().step_by(4096) {
        // SAFETY: it is a byte of the array's.
        unsafe { core::ptr::from_mut(byte).write_volatile(1) };
    }
    // SAFETY: it has no pointers.
    unsafe { libc::mlockall(libc::MCL_CURRENT) };
}

/// Lets this process lock so many bytes.
pub(crate) fn limit_locked_memory(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: it is only read.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// Has a thread run on one CPU.
pub(crate) fn move_to(thread: libc::pid_t, cpu: usize) -> Result<()> {
    // SAFETY: a set is plain numbers.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set has a place.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: as above.
    let moved = unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) };
    if moved == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}

/// Reads a word of a child that shares what is mapped, as a debugger does.
pub(crate) fn peek(address: usize) -> Result<i64> {
    let child = fork(|| {
        // SAFETY: it has no arguments that matter.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: it stops this process until its parent goes on with it.
        unsafe { libc::raise(libc::SIGSTOP) };
        0
    })?;
    let mut status = 0;
    // SAFETY: the status has a place.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    let mut word = 0_i64;
    // The system call and not the library's function, which has no place for an error of its own.
    // SAFETY: the word has a place; the kernel checks the address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKDATA,
            child,
            address,
            &raw mut word,
        )
    };
    let error = Error::last_os_error();
    kill(child)?;
    if result == 0 { Ok(word) } else { Err(error) }
}

/// Kills a child, and waits until it is gone.
fn kill(child: libc::pid_t) -> Result<Ended> {
    // SAFETY: it is our child, which nobody has waited for.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait(child)
}

fn wait(child: libc::pid_t) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: the status has a place.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(Error::last_os_error());
    }
    Ok(if libc::WIFEXITED(status) {
        Ended::Exited(libc::WEXITSTATUS(status))
    } else {
        Ended::Killed(libc::WTERMSIG(status))
    })
}
