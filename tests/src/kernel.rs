//! The kernel that scenarios run on.

/// `uname -r`.
pub fn release() -> String {
    nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether it is older than a version.
pub fn before(version: (u32, u32)) -> bool {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (number(), number()) < version
}

/// Where a scenario of the matrix says what it skips.
const SKIPS: &str = "PROBE_LAB_SKIPS";

/// Whether this is a guest of the kernel matrix: a kernel of Debian's, on an emulated machine.
pub fn in_matrix() -> bool {
    std::env::var_os(SKIPS).is_some()
}

/// Whether a scenario, or a part of it, has to be left out because this kernel is older than `version`. The kernel
/// matrix is told, and fails where that is not so.
pub fn too_old(version: (u32, u32), reason: &str) -> bool {
    let too_old = before(version);
    if too_old {
        let program = std::env::current_exe().ok();
        let program = program
            .as_deref()
            .and_then(std::path::Path::file_name)
            .unwrap_or_default();
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let (major, minor) = version;
        let line = format!(
            "skipped\t{}\t{name}\t{major}.{minor}\t{reason}\n",
            program.to_string_lossy()
        );
        eprint!("{line}");
        if let Some(path) = std::env::var_os(SKIPS) {
            use std::io::Write as _;
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
        }
    }
    too_old
}
