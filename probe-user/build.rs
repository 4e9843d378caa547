//! The BPF objects that are embedded, compressed: those of `probe-ebpf/bytecode`, unless `PROBE_BYTECODE_DIR` names rebuilt ones.
//! Those whose name ends in `-log` are for `--kernel-log`. Which fields of the kernel each reads. And
//! which commit and target a binary is of, for `--version`.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::DeflateEncoder};

fn main() {
    println!("cargo:rerun-if-env-changed=PROBE_BYTECODE_DIR");
    // Asked at run time: a shared target directory may hold this script built in another checkout.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let committed = || package.join("../probe-ebpf/bytecode");
    let dir = env::var_os("PROBE_BYTECODE_DIR").map_or_else(committed, PathBuf::from);
    let objects = objects(&package.join("../probe-ebpf/Cargo.toml"));
    println!("cargo:rustc-env=PROBE_OBJECTS={}", objects.join(","));
    for object in objects
        .iter()
        .flat_map(|object| [object.clone(), format!("{object}-log")])
    {
        let path = dir.join(&object).with_extension("o");
        assert!(
            path.exists(),
            "{} is missing: run `cargo xtask bytecode`, which builds the BPF objects",
            path.display()
        );
        println!("cargo:rerun-if-changed={}", path.display());
        let compressed =
            PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(format!("{object}.deflate"));
        compress(&path, &compressed)
            .unwrap_or_else(|error| panic!("can't compress {}: {error}", path.display()));
        println!(
            "cargo:rustc-env=PROBE_OBJECT_{}={}",
            object.to_uppercase().replace('-', "_"),
            compressed.display()
        );
    }
    let sources = package.join("../probe-ebpf/src");
    for directory in ["bin", "kernel"] {
        println!("cargo:rerun-if-changed={}", sources.join(directory).display());
    }
    for object in &objects {
        let fields = fields(&sources, object)
            .unwrap_or_else(|error| panic!("can't read the sources of {object}: {error}"));
        let name = object.to_uppercase().replace('-', "_");
        println!("cargo:rustc-env=PROBE_READS_{name}={fields}");
    }
    let commit = commit(&package.join("..")).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=PROBE_COMMIT={commit}");
    println!(
        "cargo:rustc-env=PROBE_TARGET={}",
        env::var("TARGET").unwrap_or_default()
    );
}

/// A quarter of the size: most of an object is type information.
fn compress(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&fs::read(from)?)?;
    fs::write(to, encoder.finish()?)
}

/// The names of the BPF objects: each `[[bin]]` of probe-ebpf is one.
fn objects(manifest: &Path) -> Vec<String> {
    println!("cargo:rerun-if-changed={}", manifest.display());
    let text = fs::read_to_string(manifest)
        .unwrap_or_else(|error| panic!("can't read {}: {error}", manifest.display()));
    let names = text.split("[[bin]]").skip(1).filter_map(|bin| {
        let line = bin.lines().find_map(|line| line.strip_prefix("name = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    });
    names.collect()
}

/// The kernel's fields that an object reads, `offset!(name)`, in its own files and in the modules of `kernel` that these import.
fn fields(sources: &Path, object: &str) -> std::io::Result<String> {
    let own = sources.join("bin").join(object);
    let mut text = match own.is_dir() {
        true => rust(&own)?,
        false => fs::read_to_string(own.with_extension("rs"))?,
    };
    for module in fs::read_dir(sources.join("kernel"))? {
        let module = module?.path();
        let name = module
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if imports(&text, name) {
            text.push_str(&fs::read_to_string(&module)?);
        }
    }
    let names = text.split("offset!(").skip(1);
    let names: BTreeSet<_> = names.filter_map(|rest| Some(rest.split_once(')')?.0)).collect();
    Ok(names.into_iter().collect::<Vec<_>>().join(","))
}

/// The files of a directory, one after the other.
fn rust(directory: &Path) -> std::io::Result<String> {
    fs::read_dir(directory)?
        .map(|file| fs::read_to_string(file?.path()))
        .collect()
}

/// Whether a source imports a module of `probe-ebpf/src/kernel`.
fn imports(source: &str, module: &str) -> bool {
    let uses = source.split("use probe_ebpf::").skip(1);
    uses.filter_map(|rest| Some(rest.split_once(';')?.0))
        .flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .any(|word| word == module)
}

/// The commit that is checked out, read from git's files: git may be missing, or refuse a checkout of another user. `None`
/// without a repository, as in an archive of the sources.
fn commit(checkout: &Path) -> Option<String> {
    let git = git_dir(&checkout.join(".git"))?;
    let head = watched(&git.join("HEAD"))?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return is_hash(head.trim());
    };
    // A linked worktree has a HEAD of its own, and branches where the repository is.
    let shared = match fs::read_to_string(git.join("commondir")) {
        Ok(shared) => git.join(shared.trim()),
        Err(_) => git.clone(),
    };
    if let Some(hash) = watched(&shared.join(reference)) {
        return is_hash(hash.trim());
    }
    let packed = watched(&shared.join("packed-refs"))?;
    // The next commit makes the branch a file of its own, and changes neither HEAD nor the packed ones.
    watched(&git.join("logs/HEAD"));
    packed.lines().find_map(|line| {
        let (hash, name) = line.split_once(' ')?;
        (name == reference).then(|| is_hash(hash)).flatten()
    })
}

/// The directory itself, or the one that a file in its place names.
fn git_dir(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let text = fs::read_to_string(path).ok()?;
    Some(path.parent()?.join(text.trim().strip_prefix("gitdir: ")?))
}

/// A file's text; a change of it, and of no other file of git's, runs this script again. Only of a file that exists: cargo
/// takes a missing one for changed, at every build.
fn watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text)
}

fn is_hash(text: &str) -> Option<String> {
    let is_hash = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_owned())
}
