//! What worlds went through, in numbers.

/// What a world went through, or many.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Worlds.
    pub worlds: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Links that broke.
    pub cuts: u64,
    /// Times that links swallowed everything.
    pub holes: u64,
    /// Stores set back to an older copy.
    pub restores: u64,
    /// Cards that were written with an image of themselves.
    pub put_back: u64,
    /// Copies of cards that were started beside their originals.
    pub copies: u64,
    /// New lives that began for that.
    pub new_lives: u64,
    /// Nodes that were revoked.
    pub revoked: u64,
    /// Bundles that were carried.
    pub bundles: u64,
    /// Of these, cut off or damaged.
    pub damaged: u64,
    /// And refused for the time or their reader.
    pub refused_bundles: u64,
    /// Receipts that came home.
    pub receipts_home: u64,
    /// Records that came on sticks.
    pub carried: u64,
    /// Blobs that made way.
    pub evicted: u64,
    /// Blobs that nothing named and that were removed.
    pub swept: u64,
    /// Choices of what a node keeps.
    pub choices: u64,
    /// Records that left with a collection.
    pub left: u64,
    /// Erasures that somebody ordered.
    pub erased: u64,
    /// Receipts that were given for them.
    pub receipts: u64,
    /// Times that a link was held because of its budget or its hours.
    pub held: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Records written by people.
    pub writes: u64,
    /// Wishes that a full disk refused.
    pub refused: u64,
    /// Records received and applied, superseded or quarantined.
    pub received: u64,
    /// Of those, set aside.
    pub quarantined: u64,
    /// Blobs received whole.
    pub blobs: u64,
    /// Chunks that were sent as their difference from others.
    pub patches: u64,
    /// Blobs that rotted.
    pub rotten: u64,
    /// Damaged blobs that a scrub found.
    pub scrubbed: u64,
    /// Times that a store had no room.
    pub full: u64,
    /// Sessions that ended because of it.
    pub store_failures: u64,
    /// Packets lost.
    pub packets_lost: u64,
    /// Packets that came after later ones.
    pub packets_late: u64,
    /// Packets that came twice.
    pub packets_twice: u64,
    /// Bytes on the wire, both ways, with what heads and acknowledgements take.
    pub wire_bytes: u64,
    /// What they cost, in thousandths of a cent.
    pub cost: u64,
    /// Tombstones that were forgotten, in worlds with leases.
    pub tombstones_forgotten: u64,
    /// Times that a node came back after its lease and began to read all anew, or to sweep.
    pub read_anew: u64,
    /// Worlds in which something deleted came back with a card that passed for a new node.
    pub passed_for_new: u64,
    /// Events.
    pub events: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// The same until faults ended, times the replicas that lived through it.
    pub replica_ms: u64,
    /// The most that a session held in memory, with what waited to be sent, in bytes.
    pub held_bytes_most: u64,
    /// The longest that a world took to come to rest, in thousandths of what is allowed; where budgets stay, it is
    /// days that are allowed, and not counted here.
    pub slowest_rest_per_mille: u64,
}

impl Figures {
    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.holes += other.holes;
        self.restores += other.restores;
        self.put_back += other.put_back;
        self.copies += other.copies;
        self.new_lives += other.new_lives;
        self.revoked += other.revoked;
        self.bundles += other.bundles;
        self.damaged += other.damaged;
        self.refused_bundles += other.refused_bundles;
        self.receipts_home += other.receipts_home;
        self.carried += other.carried;
        self.evicted += other.evicted;
        self.swept += other.swept;
        self.choices += other.choices;
        self.left += other.left;
        self.erased += other.erased;
        self.receipts += other.receipts;
        self.held += other.held;
        self.sessions += other.sessions;
        self.writes += other.writes;
        self.refused += other.refused;
        self.received += other.received;
        self.quarantined += other.quarantined;
        self.blobs += other.blobs;
        self.patches += other.patches;
        self.rotten += other.rotten;
        self.scrubbed += other.scrubbed;
        self.full += other.full;
        self.store_failures += other.store_failures;
        self.packets_lost += other.packets_lost;
        self.packets_late += other.packets_late;
        self.packets_twice += other.packets_twice;
        self.wire_bytes += other.wire_bytes;
        self.cost += other.cost;
        self.tombstones_forgotten += other.tombstones_forgotten;
        self.read_anew += other.read_anew;
        self.passed_for_new += other.passed_for_new;
        self.events += other.events;
        self.virtual_ms += other.virtual_ms;
        self.replica_ms += other.replica_ms;
        self.held_bytes_most = self.held_bytes_most.max(other.held_bytes_most);
        self.slowest_rest_per_mille = self.slowest_rest_per_mille.max(other.slowest_rest_per_mille);
    }

    /// All of them with their names, for people.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("worlds", self.worlds),
            ("crashes", self.crashes),
            ("cuts", self.cuts),
            ("holes", self.holes),
            ("restores", self.restores),
            ("cards put back", self.put_back),
            ("copies started", self.copies),
            ("new lives", self.new_lives),
            ("revoked", self.revoked),
            ("bundles", self.bundles),
            ("damaged bundles", self.damaged),
            ("refused bundles", self.refused_bundles),
            ("receipts home", self.receipts_home),
            ("carried", self.carried),
            ("evicted", self.evicted),
            ("swept", self.swept),
            ("choices", self.choices),
            ("left", self.left),
            ("erased", self.erased),
            ("receipts", self.receipts),
            ("held by budgets", self.held),
            ("sessions", self.sessions),
            ("writes", self.writes),
            ("refused", self.refused),
            ("received", self.received),
            ("quarantined", self.quarantined),
            ("blobs", self.blobs),
            ("rotten", self.rotten),
            ("scrubbed", self.scrubbed),
            ("full", self.full),
            ("store failures", self.store_failures),
            ("packets lost", self.packets_lost),
            ("packets late", self.packets_late),
            ("packets twice", self.packets_twice),
            ("wire bytes", self.wire_bytes),
            ("cost", self.cost),
            ("tombstones forgotten", self.tombstones_forgotten),
            ("read anew", self.read_anew),
            ("passed for new", self.passed_for_new),
            ("events", self.events),
            ("virtual ms", self.virtual_ms),
            ("replica ms", self.replica_ms),
            ("held bytes most", self.held_bytes_most),
            ("slowest rest per mille", self.slowest_rest_per_mille),
        ]
        .into_iter()
    }
}
