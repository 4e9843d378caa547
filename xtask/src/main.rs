//! Project tasks: `cargo xtask --help`.

mod apt;
mod archive;
mod bench;
mod bytecode;
mod cargo;
mod demo;
mod dist;
mod image;
mod kube;
mod matrix;
mod monitoring;
mod progress;
mod root;
mod run;
mod scenarios;
mod setup;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project tasks
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What probe costs what it watches: `bench watch`, `vxlan`, `bypass`, `path`, `agent`
    Bench(bench::Args),
    /// Find or install what builds the BPF objects; says what it does
    Setup,
    /// Build the BPF objects into probe-ebpf/bytecode
    Bytecode(bytecode::Args),
    /// Lay the incident out in network namespaces (two nodes, etcd, monitors) and run probe watch on it
    Demo(demo::Args),
    /// What a host is installed from: static binary, completions, manual pages, unit, manifests
    Dist(dist::Args),
    /// The image that deploy/ runs: one static binary, without a builder or a daemon
    Image(image::Args),
    /// Pods of a running cluster dial its etcd: each rejected line must be answered with the right pod
    KubeTest(kube::Args),
    /// The scenarios on real kernels from 5.10 on, booted in QEMU
    Matrix(matrix::Args),
    /// The alert rules of deploy/monitoring: checked and tested by promtool
    Monitoring(monitoring::Args),
    /// Everything CI checks: formatting, lints, unit tests, objects, the lab's scenarios
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run().map(|_| ()),
        Task::Bytecode(args) => bytecode::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Image(args) => image::run(&args),
        Task::KubeTest(args) => kube::run(&args),
        Task::Matrix(args) => matrix::run(&args),
        Task::Monitoring(args) => monitoring::run(&args),
        Task::Test(args) => test::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
