//! How much is lost, and whether it is more than a bad line loses by itself.

/// The share of a path's bytes that may be lost without being taken for congestion.
pub(super) const TOLERATED: f64 = 0.08;

/// So many datagrams are judged together. Bursts are shorter than that.
const JUDGED_DATAGRAMS: f64 = 400.0;
/// Fewer are not judged at all: of 24, a line that loses 5 % loses a quarter once in a thousand times, and they are looked at often.
const JUDGED_DATAGRAMS_MIN: f64 = 48.0;
/// Chance alone passes this many standard deviations once in a thousand.
const CERTAIN_DEVIATIONS: f64 = 3.0;

/// Counts what arrives and what is lost, and forgets slowly.
#[derive(Clone, Debug, Default)]
pub(super) struct LossMeter {
    arrived: f64,
    lost: f64,
}

impl LossMeter {
    /// Counts datagrams that arrived and that were lost; fractions of a full one count as such.
    pub(super) fn count(&mut self, arrived: f64, lost: f64) {
        self.arrived += arrived;
        self.lost += lost;
        let judged = self.arrived + self.lost;
        if judged > JUDGED_DATAGRAMS {
            let kept = JUDGED_DATAGRAMS / judged;
            self.arrived *= kept;
            self.lost *= kept;
        }
    }

    /// Whether more is lost than is tolerated, by more than chance explains.
    pub(super) fn is_excessive(&self) -> bool {
        let judged = self.arrived + self.lost;
        if judged < JUDGED_DATAGRAMS_MIN {
            return false;
        }
        let deviation = (TOLERATED * (1.0 - TOLERATED) / judged).sqrt();
        self.lost / judged > TOLERATED + CERTAIN_DEVIATIONS * deviation
    }

    /// Starts to count anew: what is lost from now on is judged by itself.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
