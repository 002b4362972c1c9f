//! Link settings of the two builds of the agent.
//!
//! Both are non-PIE, since a log message is named by the address of its
//! symbol. `CARGO_CFG_PANIC` says "unwind" in build scripts even under
//! panic=abort, so the freestanding build is known by a variable that
//! `cargo xtask agent` sets.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=defmt-insert.x");
    println!("cargo:rerun-if-env-changed=E2WIRE_AGENT_BARE");
    println!("cargo:rerun-if-env-changed=DEFMT_LOG");
    // Found by the linker in the working directory of the compiler or here.
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    let mut arguments =
        vec!["-no-pie", "-Tdefmt-insert.x", "-Wl,--build-id=sha1"];
    if std::env::var_os("E2WIRE_AGENT_BARE").is_some() {
        arguments.extend(["-nostartfiles", "-nostdlib", "-static"]);
    }
    for argument in arguments {
        println!("cargo:rustc-link-arg-bin=e2wire-agent={argument}");
    }
}
