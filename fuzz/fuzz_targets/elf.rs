#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardcage::fuzz::elf(data).expect("an invariant holds"));
