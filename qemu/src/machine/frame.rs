//! Frames of a machine's memory, as whoever has read it looks at them.

/// Bytes of a frame.
pub(crate) const FRAME: u64 = hyp_abi::FRAME_SIZE;

/// A frame that was never touched.
const NOTHING: [u8; FRAME as usize] = [0; FRAME as usize];

/// Whether a frame, or what there is of it, holds nothing: most of a machine's memory was never touched.
pub(crate) fn is_empty(frame: &[u8]) -> bool {
    NOTHING.get(..frame.len()) == Some(frame)
}
