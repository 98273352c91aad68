//! What the node promises to those who use its parts.

mod store {
    mod blobs;
    mod crash;
    mod damage;
    mod model;
    mod promises;
    mod returning;
    mod room;
    mod samples;
    mod selection;
}
