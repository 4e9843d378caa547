//! `cargo xtask image`: the image of probe, made without a builder or a daemon.

pub mod binary;
mod layout;
pub mod origin;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use self::{binary::Target, layout::Image, origin::Origin};
use crate::{progress::Progress, run};

#[derive(clap::Args)]
pub struct Args {
    /// Write the image to this file. Default: target/probe-VERSION-ARCHITECTURE.tar
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the image. Default: probe:VERSION
    #[arg(short, long, value_name = "NAME:TAG", value_parser = tag)]
    tag: Option<String>,
    /// Target to build the binary for
    #[arg(long, value_enum, default_value_t = Target::here())]
    target: Target,
    /// Use this static binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let path = match &args.binary {
        Some(path) => path.clone(),
        None => args.target.build()?,
    };
    let binary = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    args.target
        .check(&binary)
        .with_context(|| format!("{} can't be an image's only file", path.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let image = Image {
        name: args.tag.clone().unwrap_or_else(|| format!("probe:{version}")),
        version: version.to_owned(),
        architecture: args.target.architecture(),
        origin: Origin::find(),
        binary,
    };
    let progress = Progress::start("compressing the image", "");
    let archive = image.archive()?;
    progress.done();
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| run::target().join(format!("probe-{version}-{}.tar", image.architecture)));
    fs::write(&output, &archive.tar).with_context(|| format!("can't write {}", output.display()))?;
    println!("{}\nimage:  {}", output.display(), image.name);
    println!("digest: {}", archive.digest);
    println!(
        "size:   {:.1} MB compressed, {:.1} MB unpacked",
        megabytes(archive.compressed),
        megabytes(image.binary.len())
    );
    Ok(())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// A name with a tag: without one, what imports the image gives it another than the manifests ask for.
fn tag(text: &str) -> Result<String, String> {
    let last = text.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((name, tag)) if !name.is_empty() && !tag.is_empty() => Ok(text.to_owned()),
        _ => Err("a name and a tag, such as probe:1 or registry.example/net/probe:1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn names_have_tags() {
        for good in ["probe:1", "registry.example:5000/net/probe:0.1.0"] {
            assert_eq!(tag(good).as_deref(), Ok(good));
        }
        for bad in ["probe", "probe:", ":1", "registry.example:5000/probe", ""] {
            assert!(tag(bad).is_err(), "{bad}");
        }
    }
}
