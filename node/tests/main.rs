//! What the node promises to those who use its parts.

mod replication;
mod store {
    mod blobs;
    mod crash;
    mod damage;
    mod model;
    mod promises;
    pub(crate) mod samples;
}
