//! Going back to an earlier state of a machine, for searches that try many calls from one state.

use super::contents::Memory;
use super::pool::Pool;
use super::{Machine, held};
use crate::addr::{Frame, FrameSpan};
use crate::geometry::Geometry;
use crate::map::OwnershipMap;
use crate::sync::Ordering;
use std::vec::Vec;

/// A state of a machine and its map: tables, nodes, pool, contents, rings and totals. Not what the TLB holds, the log
/// and the counters.
#[derive(Clone, Debug)]
pub struct Snapshot {
    map: Vec<u64>,
    tables: Vec<(Frame, Vec<u64>)>,
    pool: Pool,
    memory: Memory,
    rings: Vec<Option<Frame>>,
    totals: Vec<i64>,
}

impl<G: Geometry> Machine<G> {
    /// The state of the machine, and of the map that belongs to it. `memory` is all RAM whose frames may ever be
    /// tables or nodes.
    #[must_use]
    pub fn snapshot(&self, map: &OwnershipMap<'_, G>, memory: &[FrameSpan]) -> Snapshot {
        let pool = self.pool.lock().clone();
        Snapshot {
            map: map
                .words()
                .iter()
                .map(|word| word.load(Ordering::Relaxed))
                .collect(),
            tables: memory
                .iter()
                .flat_map(|span| span.iter())
                .filter(|frame| pool.is_used(*frame))
                .map(|frame| {
                    let words = self.tables.get(frame).iter();
                    (frame, words.map(|word| word.load(Ordering::Relaxed)).collect())
                })
                .collect(),
            pool,
            memory: held(&self.memory).clone(),
            rings: self.script.rings(),
            totals: self.script.totals(),
        }
    }

    /// Goes back to `snapshot`. Whatever the TLB was watching is forgotten.
    pub fn restore(&self, map: &OwnershipMap<'_, G>, snapshot: &Snapshot) {
        self.unwatch();
        for (word, old) in map.words().iter().zip(&snapshot.map) {
            word.store(*old, Ordering::Relaxed);
        }
        for (frame, words) in &snapshot.tables {
            for (word, old) in self.tables.get(*frame).iter().zip(words) {
                word.store(*old, Ordering::Relaxed);
            }
        }
        self.pool.lock().clone_from(&snapshot.pool);
        held(&self.memory).clone_from(&snapshot.memory);
        self.script.restore(&snapshot.rings, &snapshot.totals);
    }
}
