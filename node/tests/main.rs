//! What the node promises to those who use its parts.

mod node {
    mod lan;
    mod local;
    mod replication;
}

mod store {
    mod blobs;
    mod crash;
    mod damage;
    mod erase;
    mod model;
    mod promises;
    mod quarantine;
    pub(crate) mod samples;
}
