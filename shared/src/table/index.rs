//! Positions in a [`super::Table`]. Each kind of part has a type of its own, so that a region's position is never
//! mistaken for a service's.

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// The position as an array index.
            #[must_use]
            pub fn get(self) -> usize {
                self.0 as usize
            }

            // A document with more than 2^32 names doesn't fit in memory.
            #[allow(clippy::cast_possible_truncation)]
            pub(crate) fn new(position: usize) -> Self {
                Self(position as u32)
            }
        }
    };
}

index!(
    /// A region's position in its table. It means nothing in another table.
    RegionIndex
);
index!(
    /// A service's position in its table.
    ServiceIndex
);
index!(
    /// A tenant's position in its table.
    TenantIndex
);
index!(
    /// A quota's position in its table.
    QuotaIndex
);
index!(
    /// A service tier's position in its table.
    TierIndex
);
index!(
    /// A replica's position in its table; below [`ReplicaSet::MOST`](crate::health::ReplicaSet::MOST).
    ReplicaIndex
);
index!(
    /// A release's position in its table.
    ReleaseIndex
);
index!(
    /// A sink's position in its table.
    SinkIndex
);
index!(
    /// A jurisdiction's position in its table.
    JurisdictionIndex
);
