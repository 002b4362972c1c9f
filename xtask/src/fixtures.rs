//! `cargo xtask fixtures`: makes every test filesystem.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use e2wire_tests::fixtures;

/// Makes what is not in the cache, lists all, copies them to `directory`.
pub(crate) fn run(directory: Option<&str>) -> Result<()> {
    let began = Instant::now();
    let made = fixtures::build_all()?;
    for fixture in &made {
        println!("{:28} {}", fixture.recipe.name, fixture.recipe.purpose);
    }
    if let Some(directory) = directory {
        let directory = Path::new(directory);
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        for fixture in &made {
            fixture.copy_to(
                &directory.join(fixture.recipe.name).with_extension("img"),
            )?;
        }
    }
    println!(
        "{} filesystems in {} ({:.1} s)",
        made.len(),
        directory.map_or_else(
            || fixtures::cache().display().to_string(),
            str::to_owned
        ),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
