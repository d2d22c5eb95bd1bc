//! The words of the frames that serve as tables. A frame's words come into being when they are first looked at.

use crate::addr::{Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::hardware::TablePage;
use crate::sync::{AtomicU64, Ordering};
use core::marker::PhantomData;
use std::boxed::Box;
use std::sync::OnceLock;
use std::vec::Vec;

/// Frames whose words are found together.
const CHUNK: u64 = 512;

type Words = Box<[AtomicU64]>;
type Chunk = Box<[OnceLock<Words>]>;

/// The words of all frames of some spans.
#[derive(Debug)]
pub(super) struct TableStore<G: Geometry> {
    spans: Vec<(FrameSpan, Box<[OnceLock<Chunk>]>)>,
    geometry: PhantomData<G>,
}

fn empty<T>(count: u64) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

impl<G: Geometry> TableStore<G> {
    pub(super) fn new(spans: impl IntoIterator<Item = FrameSpan>) -> Self {
        Self {
            spans: spans
                .into_iter()
                .map(|span| (span, empty(span.frames().div_ceil(CHUNK))))
                .collect(),
            geometry: PhantomData,
        }
    }

    /// The words of a frame.
    pub(super) fn get(&self, frame: Frame) -> &[AtomicU64] {
        let (span, chunks) = self
            .spans
            .iter()
            .find(|(span, _)| span.contains(frame))
            .expect("a table lies in the machine's memory");
        let offset = frame.number() - span.start().number();
        let chunk = chunks[(offset / CHUNK) as usize].get_or_init(|| empty(CHUNK));
        chunk[(offset % CHUNK) as usize].get_or_init(|| (0..G::ENTRIES).map(|_| AtomicU64::new(0)).collect())
    }

    /// Zeroes a frame.
    pub(super) fn clear(&self, frame: Frame) {
        for word in self.get(frame) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// One word, as a table walk reads it; `None` if `page` is not memory.
    pub(super) fn read(&self, page: TablePage, index: usize) -> Option<u64> {
        self.spans
            .iter()
            .any(|(span, _)| span.contains(page.frame()))
            .then(|| self.get(page.frame())[index].load(Ordering::Acquire))
    }
}
