//! `cargo xtask dist`: an archive to install a host from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    archive::{self, Entry},
    image::{binary::Target, origin::Origin},
    progress::Progress,
    run,
};

#[derive(clap::Args)]
pub struct Args {
    /// Write the archive to this file. Default: target/probe-VERSION-ARCHITECTURE.tar.gz
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Target to build the binary for
    #[arg(long, value_enum, default_value_t = Target::here())]
    target: Target,
}

/// Shells, and where each looks for completions below a prefix such as /usr/local.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/probe"),
    ("zsh", "share/zsh/site-functions/_probe"),
    ("fish", "share/fish/vendor_completions.d/probe.fish"),
];
/// Files of the workspace, and where they go.
const FILES: [(&str, &str); 4] = [
    ("deploy/probe.service", "lib/systemd/system/probe.service"),
    ("README.md", "share/doc/probe/README.md"),
    ("LICENSE-APACHE", "share/doc/probe/LICENSE-APACHE"),
    ("LICENSE-MIT", "share/doc/probe/LICENSE-MIT"),
];

pub fn run(args: &Args) -> Result<()> {
    let path = args.target.build()?;
    let binary = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    args.target.check(&binary)?;
    // Another architecture's can't be run here; what is asked of it is the same in all.
    let runs_here = if args.target == Target::here() {
        path
    } else {
        Target::here().build()?
    };
    let architecture = args.target.architecture();
    let name = format!("probe-{}-{architecture}", env!("CARGO_PKG_VERSION"));
    let mut entries = contents(binary, &runs_here)?;
    for entry in &mut entries {
        entry.path = format!("{name}/{}", entry.path);
    }
    let progress = Progress::start("compressing the archive", "");
    let tar = archive::gzip(&archive::tar(entries, Origin::find().time)?)?;
    progress.done();
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| run::target().join(format!("{name}.tar.gz")));
    fs::write(&output, &tar).with_context(|| format!("can't write {}", output.display()))?;
    println!("{}\nsize: {:.1} MB", output.display(), tar.len() as f64 / 1e6);
    Ok(())
}

/// What is below a prefix; `probe` is a binary that runs here.
fn contents(binary: Vec<u8>, probe: &Path) -> Result<Vec<Entry>> {
    let mut entries = vec![
        Entry::file("bin/probe", 0o755, binary),
        // By this name kubectl runs it as `kubectl probe`.
        Entry::link("bin/kubectl-probe", "probe"),
    ];
    for (shell, path) in COMPLETIONS {
        let text = run::output(Command::new(probe).args(["completions", shell]))?;
        entries.push(Entry::file(path, 0o644, text.into_bytes()));
    }
    let pages = tempfile::tempdir()?;
    run::run(Command::new(probe).arg("man").arg(pages.path()))?;
    for page in fs::read_dir(pages.path())? {
        let page = page?;
        let Ok(name) = page.file_name().into_string() else {
            bail!("a manual page's name is no text");
        };
        let path = format!("share/man/man1/{name}");
        entries.push(Entry::file(path, 0o644, fs::read(page.path())?));
    }
    for (from, to) in FILES {
        let content = fs::read(run::root().join(from)).with_context(|| format!("can't read {from}"))?;
        entries.push(Entry::file(to, 0o644, content));
    }
    Ok(entries)
}
