//! Project tasks: `cargo xtask --help`.

mod apt;
mod architecture;
mod archive;
mod bench;
mod bytecode;
mod cargo;
mod demo;
mod deny;
mod dist;
mod docs;
mod files;
mod image;
mod kube;
mod matrix;
mod monitoring;
mod msrv;
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
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what probe costs: `bench watch`, `vxlan`, `bypass`, `path`, `agent`
    Bench(bench::Args),
    /// Find or install the compiler and linker of the BPF objects
    Setup,
    /// Build the BPF objects into probe-ebpf/bytecode
    Bytecode(bytecode::Args),
    /// Reproduce the incident in network namespaces (two nodes, etcd, monitors) and run `probe watch` on it
    Demo(demo::Args),
    /// Build the archive to install a host from: static binary, completions, manual pages, systemd unit
    Dist(dist::Args),
    /// Check, or write, the parts of docs/ that are generated from the types
    Docs(docs::Args),
    /// Build the container image that deploy/ runs: one static binary; needs no docker
    Image(image::Args),
    /// Check on a running cluster that every rejected connection to etcd is attributed to the right pod
    KubeTest(kube::Args),
    /// Run the scenarios on kernels from 5.10 on, booted in QEMU
    Matrix(matrix::Args),
    /// Check and test the alert rules of deploy/monitoring with promtool
    Monitoring(monitoring::Args),
    /// Check what CI checks: formatting, lints, unit tests, BPF objects, alert rules, the lab's scenarios
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run().map(|_| ()),
        Task::Bytecode(args) => bytecode::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Docs(args) => docs::run(&args),
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
