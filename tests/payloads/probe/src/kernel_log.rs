//! The headline of the kernel's last oops.
#![expect(unsafe_code, reason = "a system call that fills a buffer")]

/// Actions of syslog(2): read all that is in the ring, and ask for the size of the ring.
const READ_ALL: libc::c_int = 3;
const SIZE: libc::c_int = 10;

/// The headline of the last oops in the kernel's log (`Internal error: …`), which holds the syndrome and a running
/// number; `None` if there is none, or the log cannot be read.
pub(crate) fn last_oops() -> Option<String> {
    headline(&read()?)
}

fn read() -> Option<String> {
    // SAFETY: this action takes no buffer.
    let size = unsafe { libc::klogctl(SIZE, std::ptr::null_mut(), 0) };
    let mut buffer = vec![0_u8; usize::try_from(size).ok()?];
    // SAFETY: the buffer has the size that is given.
    let length = unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), size) };
    buffer.truncate(usize::try_from(length).ok()?);
    Some(String::from_utf8_lossy(&buffer).into_owned())
}

fn headline(log: &str) -> Option<String> {
    let last = log
        .lines()
        .rev()
        .find_map(|line| line.find("Internal error:").map(|start| &line[start..]))?;
    Some(last.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_headline_counts() {
        let log = "<0>[    1.0] Internal error: Oops: 0000000096000021 [#1] SMP\n<4>[    1.0] CPU: 0\n\
                   <0>[    2.0] Internal error: Oops - Undefined instruction: 0000000002000000 [#2] SMP\n\
                   <4>[    2.1] Call trace:\n";
        let expected = "Internal error: Oops - Undefined instruction: 0000000002000000 [#2] SMP";
        assert_eq!(headline(log).as_deref(), Some(expected));
        assert_eq!(headline("<6>[    0.0] Booting Linux\n"), None);
    }
}
