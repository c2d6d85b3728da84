#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardcage::fuzz::header_block(data).expect("an invariant holds"));
