//! Where an opened library lies in memory. A file with `unsafe`.
//!
//! A crash report tells by it whose code an address is. Nothing else depends on it.

use crate::crash::Mapped;
use nix::libc;

struct Search {
    address: u64,
    found: Option<Mapped>,
}

/// Where the library lies that has code at `address`.
pub(super) fn around(address: usize) -> Option<Mapped> {
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
    let is_code =
        |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0;
    let base = info.dlpi_addr;
    let spans = headers.iter().filter(is_code).map(|header| {
        let start = base.saturating_add(header.p_vaddr);
        start..start.saturating_add(header.p_memsz)
    });
    // Linkers write one such segment; of several all that lies between is taken for code as well.
    let code = spans.reduce(|all, more| all.start.min(more.start)..all.end.max(more.end));
    let code = code.filter(|code| code.contains(&search.address));
    let is_it = code.is_some();
    if let Some(code) = code {
        search.found = Some(Mapped { base, code });
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
        assert!(here.code.contains(&(ours as u64)) && there.code.contains(&(libc as u64)));
        assert!(!here.code.contains(&(libc as u64)) && !there.code.contains(&(ours as u64)));
        assert_eq!(around(8), None);
    }

    #[test]
    fn data_of_a_library_is_none_of_its_code() {
        static READ: &str = "read";
        static WRITTEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
        let here = around(around as fn(usize) -> _ as usize).unwrap();
        for data in [READ.as_ptr() as usize, (&raw const WRITTEN) as usize] {
            assert!(data as u64 > here.base && !here.code.contains(&(data as u64)), "{here:x?} {data:x}");
            assert_eq!(around(data), None);
        }
    }
}
