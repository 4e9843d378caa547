//! An image as a tar: an OCI layout, with docker's manifest beside its index, so that each importer finds its own.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::origin::Origin;
use crate::{
    archive::{self, Entry},
    bytecode::hash,
};

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
            digest: hash(&bytes),
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
        let diff = hash(&files);
        let layer = Blob::of(archive::gzip(&files)?);
        let config = Blob::of(serde_json::to_vec(&self.config(&diff)?)?);
        let manifest = Blob::of(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
            "annotations": self.labels()?,
        }))?);
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [self.name],
            "Layers": [layer.path()],
        }]);
        let (digest, compressed) = (format!("sha256:{}", manifest.digest), layer.bytes.len());
        let mut entries = vec![
            Entry::file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            Entry::file("index.json", 0o644, serde_json::to_vec(&self.index(&manifest))?),
            Entry::file("manifest.json", 0o644, serde_json::to_vec(&docker)?),
        ];
        entries.extend([config, layer, manifest].map(|blob| Entry::file(blob.path(), 0o644, blob.bytes)));
        Ok(Archive {
            tar: archive::tar(entries, self.origin.time)?,
            digest,
            compressed,
        })
    }

    /// The layer: the binary, and nothing else. What the runtime mounts it makes folders for itself.
    fn files(&self) -> Result<Vec<u8>> {
        archive::tar(
            vec![Entry::file("probe", 0o555, self.binary.clone())],
            self.origin.time,
        )
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
}

/// As containerd and the kubelet write a short name out.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
