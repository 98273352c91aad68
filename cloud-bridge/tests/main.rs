//! Tests of the bridge.
