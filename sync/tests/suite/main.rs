//! The promises of this crate, tested from outside: over the simulator, over real connections, and against bytes that
//! released versions wrote.

mod fleet;
mod golden;
mod invariants;
mod liars;
mod regressions;
mod selection;
mod transport;
