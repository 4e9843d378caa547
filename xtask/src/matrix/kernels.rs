//! Debian's kernels: found, downloaded and unpacked, never installed. apt checks what it downloads.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::run;

/// Suites whose kernels are looked at: stable of the last years, and the newest there is.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The smallest configuration, made for virtual machines; all that probe needs is in it.
const FLAVOUR: &str = "-cloud-amd64";
/// How long a list of packages is good for.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    pub modules: PathBuf,
}

/// Debian's archive as this machine's apt knows it, in a state of our own: the machine's is left alone.
pub struct Archive {
    directory: PathBuf,
    packages: Vec<String>,
}

impl Archive {
    /// Reads the lists of packages, downloaded at most once a day.
    pub fn open() -> Result<Self> {
        let directory = run::target().join("matrix");
        for part in [
            "apt/state/lists/partial",
            "apt/cache/archives/partial",
            "debs",
            "kernels",
        ] {
            fs::create_dir_all(directory.join(part))?;
        }
        let mut archive = Self {
            directory,
            packages: Vec::new(),
        };
        archive.configure()?;
        archive.update()?;
        let names = run::output(archive.apt("apt-cache").arg("pkgnames"))?;
        archive.packages = names.lines().map(str::to_owned).collect();
        Ok(archive)
    }

    fn configure(&self) -> Result<()> {
        let mirror = mirror()?;
        let sources: String = SUITES
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        let apt = self.directory.join("apt");
        fs::write(apt.join("sources.list"), sources)?;
        fs::write(apt.join("status"), "")?;
        let apt = apt.display();
        let settings = format!(
            "Dir::State \"{apt}/state\";\nDir::State::status \"{apt}/status\";\nDir::Cache \"{apt}/cache\";\n\
             Dir::Etc::SourceList \"{apt}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Parts \"/dev/null\";\nAPT::Architecture \"amd64\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::Check-Valid-Until \"false\";\n"
        );
        fs::write(self.directory.join("apt/apt.conf"), settings)?;
        Ok(())
    }

    fn update(&self) -> Result<()> {
        let stamp = self.directory.join("apt/updated");
        let age = fs::metadata(&stamp)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        println!("reading the lists of Debian's kernels");
        run::run(self.apt("apt-get").args(["update", "-qq"]))?;
        fs::write(stamp, "")?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.join("apt/apt.conf"));
        command
    }

    /// The newest kernel of a series, such as `6.1`, or of all: `newest`. Downloads it if it is not there.
    pub fn kernel(&self, series: &str) -> Result<Kernel> {
        let Some(release) = newest(&self.packages, series) else {
            bail!(
                "no kernel {series} in Debian's {}: name a series that has one, such as 6.1",
                SUITES.join(", ")
            );
        };
        let unpacked = self.directory.join("kernels").join(&release);
        if !unpacked.exists() {
            self.fetch(&release, &unpacked)?;
        }
        Kernel::find(release, &unpacked)
    }

    fn fetch(&self, release: &str, to: &Path) -> Result<()> {
        // From 7.2 on the image and the modules are packages of their own.
        let parts: Vec<String> = ["linux-image-", "linux-binary-", "linux-modules-"]
            .into_iter()
            .map(|part| format!("{part}{release}"))
            .filter(|name| self.packages.contains(name))
            .collect();
        println!("downloading {}", parts.join(", "));
        let debs = tempfile::tempdir_in(self.directory.join("debs"))?;
        run::run(
            self.apt("apt-get")
                .args(["download", "-qq"])
                .args(&parts)
                .current_dir(debs.path()),
        )?;
        let partial = to.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        for entry in fs::read_dir(debs.path())? {
            run::run(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(entry?.path())
                    .arg(&partial),
            )?;
        }
        fs::rename(&partial, to)?;
        Ok(())
    }
}

impl Kernel {
    fn find(release: String, unpacked: &Path) -> Result<Self> {
        let exists = |path: PathBuf| path.exists().then_some(path);
        let modules = ["lib/modules", "usr/lib/modules"]
            .into_iter()
            .find_map(|directory| exists(unpacked.join(directory).join(&release)))
            .with_context(|| format!("no modules in the packages of kernel {release}"))?;
        let image = exists(unpacked.join("boot").join(format!("vmlinuz-{release}")))
            .or_else(|| exists(modules.join("vmlinuz")))
            .with_context(|| format!("no image in the packages of kernel {release}"))?;
        Ok(Self {
            release,
            image,
            modules,
        })
    }
}

/// Debian's main archive among this machine's sources.
fn mirror() -> Result<String> {
    let targets = run::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(RELEASE) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let mirror = targets.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (origin, release, uri) = (fields.next()?, fields.next()?, fields.next()?);
        // The security archive and the like have other suites.
        (origin == "Debian" && !release.contains('-')).then(|| uri.to_owned())
    });
    mirror.context(
        "the kernels of the matrix are Debian's, and this machine's apt has no Debian archive among its sources \
         (after `apt-get update`)",
    )
}

/// The newest release of a series among names of packages.
fn newest(packages: &[String], series: &str) -> Option<String> {
    packages
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.ends_with(FLAVOUR) && release.starts_with(|c: char| c.is_ascii_digit()))
        .filter(|release| {
            series == "newest"
                || release
                    .strip_prefix(series)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// The numbers in a version, to compare.
pub fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn newest_of_a_series() {
        let packages: Vec<String> = [
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-5.10.0-47-cloud-amd64-unsigned",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        for (series, expected) in [
            ("5.10", Some("5.10.0-46-cloud-amd64")),
            ("6.1", Some("6.1.0-50-cloud-amd64")),
            ("6.12", Some("6.12.117+deb13-cloud-amd64")),
            ("newest", Some("7.3.4+deb13-cloud-amd64")),
            ("4.19", None),
        ] {
            assert_eq!(newest(&packages, series).as_deref(), expected, "{series}");
        }
    }
}
