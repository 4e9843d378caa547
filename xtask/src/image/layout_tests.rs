use std::{collections::BTreeMap, io::Read};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{Image, Origin, full_name, hash};

fn image() -> Image {
    Image {
        name: "probe:0.1.0".to_owned(),
        version: "0.1.0".to_owned(),
        architecture: "amd64",
        origin: Origin {
            time: 1_764_000_000,
            revision: Some("0123abcd".to_owned()),
        },
        binary: b"\x7fELF and so on".repeat(1000),
    }
}

/// Name → mode, time, content.
fn unpack(tar: &[u8]) -> BTreeMap<String, (u32, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    let read = |entry: std::io::Result<tar::Entry<&[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        (path, (header.mode().unwrap(), header.mtime().unwrap(), content))
    };
    entries.map(read).collect()
}

/// Follows a descriptor to its blob, whose digest and size must be as it says.
fn follow(files: &BTreeMap<String, (u32, u64, Vec<u8>)>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    let (_, _, bytes) = &files[&format!("blobs/sha256/{digest}")];
    assert_eq!(hash(bytes), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes.clone()
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn the_index_leads_to_the_binary() {
    let image = image();
    let archive = image.archive().unwrap();
    let files = unpack(&archive.tar);
    assert_eq!(
        parse(&files["oci-layout"].2),
        json!({"imageLayoutVersion": "1.0.0"})
    );
    let index = parse(&files["index.json"].2);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], archive.digest);
    assert_eq!(
        descriptor["platform"],
        json!({"architecture": "amd64", "os": "linux"})
    );
    assert_eq!(
        descriptor["annotations"]["io.containerd.image.name"],
        "docker.io/library/probe:0.1.0"
    );
    assert_eq!(
        descriptor["annotations"]["org.opencontainers.image.ref.name"],
        "0.1.0"
    );
    let manifest = parse(&follow(&files, descriptor));
    let config = parse(&follow(&files, &manifest["config"]));
    assert_eq!(config["config"]["User"], "0");
    assert_eq!(config["config"]["Entrypoint"], json!(["/probe"]));
    assert_eq!(config["config"]["Cmd"], json!(["agent"]));
    let label = |name: &str| &config["config"]["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("version"), "0.1.0");
    assert_eq!(label("revision"), "0123abcd");
    assert_eq!(label("created"), "2025-11-24T16:00:00Z");
    let layer = gunzip(&follow(&files, &manifest["layers"][0]));
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([format!("sha256:{}", hash(&layer))])
    );
    let layer = unpack(&layer);
    assert_eq!(layer.len(), 1, "nothing but the binary");
    assert_eq!(layer["probe"], (0o555, 1_764_000_000, image.binary));
}

#[test]
fn dockers_manifest_is_of_the_same_blobs() {
    let archive = image().archive().unwrap();
    let files = unpack(&archive.tar);
    let docker = parse(&files["manifest.json"].2);
    let index = parse(&files["index.json"].2);
    let manifest = parse(&follow(&files, &index["manifests"][0]));
    let path = |descriptor: &Value| {
        let digest = descriptor["digest"]
            .as_str()
            .unwrap()
            .strip_prefix("sha256:")
            .unwrap();
        format!("blobs/sha256/{digest}")
    };
    assert_eq!(
        docker,
        json!([{
            "Config": path(&manifest["config"]),
            "RepoTags": ["probe:0.1.0"],
            "Layers": [path(&manifest["layers"][0])],
        }])
    );
    assert_eq!(files.len(), 6, "three blobs, three files that lead to them");
}

#[test]
fn the_same_twice_and_another_for_another() {
    let first = image().archive().unwrap();
    let second = image().archive().unwrap();
    assert_eq!(first.tar, second.tar);
    let mut other = image();
    other.binary.push(0);
    assert_ne!(other.archive().unwrap().digest, first.digest);
    let mut later = image();
    later.origin.time += 1;
    assert_ne!(later.archive().unwrap().digest, first.digest);
}

#[test]
fn short_names_written_out() {
    for (name, full) in [
        ("probe:1", "docker.io/library/probe:1"),
        ("net/probe:1", "docker.io/net/probe:1"),
        ("registry.example/probe:1", "registry.example/probe:1"),
        ("localhost/probe:1", "localhost/probe:1"),
        ("registry:5000/probe:1", "registry:5000/probe:1"),
    ] {
        assert_eq!(full_name(name), full);
    }
}
