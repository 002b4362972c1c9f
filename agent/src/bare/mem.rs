//! memcpy and its kin for the freestanding agent, in assembly: written in
//! Rust, the compiler would turn their loops into calls to themselves.

core::arch::global_asm!(include_str!("mem.s"), options(att_syntax));

#[cfg(test)]
mod tests {
    use core::ffi::c_int;

    unsafe extern "C" {
        fn e2wire_memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8;
        fn e2wire_memset(to: *mut u8, byte: c_int, n: usize) -> *mut u8;
        fn e2wire_memcmp(a: *const u8, b: *const u8, n: usize) -> c_int;
        fn e2wire_strlen(text: *const u8) -> usize;
    }

    const LENGTHS: core::ops::Range<usize> = 0..300;
    const GUARD: usize = 64;

    fn pattern() -> Vec<u8> {
        (0_u32..1024).map(|i| ((i * 167) >> 3) as u8).collect()
    }

    #[test]
    fn memmove_agrees_with_the_standard_library_at_any_overlap() {
        for n in LENGTHS {
            for (from, to) in
                [(GUARD, 600), (GUARD, GUARD + 1), (GUARD + 1, GUARD)]
                    .into_iter()
                    .chain((1..10).map(|d| (GUARD, GUARD + 17 * d)))
                    .chain((1..10).map(|d| (GUARD + 17 * d, GUARD)))
                    .chain([(GUARD, GUARD)])
            {
                let mut expected = pattern();
                expected.copy_within(from..from + n, to);
                let mut found = pattern();
                let base = found.as_mut_ptr();
                // SAFETY: both ranges lie inside `found`.
                let target =
                    unsafe { e2wire_memmove(base.add(to), base.add(from), n) };
                assert_eq!(target, base.wrapping_add(to));
                assert!(found == expected, "{n} bytes {from} -> {to}");
            }
        }
    }

    #[test]
    fn memset_fills_exactly_what_it_is_given() {
        for n in LENGTHS {
            for start in 0..16 {
                let mut expected = pattern();
                expected[start..start + n].fill(0xa5);
                let mut found = pattern();
                // SAFETY: the range lies inside `found`.
                unsafe {
                    e2wire_memset(found.as_mut_ptr().add(start), 0x1a5, n)
                };
                assert!(found == expected, "{n} bytes at {start}");
            }
        }
    }

    #[test]
    fn memcmp_orders_by_the_first_difference() {
        let left = pattern();
        for n in LENGTHS {
            for place in (0..n).step_by(7).chain(n.checked_sub(1)) {
                for change in [1_u8, 0x80, 0xff] {
                    let mut right = left.clone();
                    right[place] ^= change;
                    // A later difference must not matter.
                    right[n - 1] ^= u8::from(place != n - 1);
                    // SAFETY: both hold more than `n` bytes.
                    let found = unsafe {
                        e2wire_memcmp(left.as_ptr(), right.as_ptr(), n)
                    };
                    let expected = left[..n].cmp(&right[..n]) as i32;
                    assert_eq!(found.signum(), expected, "{n} at {place}");
                }
            }
            // SAFETY: as above.
            let same =
                unsafe { e2wire_memcmp(left.as_ptr(), left.as_ptr(), n) };
            assert_eq!(same, 0);
        }
    }

    #[test]
    fn strlen_counts_to_the_null_byte() {
        for text in [c"", c"a", c"e2wire-agent"] {
            // SAFETY: a C string ends in a null byte.
            let found = unsafe { e2wire_strlen(text.as_ptr().cast()) };
            assert_eq!(found, text.to_bytes().len());
        }
    }
}
