#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cardcage::fuzz::describe_output(data).expect("an invariant holds"));
