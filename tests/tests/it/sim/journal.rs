//! What a journal costs on a slow line: most of it lies elsewhere, too.

use super::{cases, clean_run, image_by};
use e2wire::stop::Stop;

#[test]
fn what_a_journal_holds_twice_crosses_the_line_once() {
    let case = cases().last().unwrap();
    let run = |journal_last| {
        clean_run(case, 115_200, 50, |spool| {
            image_by(spool, &Stop::new(), journal_last)
        })
    };
    let (whole, once) = (run(false), run(true));
    assert!(whole.image == case.image && once.image == case.image);
    let (whole, once) = (whole.from_agent, once.from_agent);
    assert!(once * 4 < whole * 3, "{once} and {whole} bytes");
}
