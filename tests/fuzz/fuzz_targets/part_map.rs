//! Feeds libFuzzer's inputs to the target `part_map` of the tests.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    (e2wire_tests::fuzz::target("part_map").run)(input);
});
