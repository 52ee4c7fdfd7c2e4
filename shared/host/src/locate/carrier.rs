//! IPv6 addresses that carry IPv4 addresses. Takes an IPv6 address, returns its [`Carrier`] or the IPv4 address that it
//! carries. Called for each client whose address is IPv6, because such a client is located by the IPv4 address.

use std::net::{IpAddr, Ipv4Addr};

use crate::locate::ranges::Bits;

/// A block of IPv6 addresses that carry IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    /// The first address of the block.
    pub first: u128,
    /// The length of the block's prefix.
    pub length: u8,
    /// The bit of the IPv6 address at which the IPv4 address begins.
    pub at: u8,
    /// Whether the bits of the IPv4 address are inverted.
    flipped: bool,
}

/// The blocks: v4-mapped, ::ffff:0:0/96 (RFC 4291 §2.5.5.2); NAT64, 64:ff9b::/96 (RFC 6052 §2.1); Teredo, 2001::/32
/// (RFC 4380 §4); 6to4, 2002::/16 (RFC 3056 §2).
pub const CARRIERS: [Carrier; 4] = [
    Carrier { first: 0xffff << 32, length: 96, at: 96, flipped: false },
    Carrier { first: 0x0064_ff9b << 96, length: 96, at: 96, flipped: false },
    Carrier { first: 0x2001_0000 << 96, length: 32, at: 96, flipped: true },
    Carrier { first: 0x2002 << 112, length: 16, at: 16, flipped: false },
];

/// The index of v4-mapped addresses in [`CARRIERS`].
pub const MAPPED: usize = 0;

impl Carrier {
    /// The block that an address is in.
    #[inline]
    #[must_use]
    pub fn of(address: u128) -> Option<Self> {
        CARRIERS.into_iter().find(|carrier| carrier.holds(address))
    }

    /// Whether an address is in the block.
    #[inline]
    #[must_use]
    pub fn holds(self, address: u128) -> bool {
        (self.first..=self.first.last(self.length)).contains(&address)
    }

    /// The IPv4 address that an address of the block carries.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the low 32 bits are meant
    pub fn inside(self, address: u128) -> u32 {
        let bits = (address >> (128 - 32 - self.at)) as u32;
        if self.flipped { !bits } else { bits }
    }
}

/// The IPv4 address that an IPv6 address carries: v4-mapped, NAT64, 6to4 or Teredo.
#[must_use]
pub fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(outer) = address else { return None };
    let outer = outer.to_bits();
    Carrier::of(outer).map(|carrier| Ipv4Addr::from_bits(carrier.inside(outer)))
}
