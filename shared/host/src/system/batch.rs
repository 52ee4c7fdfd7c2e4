//! System calls and processor instructions that have no safe wrapper. This is the only file of the project with
//! `unsafe`.
//!
//! - [`Batch`]: many datagrams with one system call. Takes a socket, returns packets with their senders, and sends the
//!   responses. Called by the threads of the DNS server that read datagrams. `recvmmsg` and `sendmmsg` have safe
//!   wrappers, but these copy the addresses of senders twice, which takes too much time per answer. All headers for the
//!   kernel are built for one call from slices that this module owns, so no pointer outlives a borrow.
//! - [`receive_file`] and [`passed_files`]: files that another process opened and handed over. This process closes
//!   them.
//! - [`prefetch`] and [`with_huge_pages`]: hints about memory, which change no value. Used by the memo and by the
//!   tables of names and addresses.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use nix::libc::{
    self, AF_INET, AF_INET6, CMSG_DATA, CMSG_FIRSTHDR, IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO,
    MSG_DONTWAIT, MSG_WAITFORONE, in_pktinfo, in6_pktinfo, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6,
    socklen_t,
};

/// The most datagrams of one call. Numbers between 32 and 128 are equally fast.
pub const SIZE: usize = 64;
/// [`SIZE`] in the type that the kernel takes.
const COUNT: u32 = 64;
/// The largest datagram, in bytes.
const LARGEST: usize = 65_535;
/// The distance between the buffers of two packets, in bytes: a power of two and three cache lines. With a power of two
/// alone, the beginnings of all buffers would share the same lines of the cache.
const STRIDE: usize = LARGEST + 1 + 3 * 64;
/// The initial capacity of a response's buffer, in bytes; most responses fit.
const RESPONSE: usize = 2048;

/// A sender's address as the kernel writes and reads it.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    family: libc::sa_family_t,
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

/// The buffer for one control message with packet info.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The lengths of one datagram's parts.
#[derive(Clone, Copy)]
struct Envelope {
    /// The length of the packet.
    length: usize,
    /// The length of the sender's address, as the kernel wrote it.
    name: socklen_t,
    /// The length of the control message to send with the response. With 0 the kernel chooses the source address.
    control: usize,
}

/// A datagram of a batch.
#[derive(Debug)]
pub struct Datagram<'b> {
    /// The datagram's octets.
    pub packet: &'b [u8],
    /// The sender's address.
    pub from: IpAddr,
    /// The response. If it stays empty, nothing is sent.
    pub response: &'b mut Vec<u8>,
}

/// Buffers for [`SIZE`] datagrams and their responses.
pub struct Batch {
    packets: Vec<u8>,
    names: Box<[Name; SIZE]>,
    controls: Box<[Control; SIZE]>,
    envelopes: [Envelope; SIZE],
    responses: Vec<Vec<u8>>,
    /// How many datagrams the last call received.
    received: usize,
}

impl Default for Batch {
    /// Empty buffers.
    fn default() -> Self {
        // SAFETY: all bits zero are a valid value of each member of the union.
        let name: Name = unsafe { zeroed() };
        Self {
            packets: buffers(SIZE * STRIDE),
            names: Box::new([name; SIZE]),
            controls: Box::new([Control([0; 64]); SIZE]),
            envelopes: [Envelope { length: 0, name: 0, control: 0 }; SIZE],
            responses: (0..SIZE).map(|_| Vec::with_capacity(RESPONSE)).collect(),
            received: 0,
        }
    }
}

impl Batch {
    /// Receives the datagrams that have arrived, at most [`SIZE`]. With `wait`, waits for the first one until the
    /// socket's timeout.
    ///
    /// # Errors
    /// When the socket's timeout has passed, or the system reports an error.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, wait: bool) -> io::Result<usize> {
        self.received = 0;
        let mut parts = [iovec { iov_base: null_mut(), iov_len: LARGEST }; SIZE];
        let mut heads = heads();
        let buffers = self.packets.chunks_exact_mut(STRIDE).zip(self.names.iter_mut().zip(self.controls.iter_mut()));
        for ((head, part), (packet, (name, control))) in heads.iter_mut().zip(&mut parts).zip(buffers) {
            part.iov_base = packet.as_mut_ptr().cast();
            head.msg_hdr = msghdr {
                msg_name: std::ptr::from_mut(name).cast(),
                msg_namelen: length_of::<Name>(),
                msg_iov: part,
                msg_iovlen: 1,
                msg_control: control.0.as_mut_ptr().cast(),
                msg_controllen: control.0.len() as _,
                ..head.msg_hdr
            };
        }
        let flags = if wait { MSG_WAITFORONE } else { MSG_DONTWAIT };
        // SAFETY: each of the SIZE headers points at a name, a buffer of LARGEST octets and a control buffer of the
        // length given, all exclusively borrowed by this function until after the call.
        let count = unsafe { libc::recvmmsg(socket.as_raw_fd(), heads.as_mut_ptr(), COUNT, flags as _, null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for ((head, control), envelope) in heads[..count].iter().zip(self.controls.iter_mut()).zip(&mut self.envelopes)
        {
            *envelope = Envelope {
                length: head.msg_len as usize,
                name: head.msg_hdr.msg_namelen,
                control: info_for_response(head.msg_hdr.msg_controllen as _, control),
            };
        }
        // The responses of the last batch are cleared.
        self.responses[..count].iter_mut().for_each(Vec::clear);
        self.received = count;
        Ok(count)
    }

    /// The received datagrams whose senders can be answered.
    #[inline]
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let datagrams = self.packets.chunks_exact(STRIDE).zip(self.names.iter()).zip(&self.envelopes);
        datagrams.zip(&mut self.responses).take(self.received).filter_map(|(((packet, name), envelope), response)| {
            let from = address_of(name, envelope.name)?;
            Some(Datagram { packet: &packet[..envelope.length.min(LARGEST)], from, response })
        })
    }

    /// Sends the responses that aren't empty. Responses that can't be sent are skipped. Returns their number and the
    /// last error.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> (usize, Option<io::Error>) {
        let mut parts = [iovec { iov_base: null_mut(), iov_len: 0 }; SIZE];
        let mut heads = heads();
        let mut count = 0;
        let buffers = self.names.iter_mut().zip(self.controls.iter_mut()).zip(&mut self.responses);
        let buffers =
            buffers.zip(&self.envelopes).take(self.received).filter(|((_, response), _)| !response.is_empty());
        for ((head, part), (((name, control), response), envelope)) in heads.iter_mut().zip(&mut parts).zip(buffers) {
            *part = iovec { iov_base: response.as_mut_ptr().cast(), iov_len: response.len() };
            head.msg_hdr = msghdr {
                msg_name: std::ptr::from_mut(name).cast(),
                msg_namelen: envelope.name,
                msg_iov: part,
                msg_iovlen: 1,
                msg_control: if envelope.control == 0 { null_mut() } else { control.0.as_mut_ptr().cast() },
                msg_controllen: envelope.control as _,
                ..head.msg_hdr
            };
            count += 1;
        }
        let (mut at, mut failed, mut last) = (0, 0, None);
        while at < count {
            let left = u32::try_from(count - at).unwrap_or(COUNT);
            // SAFETY: each header up to `count` points at a name, a response and perhaps a control message of the
            // lengths given, all exclusively borrowed by this function until after the loop.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), heads[at..].as_mut_ptr(), left, 0) };
            match usize::try_from(sent) {
                Ok(sent) => at += sent,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        // The error is that of the first response, which is skipped.
                        (at, failed, last) = (at + 1, failed + 1, Some(error));
                    }
                }
            }
        }
        self.received = 0;
        (failed, last)
    }
}

/// Zeroed octets, without huge pages. So only pages that were written to take memory: most datagrams and batches are
/// short.
fn buffers(length: usize) -> Vec<u8> {
    let buffers = vec![0; length];
    advise(&buffers, libc::MADV_NOHUGEPAGE);
    buffers
}

/// Empty headers.
fn heads() -> [mmsghdr; SIZE] {
    // SAFETY: null pointers, zero lengths and no flags are a header.
    unsafe { zeroed() }
}

/// The size of a type, for the kernel.
#[allow(clippy::cast_possible_truncation)] // at most 28
const fn length_of<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}

/// The sender's address; `None` if its port is 0, so that it can't be answered.
#[inline]
fn address_of(name: &Name, length: socklen_t) -> Option<IpAddr> {
    // SAFETY: the name was zeroed and then written only by the kernel, and any bits are a valid value of each member.
    // All members begin with the family. Family and length tell which member was written.
    unsafe {
        match i32::from(name.family) {
            AF_INET if length >= length_of::<sockaddr_in>() && name.v4.sin_port != 0 => {
                Some(Ipv4Addr::from(name.v4.sin_addr.s_addr.to_ne_bytes()).into())
            }
            AF_INET6 if length >= length_of::<sockaddr_in6>() && name.v6.sin6_port != 0 => {
                Some(Ipv6Addr::from(name.v6.sin6_addr.s6_addr).to_canonical())
            }
            _ => None,
        }
    }
}

/// Turns the packet info that was received with a datagram into the packet info for its response, so that the response
/// is sent from the address that the datagram was sent to (RFC 3542 §6.1 for IPv6, Linux's `IP_PKTINFO` for IPv4). The
/// packet info is in the first `length` octets of `control`. Returns its length.
fn info_for_response(length: usize, control: &mut Control) -> usize {
    let [mut head, ..] = heads();
    // The pointer is made from the exclusive borrow, so that writing through it is allowed.
    head.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
    head.msg_hdr.msg_controllen = length.min(control.0.len()) as _;
    // SAFETY: the kernel wrote `length` octets of well-formed control messages to `control`, which `head` points at;
    // the first is looked at only if there is one, and its data only by the type that its level and kind give it.
    // `Control` is aligned for it.
    unsafe {
        let first = CMSG_FIRSTHDR(&raw const head.msg_hdr);
        if first.is_null() {
            return 0;
        }
        let data = CMSG_DATA(first);
        match ((*first).cmsg_level, (*first).cmsg_type) {
            (IPPROTO_IP, IP_PKTINFO) => {
                let info = data.cast::<in_pktinfo>();
                // The kernel's routing chooses the interface; only the source address is set.
                (*info).ipi_ifindex = 0;
                space::<in_pktinfo>()
            }
            (IPPROTO_IPV6, IPV6_PKTINFO) => {
                let info = data.cast::<in6_pktinfo>();
                // Here too, except for a link-local address, which is valid only on its own interface.
                if !Ipv6Addr::from((*info).ipi6_addr.s6_addr).is_unicast_link_local() {
                    (*info).ipi6_ifindex = 0;
                }
                space::<in6_pktinfo>()
            }
            _ => 0,
        }
    }
}

/// The length of a control message with this data and its padding.
#[allow(clippy::cast_possible_truncation)] // at most 20
fn space<T>() -> usize {
    // SAFETY: the macro only computes a length.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

/// Starts to load the cache lines of a value, without waiting. Does nothing on processors without such an instruction.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of::<T>()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is within `value`, and a prefetch neither reads nor writes as far as the program can
        // tell.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// A vector with room for `count` values, in huge pages if the system has some. A large table that is read at random
/// places would otherwise wait longer for the translation of addresses than for the memory.
#[must_use]
pub fn with_huge_pages<T>(count: usize) -> Vec<T> {
    let values = Vec::with_capacity(count);
    advise(&values, libc::MADV_HUGEPAGE);
    values
}

/// Tells the system how the pages of a vector's allocation are used. The system may ignore that.
fn advise<T>(values: &Vec<T>, advice: i32) {
    /// The size and alignment of a page.
    const PAGE: usize = 4096;
    let start = values.as_ptr().addr().next_multiple_of(PAGE);
    let length = (values.as_ptr().addr() + values.capacity() * size_of::<T>()).saturating_sub(start) / PAGE * PAGE;
    // SAFETY: these are whole pages within the vector's own allocation, and both kinds of advice change no value.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, advice) };
}

/// Moves values to huge pages, if they are large enough for that to matter.
#[must_use]
pub fn in_huge_pages<T>(values: Vec<T>) -> Vec<T> {
    /// Half a huge page.
    const ENOUGH: usize = 1 << 20;
    if size_of_val(&*values) < ENOUGH {
        return values;
    }
    let mut moved = with_huge_pages(values.len());
    moved.extend(values);
    moved
}

/// Returns memory to the system that was freed but that the allocator keeps. Reading and compiling a large zone frees
/// many small pieces between others that stay; the allocator doesn't return those by itself.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function only works on the allocator's own free lists, under the allocator's locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The first file that systemd passes (`sd_listen_fds(3)`).
const FIRST_PASSED: i32 = 3;

/// The files that systemd passes. Called once, before this process opens files, which could get the same numbers.
pub fn passed_files(count: u16) -> impl Iterator<Item = io::Result<OwnedFd>> {
    (FIRST_PASSED..FIRST_PASSED + i32::from(count)).map(|number| {
        // SAFETY: asking for a number's flags and setting them touches nothing else; it fails where no file has the
        // number.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file is open, and the service manager passed it for this process to own.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    })
}

/// Receives one octet from a Unix socket, and the file that was passed with it, if there is one.
///
/// # Errors
/// When the connection has ended, or the system reports an error.
pub fn receive_file(socket: BorrowedFd<'_>) -> io::Result<(u8, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let (mut octet, mut control) = ([0_u8], nix::cmsg_space!([i32; 1]));
    let mut parts = [io::IoSliceMut::new(&mut octet)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut file = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel has just opened this file for the receiver of the message, which is this process.
                file = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    match received.bytes {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok((octet[0], file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control message as the kernel writes it, with `data` as its data. Returns its length with padding, too.
    fn control(level: i32, kind: i32, data: &[u8]) -> (usize, Control) {
        let length = size_of::<libc::cmsghdr>() + data.len();
        let mut control = Control([0xff; 64]);
        let head = [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat();
        control.0[..length].copy_from_slice(&head);
        (length.next_multiple_of(8), control)
    }

    #[test]
    fn the_response_gets_the_local_address_and_only_link_local_addresses_keep_their_interface() {
        let head = size_of::<libc::cmsghdr>();
        let interface = 7_u32.to_ne_bytes();
        let v4 = [&interface[..], &[192, 0, 2, 1], &[192, 0, 2, 2]].concat();
        let (length, mut info) = control(IPPROTO_IP, IP_PKTINFO, &v4);
        assert_eq!(info_for_response(length, &mut info), length);
        assert_eq!(info.0[head..head + 12], *[&[0; 4][..], &v4[4..]].concat());

        for (address, kept) in [("2001:db8::1", [0; 4]), ("::ffff:192.0.2.1", [0; 4]), ("fe80::1", interface)] {
            let address = address.parse::<Ipv6Addr>().unwrap().octets();
            let (length, mut info) = control(IPPROTO_IPV6, IPV6_PKTINFO, &[&address[..], &interface].concat());
            assert_eq!(info_for_response(length, &mut info), length);
            assert_eq!(info.0[head..head + 20], *[&address[..], &kept].concat());
        }
        let (length, mut other) = control(libc::SOL_SOCKET, 1, &[1; 8]);
        assert_eq!((info_for_response(length, &mut other), info_for_response(0, &mut other)), (0, 0));
    }
}
