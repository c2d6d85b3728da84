#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardcage::fuzz::lock(data).expect("an invariant holds"));
