//! What the node promises to those who use its parts.

mod node {
    mod bundles;
    mod lan;
    mod local;
    mod replication;
}

mod store {
    mod absence;
    mod blobs;
    mod compact;
    mod copies;
    mod crash;
    mod damage;
    mod erase;
    mod model;
    mod promises;
    mod quarantine;
    mod returning;
    mod room;
    pub(crate) mod samples;
    mod selection;
    mod together;
}
