//! An image as a tar: an OCI layout, with docker's manifest beside its index, so that each importer finds its own.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::origin::Origin;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image with one file.
#[derive(Clone, Debug)]
pub struct Image {
    /// With its tag.
    pub name: String,
    pub version: String,
    /// As Go names it.
    pub architecture: &'static str,
    pub origin: Origin,
    pub binary: Vec<u8>,
}

/// What is written.
#[derive(Debug)]
pub struct Archive {
    pub tar: Vec<u8>,
    /// Of the image's manifest, by which it may be asked for.
    pub digest: String,
    /// The layer's size.
    pub compressed: usize,
}

/// Bytes that are known by their digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            digest: hex(&bytes),
            bytes,
        }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len()})
    }
}

impl Image {
    /// The same bytes for the same image, always.
    pub fn archive(&self) -> Result<Archive> {
        let files = self.files()?;
        let diff = hex(&files);
        let layer = Blob::of(compress(&files)?);
        let config = Blob::of(serde_json::to_vec(&self.config(&diff)?)?);
        let manifest = Blob::of(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
            "annotations": self.labels()?,
        }))?);
        let mut entries = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            (
                "index.json".to_owned(),
                serde_json::to_vec(&self.index(&manifest))?,
            ),
            (
                "manifest.json".to_owned(),
                serde_json::to_vec(&json!([{
                    "Config": config.path(),
                    "RepoTags": [self.name],
                    "Layers": [layer.path()],
                }]))?,
            ),
        ];
        let (digest, compressed) = (format!("sha256:{}", manifest.digest), layer.bytes.len());
        entries.extend([config, layer, manifest].map(|blob| (blob.path(), blob.bytes)));
        entries.sort();
        Ok(Archive {
            tar: self.tar(&entries, 0o644)?,
            digest,
            compressed,
        })
    }

    /// The layer: the binary, and nothing else. What the runtime mounts it makes folders for itself.
    fn files(&self) -> Result<Vec<u8>> {
        let entry = ("probe".to_owned(), self.binary.clone());
        self.tar(&[entry], 0o555)
    }

    fn config(&self, diff: &str) -> Result<Value> {
        Ok(json!({
            "created": self.created()?,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                // Capabilities that a pod is given count for root only: another user's are lost at exec.
                "User": "0",
                "Entrypoint": ["/probe"],
                "Cmd": ["agent"],
                "Labels": self.labels()?,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
            "history": [{"created": self.created()?, "created_by": "cargo xtask image"}],
        }))
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor(MANIFEST);
        descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        let (_, tag) = self.name.rsplit_once(':').unwrap_or(("", &self.name));
        // containerd goes by the first, all else by the second.
        descriptor["annotations"] = json!({
            "io.containerd.image.name": full_name(&self.name),
            "org.opencontainers.image.ref.name": tag,
        });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }

    fn labels(&self) -> Result<Value> {
        let mut labels = json!({
            "org.opencontainers.image.title": "probe",
            "org.opencontainers.image.description":
                "Names who opened each TCP connection of a Kubernetes node, and what in the packet path is to blame",
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.created": self.created()?,
            "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
        });
        if let Some(revision) = &self.origin.revision {
            labels["org.opencontainers.image.revision"] = json!(revision);
        }
        Ok(labels)
    }

    fn created(&self) -> Result<String> {
        let time = jiff::Timestamp::from_second(self.origin.time).context("no such time")?;
        Ok(time.to_string())
    }

    fn tar(&self, entries: &[(String, Vec<u8>)], mode: u32) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(self.origin.time.try_into().unwrap_or_default());
            tar.append_data(&mut header, path, content.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }
}

/// As containerd and the kubelet write a short name out.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    // The header's time and system are left out, which would differ.
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
