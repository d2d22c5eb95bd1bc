//! A mistake of ours: it is told, and the task ends as the kernel's own do.

use super::skin;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// A line of bounded length, for where nothing can be allocated. What does not fit is left out.
pub(super) struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl<const N: usize> Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.bytes.get_mut(self.length..).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(text.bytes()) {
            *to = from;
            self.length += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line::<200>::new();
    // What does not fit is left out.
    let _ = write!(line, "{info}");
    let text = line.as_bytes();
    // SAFETY: the text is there until the function returns, which it does not.
    unsafe { skin::fh_panic(text.as_ptr(), text.len()) }
}
