#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| alexandria_sync_fuzz::patch(data));
