//! Writes sets of record types. Takes the types, returns them as the bit maps of NSEC and CSYNC (RFC 4034 §4.1.2).
//! Called by the reader of zone files, and by `dnssec::denial`.

/// Appends the bit maps: one for each window of 256 types that has any of the types. Zero octets at the end of a bit
/// map are left out.
pub(crate) fn append(rdata: &mut Vec<u8>, types: impl IntoIterator<Item = u16>) {
    let mut types: Vec<u16> = types.into_iter().collect();
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut length = 0;
        for rtype in window {
            let [_, low] = rtype.to_be_bytes();
            bits[usize::from(low / 8)] |= 0x80 >> (low % 8);
            length = low / 8 + 1;
        }
        let [number, _] = window[0].to_be_bytes();
        rdata.extend_from_slice(&[number, length]);
        rdata.extend_from_slice(&bits[..usize::from(length)]);
    }
}
