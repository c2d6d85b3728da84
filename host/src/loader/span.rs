//! Where an opened library lies in memory. A file with `unsafe`.
//!
//! A crash report tells by it whose code an address is. Nothing else depends on it.

use nix::libc;
use std::ops::Range;

struct Search {
    address: u64,
    found: Option<Range<u64>>,
}

/// The span of the library that `address` lies in, from where it was loaded to the end of its last segment.
pub(super) fn around(address: usize) -> Option<Range<u64>> {
    let mut search = Search { address: address as u64, found: None };
    // SAFETY: `look` is called before this returns, with the pointer that is given here. OWNERSHIP: `search` is borrowed
    // for the call. THREADS: the dynamic linker holds its lock.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

extern "C" fn look(info: *mut libc::dl_phdr_info, _: libc::size_t, search: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the linker passes a valid entry, and the pointer that `around` gave. OWNERSHIP: both borrowed for the call.
    // THREADS: called on the thread that `around` runs on.
    let (Some(info), Some(search)) = (unsafe { info.as_ref() }, unsafe { search.cast::<Search>().as_mut() })
    else {
        return 1;
    };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the linker says so many program headers stand there. OWNERSHIP: the library's. THREADS: read-only.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    #[allow(clippy::useless_conversion, reason = "32 bits on other machines")]
    let end = loaded.map(|header| u64::from(header.p_vaddr).saturating_add(header.p_memsz.into())).max();
    #[allow(clippy::useless_conversion, reason = "32 bits on other machines")]
    let start = u64::from(info.dlpi_addr);
    let span = start..start.saturating_add(end.unwrap_or(0));
    let is_it = span.contains(&search.address);
    if is_it {
        search.found = Some(span);
    }
    libc::c_int::from(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_a_library_lies_in_its_span_and_code_of_another_one_does_not() {
        let (ours, libc) = (around as fn(usize) -> _ as usize, libc::getpid as *const () as usize);
        let (here, there) = (around(ours).unwrap(), around(libc).unwrap());
        assert!(here.contains(&(ours as u64)) && there.contains(&(libc as u64)));
        assert!(!here.contains(&(libc as u64)) && !there.contains(&(ours as u64)));
        assert_eq!(around(8), None);
    }
}
