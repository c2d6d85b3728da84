#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardcage::fuzz::signature(data).expect("an invariant holds"));
