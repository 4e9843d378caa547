//! BPF programs that others run on a device.

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

use crate::error::chain;

/// Programs of one place that are listed.
const MOST: usize = 64;

/// A program by its id and name.
pub type Program = (u32, String);

/// The programs of tcx (6.6) at the ingress or egress of a device of the calling thread's network namespace; none on a kernel
/// without.
///
/// # Errors
/// Why they can't be listed.
pub fn tcx(device: &str, ingress: bool) -> Result<Vec<Program>, String> {
    let way = if ingress {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    };
    match SchedClassifier::query_tcx(device, way) {
        Ok((_, programs)) => Ok(programs
            .into_iter()
            .take(MOST)
            .map(|program| (program.id(), name(&program)))
            .collect()),
        Err(error) => {
            let text = chain(&error);
            // EINVAL: this kernel has no such place.
            if text.contains("os error 22") {
                Ok(Vec::new())
            } else {
                Err(text)
            }
        }
    }
}

/// The name of a program; empty where it is gone, or not to be read.
pub fn name_of(id: u32) -> String {
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id);
    program.as_ref().map(name).unwrap_or_default()
}

fn name(program: &aya::programs::ProgramInfo) -> String {
    String::from_utf8_lossy(program.name()).into_owned()
}
