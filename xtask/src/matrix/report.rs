//! The tables at the end of a matrix.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::{
    Guest,
    guest::{Results, Verdict, failures},
    record::{must_run, skipped_in_vain},
    smoke,
    sources::ProgramSource,
};

/// Prints what every scenario did on every kernel, and each kernel in a row.
///
/// # Errors
/// Names each fault: what failed, did not run, was skipped and must not be; a kernel that died or can't be had.
pub fn print(guests: &[Guest], sources: &BTreeMap<String, ProgramSource>) -> Result<()> {
    let ran: Vec<(&Guest, &Results)> = guests
        .iter()
        .filter_map(|guest| match &guest.outcome {
            Some(Ok((results, _))) => Some((guest, results)),
            Some(Err(_)) | None => None,
        })
        .collect();
    let mut faults = Vec::new();
    scenarios(&ran, sources, &mut faults);
    for (guest, results) in &ran {
        let failed = failures(&results.log);
        if !failed.is_empty() {
            println!(
                "\n=== {}: output of failed scenarios ({} has all)\n{failed}",
                guest.name,
                guest.log().display()
            );
        }
        for program in &results.crashed {
            faults.push(format!(
                "{}: {program} ended with an exit code that does not fit its verdicts",
                guest.name
            ));
        }
        if guest.check
            && let Err(fault) = checked(results)
        {
            faults.push(format!("{}: {fault:#}", guest.name));
        }
    }
    kernels(guests, &mut faults);
    if !faults.is_empty() {
        let faults_are = if faults.len() == 1 {
            "1 fault"
        } else {
            &format!("{} faults", faults.len())
        };
        bail!("{faults_are}:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// What `probe check` found in a guest.
fn checked(results: &Results) -> Result<()> {
    match &results.check {
        Some((json, status)) => {
            let kernel: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
            smoke::judge(kernel["kernel"].as_str().unwrap_or_default(), json, *status)
        }
        None => bail!("probe check did not run"),
    }
}

/// The scenarios, a row each; with what was skipped, and why.
fn scenarios(
    ran: &[(&Guest, &Results)],
    sources: &BTreeMap<String, ProgramSource>,
    faults: &mut Vec<String>,
) {
    // Programs in the order of their names, whatever each guest ran.
    let mut rows: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (guest, results) in ran {
        for (program, verdicts) in &results.programs {
            rows.extend(verdicts.keys().map(|name| (program.as_str(), name.as_str())));
        }
        for step in &guest.plan {
            rows.extend(step.names(sources).map(|name| (step.program.as_str(), name)));
        }
    }
    if rows.is_empty() {
        return;
    }
    let width = rows.iter().map(|(program, name)| program.len() + 1 + name.len());
    let width = width.max().unwrap_or(0);
    let heads: String = ran
        .iter()
        .map(|(guest, _)| format!("  {:>12}", guest.name))
        .collect();
    println!("\n{:width$}{heads}", "");
    let mut skipped = BTreeSet::new();
    for (program, name) in rows {
        let mut line = format!("{:width$}", format!("{program} {name}"));
        for (guest, results) in ran {
            let release = guest.kernel.as_ref().map_or("", |kernel| kernel.release.as_str());
            let verdict = results
                .programs
                .get(program)
                .and_then(|verdicts| verdicts.get(name));
            let text = match verdict {
                Some(Verdict::Passed) => "passed",
                Some(Verdict::Skipped { minimum, reason }) => {
                    skipped.insert(format!("{program} {name}: before {minimum}, {reason}"));
                    if must_run(release, minimum) {
                        let fault = skipped_in_vain(name, minimum);
                        faults.push(format!("{}: {program} {fault}", guest.name));
                    }
                    "skipped"
                }
                Some(Verdict::Failed) => {
                    faults.push(format!("{}: {program} {name} failed", guest.name));
                    "FAILED"
                }
                None if guest.runs(program, name, sources) => {
                    faults.push(format!("{}: {program} {name} did not run", guest.name));
                    "MISSING"
                }
                None => "",
            };
            line.push_str(&format!("  {text:>12}"));
        }
        println!("{}", line.trim_end());
    }
    for skip in &skipped {
        println!("skipped: {skip}");
    }
}

/// The kernels, a row each.
fn kernels(guests: &[Guest], faults: &mut Vec<String>) {
    if guests.is_empty() {
        return;
    }
    println!(
        "\n{:14}{:32}{:>8}{:>8}{:>8}{:>8}",
        "guest", "kernel", "passed", "failed", "skipped", "time"
    );
    for guest in guests {
        let kernel = match &guest.kernel {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("{:14}not available: {error:#}", guest.name);
                faults.push(format!("{}: not available: {error:#}", guest.name));
                continue;
            }
        };
        match &guest.outcome {
            Some(Ok((results, time))) => {
                let count = |wanted: fn(&Verdict) -> bool| {
                    let verdicts = results.programs.values().flat_map(BTreeMap::values);
                    verdicts.filter(|verdict| wanted(verdict)).count()
                };
                println!(
                    "{:14}{:32}{:>8}{:>8}{:>8}{:>6.0} s",
                    guest.name,
                    kernel.release,
                    count(|verdict| matches!(verdict, Verdict::Passed)),
                    count(|verdict| matches!(verdict, Verdict::Failed)),
                    count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
                    time.as_secs_f64()
                );
                if results.programs.values().all(BTreeMap::is_empty) {
                    faults.push(format!("{}: no scenario ran", guest.name));
                }
            }
            Some(Err(error)) => {
                let text = format!("{error:#}");
                let first = text.lines().next().unwrap_or_default();
                println!("{:14}{:32}{first}", guest.name, kernel.release);
                faults.push(format!("{}: {first}", guest.name));
            }
            None => faults.push(format!("{}: did not run", guest.name)),
        }
    }
}
