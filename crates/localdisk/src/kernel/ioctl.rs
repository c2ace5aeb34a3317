//! Orders to devices and file systems (`ioctl`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_SET_CAPACITY: u32 = 0x4C07;
const LOOP_CONFIGURE: u32 = 0x4C0A;
const LOOP_CTL_GET_FREE: u32 = 0x4C82;
const FIFREEZE: u32 = 0xC004_5877;
const FITHAW: u32 = 0xC004_5878;
const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;
const BLKGETSIZE64: u32 = 0x8008_1272;

/// The device goes away when nobody has it open any more.
pub(super) const AUTOCLEAR: u32 = 4;
/// Past the page cache, where the disk can do it: else every page is cached twice.
pub(super) const DIRECT_IO: u32 = 16;

/// `struct loop_info64`; the fields that are not named here stay zero.
#[repr(C)]
struct LoopInfo {
    before: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

fn done(returned: libc::c_int) -> io::Result<libc::c_int> {
    match returned {
        ..0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// An order whose argument is a number.
fn order(fd: RawFd, request: u32, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: the requests of the callers take a number, which no memory is read or written by.
    done(unsafe { libc::ioctl(fd, request as _, argument) })
}

/// The number of a loop device that nobody has.
pub(super) fn free_loop(control: &File) -> io::Result<u32> {
    order(control.as_raw_fd(), LOOP_CTL_GET_FREE, 0).map(|number| number as u32)
}

/// Puts a file behind a loop device. Fails with `EBUSY` when another process was faster.
pub(super) fn configure_loop(device: &File, file: &File, flags: u32) -> io::Result<()> {
    let info = LoopInfo {
        before: [0; 5],
        number_and_encryption: [0; 3],
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = file.as_raw_fd() as u32;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `config` is and outlives the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) })?;
    Ok(())
}

/// Makes a loop device as long as its file.
pub(super) fn refresh_loop(device: &File) -> io::Result<()> {
    order(device.as_raw_fd(), LOOP_SET_CAPACITY, 0).map(drop)
}

/// Takes the file away, when the last user closes the device.
pub(super) fn clear_loop(device: &File) -> io::Result<()> {
    order(device.as_raw_fd(), LOOP_CLR_FD, 0).map(drop)
}

/// Stops all writes to a mounted file system, whose disk is then consistent.
pub(crate) fn freeze(mounted: &File) -> io::Result<()> {
    order(mounted.as_raw_fd(), FIFREEZE, 0).map(drop)
}

pub(crate) fn thaw(mounted: &File) -> io::Result<()> {
    order(mounted.as_raw_fd(), FITHAW, 0).map(drop)
}

/// Makes a mounted ext4 file system so many blocks long.
pub(crate) fn grow_ext4(mounted: &File, blocks: u64) -> io::Result<()> {
    let request = EXT4_IOC_RESIZE_FS as _;
    // SAFETY: EXT4_IOC_RESIZE_FS reads one 64-bit number, which outlives the call.
    done(unsafe { libc::ioctl(mounted.as_raw_fd(), request, &raw const blocks) })?;
    Ok(())
}

/// Bytes of a block device.
pub(crate) fn device_size(device: &File) -> io::Result<u64> {
    let mut size = 0_u64;
    // SAFETY: BLKGETSIZE64 writes one 64-bit number, which outlives the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64 as _, &raw mut size) })?;
    Ok(size)
}
