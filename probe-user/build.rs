//! Where the BPF objects are embedded from: `probe-ebpf/bytecode`, unless `PROBE_BYTECODE_DIR` names rebuilt ones. Those
//! whose name ends in `-log` are for `--kernel-log`.

use std::{env, path::PathBuf};

const OBJECTS: [&str; 6] = ["bypass", "connection", "drops", "path", "tls", "vxlan"];

fn main() {
    println!("cargo:rerun-if-env-changed=PROBE_BYTECODE_DIR");
    // Asked at run time: a shared target directory may hold this script built in another checkout.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let committed = || package.join("../probe-ebpf/bytecode");
    let dir = env::var_os("PROBE_BYTECODE_DIR").map_or_else(committed, PathBuf::from);
    for object in OBJECTS
        .into_iter()
        .flat_map(|object| [object.to_owned(), format!("{object}-log")])
    {
        let path = dir.join(&object).with_extension("o");
        assert!(
            path.exists(),
            "{} is missing: run `cargo xtask bytecode`, which builds the BPF objects",
            path.display()
        );
        println!("cargo:rerun-if-changed={}", path.display());
        println!(
            "cargo:rustc-env=PROBE_OBJECT_{}={}",
            object.to_uppercase().replace('-', "_"),
            path.display()
        );
    }
}
