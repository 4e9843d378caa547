//! Debian's kernels: found, downloaded and unpacked, never installed. apt checks what it downloads.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
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

/// In the folder of a kernel that is unpacked in full: its package.
const COMPLETE: &str = "package";
/// The same of a kernel whose modules were not listed.
const UNLISTED: &str = "modules-were-not-listed";

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Debian's package of the image, and its version.
    pub package: String,
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    pub modules: PathBuf,
    /// Whether the modules were not on the archive's signed lists. The image was, and has the key that they are signed with: the
    /// kernel must be told to load no others.
    pub enforce_signatures: bool,
}

/// Debian's archive as this machine's apt knows it, in a state of our own: the machine's is left alone.
pub struct Archive {
    directory: PathBuf,
    mirror: String,
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
            mirror: mirror()?,
            packages: Vec::new(),
        };
        archive.configure()?;
        archive.update()?;
        let names = run::output(archive.apt("apt-cache").arg("pkgnames"))?;
        archive.packages = names.lines().map(str::to_owned).collect();
        Ok(archive)
    }

    fn configure(&self) -> Result<()> {
        let mirror = &self.mirror;
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
        let Some(release) = releases(&self.packages, series).into_iter().next() else {
            bail!(
                "no kernel {series} in Debian's {}: name a series that has one, such as 6.1",
                SUITES.join(", ")
            );
        };
        self.release(&release)
    }

    /// The kernel of this very release.
    pub fn release(&self, release: &str) -> Result<Kernel> {
        let unpacked = self.directory.join("kernels").join(release);
        if !unpacked.join(COMPLETE).exists() {
            self.fetch(release, &unpacked)?;
        }
        Kernel::find(release, &unpacked)
    }

    fn fetch(&self, release: &str, to: &Path) -> Result<()> {
        let parts = Parts::of(&self.packages, release);
        let start = Instant::now();
        println!("downloading {}", parts.listed.join(", "));
        let debs = tempfile::tempdir_in(self.directory.join("debs"))?;
        run::run(
            self.apt("apt-get")
                .args(["download", "-qq"])
                .args(&parts.listed)
                .current_dir(debs.path()),
        )?;
        let partial = to.with_extension("partial");
        for old in [&partial, to] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        for entry in fs::read_dir(debs.path())? {
            run::run(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(entry?.path())
                    .arg(&partial),
            )?;
        }
        if let Some(modules) = &parts.unlisted {
            self.fetch_modules(modules, release, debs.path(), &partial)?;
            fs::write(partial.join(UNLISTED), "")?;
        }
        fs::write(partial.join(COMPLETE), self.package(&parts.listed[0])?)?;
        fs::rename(&partial, to)?;
        println!(
            "kernel {release} downloaded and unpacked in {:.0} s",
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Takes a package of modules that is no longer listed from the archive's pool.
    fn fetch_modules(&self, package: &str, release: &str, debs: &Path, to: &Path) -> Result<()> {
        let image = self.package(&format!("linux-binary-{release}"))?;
        // All packages of a kernel have one version.
        let version = image.split(' ').next_back().unwrap_or_default();
        let file = format!("{package}_{version}_amd64.deb");
        let url = format!("{}/pool/main/l/linux/{file}", self.mirror.trim_end_matches('/'));
        println!("downloading {package}, which the archive does not list any more");
        let deb = debs.join(file);
        run::run(
            self.apt("/usr/lib/apt/apt-helper")
                .args(["-qq", "download-file", &url])
                .arg(&deb),
        )
        .with_context(|| format!("the archive lists linux-binary-{release} without {package}"))?;
        let mut tar = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&deb)
            .stdout(Stdio::piped())
            .spawn()
            .context("can't run dpkg-deb")?;
        // Nobody signed for its other files.
        let wanted = Path::new("usr/lib/modules").join(release);
        let stream = tar.stdout.take().context("no output of dpkg-deb")?;
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let path = path.strip_prefix(".").unwrap_or(&path);
            if path.starts_with(&wanted) && entry.header().entry_type().is_file() {
                let to = to.join(path);
                if path.components().any(|part| part == Component::ParentDir) {
                    bail!("{package} has a file {}", path.display());
                }
                fs::create_dir_all(to.parent().unwrap_or(&to))?;
                io::copy(&mut entry, &mut File::create(to)?)?;
            }
        }
        let status = tar.wait()?;
        if !status.success() {
            bail!("unpacking {package} failed: {status}");
        }
        Ok(())
    }

    /// A package, and its version.
    fn package(&self, package: &str) -> Result<String> {
        let text = run::output(self.apt("apt-cache").args(["show", "--no-all-versions", package]))?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let version = version.with_context(|| format!("apt knows no version of {package}"))?;
        Ok(format!("{package} {version}"))
    }
}

impl Kernel {
    fn find(release: &str, unpacked: &Path) -> Result<Self> {
        let exists = |path: PathBuf| path.exists().then_some(path);
        let modules = ["lib/modules", "usr/lib/modules"]
            .into_iter()
            .find_map(|directory| exists(unpacked.join(directory).join(release)))
            .with_context(|| format!("no modules in the packages of kernel {release}"))?;
        let image = exists(unpacked.join("boot").join(format!("vmlinuz-{release}")))
            .or_else(|| exists(modules.join("vmlinuz")))
            .with_context(|| format!("no image in the packages of kernel {release}"))?;
        Ok(Self {
            release: release.to_owned(),
            package: fs::read_to_string(unpacked.join(COMPLETE))?,
            image,
            modules,
            enforce_signatures: unpacked.join(UNLISTED).exists(),
        })
    }
}

/// The packages that hold a release's image and modules.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    /// The image's first.
    listed: Vec<String>,
    /// The modules', where the archive's lists do not have them.
    unlisted: Option<String>,
}

impl Parts {
    /// Up to 6.18 one package has image and modules; since 6.19 they are in `linux-binary` and `linux-modules`. These are built from
    /// two sources, and the lists drop the modules of a series when the next series comes, but not yet its image.
    fn of(packages: &[String], release: &str) -> Self {
        let [image, binary, modules] =
            ["linux-image-", "linux-binary-", "linux-modules-"].map(|part| format!("{part}{release}"));
        let (listed, unlisted) = match (packages.contains(&binary), packages.contains(&modules)) {
            (false, _) => (vec![image], None),
            (true, true) => (vec![binary, modules], None),
            (true, false) => (vec![binary], Some(modules)),
        };
        Self { listed, unlisted }
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

/// The releases of a series among names of packages, the newest first.
fn releases(packages: &[String], series: &str) -> Vec<String> {
    let mut releases: Vec<&str> = packages
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.ends_with(FLAVOUR) && release.starts_with(|c: char| c.is_ascii_digit()))
        .filter(|release| {
            series == "newest"
                || release
                    .strip_prefix(series)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
        .collect();
    releases.sort_by_key(|release| std::cmp::Reverse(numbers(release)));
    releases.into_iter().map(str::to_owned).collect()
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
    use super::{Parts, releases};

    fn packages() -> Vec<String> {
        [
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-5.10.0-47-cloud-amd64-unsigned",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.19.14+deb13-cloud-amd64",
            "linux-binary-6.19.14+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn releases_of_a_series() {
        for (series, expected) in [
            ("5.10", &["5.10.0-46-cloud-amd64", "5.10.0-9-cloud-amd64"][..]),
            ("6.1", &["6.1.0-50-cloud-amd64", "6.1.0-0.deb11.52-cloud-amd64"]),
            ("6.12", &["6.12.117+deb13-cloud-amd64"]),
            ("4.19", &[]),
        ] {
            assert_eq!(releases(&packages(), series), expected, "{series}");
        }
        let newest = releases(&packages(), "newest");
        assert_eq!(
            newest.first().map(String::as_str),
            Some("7.3.4+deb13-cloud-amd64")
        );
    }

    #[test]
    fn packages_of_a_release() {
        for (release, listed, unlisted) in [
            (
                "6.12.117+deb13-cloud-amd64",
                &["linux-image-6.12.117+deb13-cloud-amd64"][..],
                None,
            ),
            (
                "7.3.4+deb13-cloud-amd64",
                &[
                    "linux-binary-7.3.4+deb13-cloud-amd64",
                    "linux-modules-7.3.4+deb13-cloud-amd64",
                ],
                None,
            ),
            (
                "6.19.14+deb13-cloud-amd64",
                &["linux-binary-6.19.14+deb13-cloud-amd64"],
                Some("linux-modules-6.19.14+deb13-cloud-amd64"),
            ),
        ] {
            let parts = Parts::of(&packages(), release);
            assert_eq!(parts.listed, listed, "{release}");
            assert_eq!(parts.unlisted.as_deref(), unlisted, "{release}");
        }
    }
}
